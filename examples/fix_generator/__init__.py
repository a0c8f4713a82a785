"""Fix generator over the simulator: which model fixes which defect, and at what price.

`python -m examples.fix_generator` in a checkout. Four simulated providers, one of which goes down
halfway, are asked for fixes of small broken functions in Python and C. A fix is applied, compiled
and tested in a subprocess with limits; what fails is tried again with another provider, up to
three times, within a budget. At the end the figures of the meter are compared with what the
providers and the checks know.
"""
