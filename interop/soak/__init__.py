"""Random workflows on workers of both languages, under disturbances, and a count of what went wrong.

    python -m interop.soak --minutes 10
    python -m interop.soak --quick

See ``interop/README.md``.  From the bottom up: ``settings`` and ``record`` hold
values, ``judge`` and ``run_judge`` are pure, ``disturbances`` is the plan of a run; ``server``,
``fleet``, ``systems``, ``worker``, ``producer`` and ``steerer`` are the processes
and what is done in them, with the steps of ``steps``; ``column``
runs one system, and ``report`` prints all of them.
"""
