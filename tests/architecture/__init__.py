"""Checks of the shape of the code, part of ``make check``: ``python -m tests.architecture``.

Each check measures one thing and compares it with its limit in ``limits.py``.
"""
