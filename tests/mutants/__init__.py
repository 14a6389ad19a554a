"""Take the lines that the guarantees rest on out of the code, one at a time, and name the test that fails.

``python -m tests.mutants`` or ``make mutants``; the lines are in ``catalogue/``.
"""
