"""Hurts each command that a worker sends, one at a time, and looks what became of the jobs.

Run it with ``make sweep`` (``python -m tests.sweep --help``).
"""
