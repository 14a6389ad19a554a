"""Scripts, each of which shows one way in which a job can go wrong, as met with this or another library.

The first line of each names where it was met.  A script takes ``REDIS_URL``,
empties that database, and prints PASS or FAIL: ``make cases``.
"""
