"""Node ids that many mutants name."""

from __future__ import annotations

SCRIPTS = "integration/test_scripts.py::"
RULES = "integration/test_script_rules.py::"
OWED = "integration/test_owed_acks.py::"
STANDING = "integration/test_standing.py::"
RECOVERY = "integration/test_recovery.py::"
WORKFLOW = "integration/test_workflow.py::"
TTL = "integration/test_ttl.py::"
RELEASE = "integration/test_release.py::"
STORAGE = "integration/test_callback_storage.py::"
LARGE = "integration/test_large_stacks.py::"
REFERENCES = "properties/test_large_references.py::"
POLLER = "integration/test_poller.py::"
BROKER = "integration/test_broker.py::"
MANY = "integration/test_send_many.py::"
CONNECTION = "integration/test_connection.py::"
PLUGGABLE = "integration/test_pluggable.py::"
WRONG = "integration/test_wrong_types.py::"
MEMBERS = "integration/test_bad_members.py::"
FAILURES = "brokers/test_failures.py::"
FANOUTS = "integration/test_fanouts.py::"
NEXT = "integration/test_next_job.py::"
RECORDS = "integration/test_records.py::"
GROUP = "integration/test_group_steps.py::"

#: Members of a group on another broker, the last of which comes again.
COUNTED = RULES + "test_a_unit_is_counted_once_on_another_broker"

#: As in test_scripts.
MINE, ITS = "swf:inflight:host:1:abc:python", "swf:inflight:host:2:def:python"
INNER, OUTER, CHAIN = (f"{n * 8}-0000-0000-0000-000000000000" for n in "123")


def refuses(operation: str, key: str) -> str:
    """An operation names a key of another type, and writes nothing."""
    return f"{SCRIPTS}test_a_key_of_another_type_is_named_and_nothing_is_written[{operation}-{key}]"


def keeps(operation: str, command: str) -> str:
    """Of a user who may not send a command, an operation leaves the job where it is."""
    return f"integration/test_rights.py::test_without_a_right_the_job_stays_where_it_is[{operation}-{command}]"


def twice(operation: str) -> str:
    """An operation that is sent twice is done once."""
    return f"{SCRIPTS}test_sent_twice_it_is_done_once[{operation}]"


def expires(operation: str) -> str:
    """All that an operation writes has a TTL."""
    return f"{SCRIPTS}test_what_is_written_does_not_stay_for_ever[{operation}]"
