"""What an error of Redis means: of the server, or of the command."""

from __future__ import annotations

import pytest
import redis
from redis import exceptions

from dramatiq_sidekiq_flow.store.faults import LOST, ServerUnavailable, classified

OF_THE_SERVER = [
    exceptions.ReadOnlyError("You can't write against a read only replica."),
    exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'. script: 1, on @user_script:5."),
    exceptions.NoPermissionError("this user has no permissions to run the 'evalsha' command"),
    exceptions.NoScriptError("No matching script. Please use EVAL."),
    exceptions.TryAgainError("Multiple keys request during rehashing of slot"),
    exceptions.MasterDownError("Link with MASTER is down and replica-serve-stale-data is set to 'no'."),
    exceptions.ClusterDownError("CLUSTERDOWN The cluster is down"),
    exceptions.ResponseError("BUSY Redis is busy running a script."),
    exceptions.ResponseError("MISCONF Errors writing to the AOF file: No space left on device"),
    exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."),
    exceptions.ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed"),
    exceptions.ResponseError("WRONGPASS invalid username-password pair or user is disabled."),
    exceptions.ResponseError("Error running script (call to f_1): @user_script:5: @user_script: 5: -OOM refused"),
    exceptions.ResponseError("Error running script (call to f_1): @user_script:5: -MISCONF Redis is"),
    exceptions.ResponseError("ACL failure in script: User w has no permissions to run the 'hset' command script: 1"),
    exceptions.ResponseError("The user executing the script can't run this command or subcommand script: 1"),
]

OF_THE_COMMAND = [
    exceptions.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
    exceptions.ResponseError("value is not an integer or out of range"),
    exceptions.ResponseError("WRONGTYPE queue:BUSY holds a string, not a list"),
    exceptions.ResponseError("the key OOM holds something else"),
    exceptions.ResponseError("user_script:5: attempt to index a nil value"),
]


@pytest.mark.parametrize("error", OF_THE_SERVER, ids=lambda error: str(error)[:30])
def test_it_is_waited_out(error: redis.ResponseError) -> None:
    found = classified(error)
    assert isinstance(found, ServerUnavailable)
    assert isinstance(found, LOST)
    assert found.reply is error


@pytest.mark.parametrize("error", OF_THE_COMMAND, ids=lambda error: str(error)[:30])
def test_trying_again_does_not_help(error: redis.ResponseError) -> None:
    assert classified(error) is error


def test_the_code_that_the_client_cuts_off_is_shown() -> None:
    assert str(classified(exceptions.NoPermissionError("this user may not"))) == "NOPERM this user may not"
    assert str(classified(exceptions.ResponseError("BUSY Redis is busy"))).strip() == "BUSY Redis is busy"
