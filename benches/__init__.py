"""What langmeter costs, measured beside a handler that does nothing and beside its peers.

`python -m benches [PART ...]` measures all of it, or these parts; `--smoke` runs each in short form
and asserts the counts. The core alone, without Python, is measured by `cargo bench`.
"""
