"""How fast and how cheap: this package beside its peers, on one server, in one run.

Run ``python -m benchmarks``; README.md beside this file says what is measured.
"""
