"""Dramatiq's own tests, and dramatiq-workflow's, run against this package: ``make dramatiq-suite``.

Their tests are downloaded and put under ``build/dramatiq-suite``; nothing of
theirs is kept in the repository.  What is here:

* ``plugin.py``: the fixtures that their tests ask for, on a SidekiqBroker;
* ``common.py``: what their tests import from a module that their sdist lacks;
* ``dramatiq_workflow/``: dramatiq-workflow's names, on this package;
* ``cannot-pass.txt``: the tests that cannot pass, each with the reason.
"""
