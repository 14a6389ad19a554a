"""Python: the way to Redis, and who pushes."""

from __future__ import annotations

from ..mutant import in_file
from .tests import BROKER, CONNECTION, RECOVERY

connection = in_file("store/connection.py")
faults = in_file("store/faults.py")
handshake = in_file("store/handshake.py")
producers = in_file("store/producers.py")
queues = in_file("store/queues.py")
workers = in_file("store/workers.py")
callbacks = in_file("wire/callbacks.py")

PRODUCERS = [
    connection(
        "connection-not-sent-again",
        "A lost reply is an error, though sending again is safe.",
        "        except LOST:\n            self._close_all()\n            return self._send(commands), 2\n",
        "        except LOST:\n            raise\n",
        CONNECTION + "test_a_lost_reply_is_answered_by_sending_again",
    ),
    connection(
        "connection-used-with-replies-unread",
        "After an interrupt the next command reads the reply of the one before.",
        "            else:\n                self.drop(connection)\n        return [classified",
        "            else:\n                self._idle.append(connection)\n        return [classified",
        CONNECTION + "test_an_interrupted_connection_is_not_used_again",
    ),
    connection(
        "connection-shared-by-a-fork",
        "A forked child reads its parent's replies.",
        "        if self._pid != os.getpid():\n            self._forget()\n",
        "        return\n",
        CONNECTION + "test_a_child_opens_connections_of_its_own",
    ),
    connection(
        "connection-forgotten-scripts",
        "After a restart of Redis each script fails.",
        "            if NoScriptError in map(type, replies):\n",
        "            if False:\n",
        BROKER + "test_scripts_are_loaded_again_when_the_server_forgets_them",
    ),
    connection(
        "connection-to-a-replica",
        "After a failover the old connections lead to a replica that refuses all writes.",
        "        if ServerUnavailable in map(type, replies) and any(map(_needs_new_connection, replies)):\n",
        "        if False:\n",
        CONNECTION + "test_after_a_failover_another_connection_is_opened",
    ),
    handshake(
        "connection-without-a-time-limit",
        "A server that is silent stops the worker for ever.",
        '        settings["socket_timeout"] = SOCKET_TIMEOUT\n',
        "        pass\n",
        CONNECTION + "test_a_client_without_a_time_limit_gets_one",
    ),
    faults(
        "faults-are-final",
        "READONLY, OOM, BUSY and the like fail a job, where waiting helps.",
        "    if isinstance(error, _CLASSES) or _CODES.search(str(error)):\n",
        "    if False:\n",
        "unit/test_faults.py::test_it_is_waited_out",
    ),
    producers(
        "fork-shares-producers",
        "The push of a forked child is taken for a repetition of its sibling's, and lost.",
        "        if pid != self._pid:\n            self._free, self._pid = deque(), pid\n",
        "",
        CONNECTION + "test_a_child_does_not_push_under_its_parents_name",
    ),
    producers(
        "producer-number-stays",
        "Each push after the first is taken for a repetition, and lost.",
        "        self.number += 1\n",
        "        self.number = 1\n",
        CONNECTION + "test_keys_do_not_grow_with_the_threads_that_sent",
        BROKER + "test_the_first_sent_is_the_first_taken",
    ),
    queues(
        "push-repetition-is-believed",
        "Two copies of a machine take each other's pushes for their own.",
        "        if reply > 0 or (reply == 0 and times > 1):\n",
        "        if True:\n",
        CONNECTION + "test_a_copy_of_a_running_machine_pushes_what_it_sends",
    ),
    queues(
        "push-error-is-swallowed",
        "send() returns though nothing was pushed.",
        "        if isinstance(reply, Exception):\n            raise reply\n        if reply > 0 or",
        "        if reply > 0 or",
        RECOVERY + "test_out_of_memory_loses_nothing",
    ),
    workers(
        "pill-never",
        "A poison pill is tried for ever.",
        "MAX_RECOVERIES = 3\n",
        "MAX_RECOVERIES = 300\n",
        RECOVERY + "test_a_job_recovered_three_times_is_dead",
    ),
    callbacks(
        "barrier-of-any-name",
        "A payload may name `queues` or `dead` as its barrier.",
        "        if not _UUID.fullmatch(barrier):\n",
        "        if False:\n",
        "unit/test_nodes.py::test_a_bad_stack_is_refused[stack4-InvalidCallbacks]",
    ),
]
