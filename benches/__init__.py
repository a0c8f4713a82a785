"""What langmeter costs, measured beside a handler that does nothing and beside its peers.

`python -m benches` prints the table, `--smoke` runs all of it in short form and asserts the counts.
The core alone, without Python, is measured by `cargo bench`.
"""
