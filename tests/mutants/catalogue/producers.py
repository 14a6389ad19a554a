"""Python: the way to Redis, and who pushes."""

from __future__ import annotations

from ..mutant import in_file
from .tests import BROKER, CONNECTION, MANY, RECOVERY, WORKFLOW

connection = in_file("store/connection.py")
faults = in_file("store/faults.py")
handshake = in_file("store/handshake.py")
producers = in_file("store/producers.py")
queues = in_file("store/queues.py")
workers = in_file("store/workers.py")
bulk = in_file("broker/bulk.py")
alike = in_file("broker/bulk_messages.py")
sender = in_file("broker/sender.py")
siblings = in_file("workflow/siblings.py")
workflow = in_file("workflow/workflow.py")
plan = in_file("workflow/plan.py")
sent = in_file("broker/sent_messages.py")
hooks = in_file("broker/enqueue_hooks.py")
codec = in_file("wire/codec.py")
callbacks = in_file("wire/callbacks.py")

SIBLINGS = "properties/test_any_siblings.py::"

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
        "            else:\n                self.drop(connection)\n        for i, reply",
        "            else:\n                self._idle.append(connection)\n        for i, reply",
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
    sender(
        "send-options-of-before",
        "Jobs of an actor that is declared again have its old options.",
        "        if known is not None and known[0] is of_actor:\n",
        "        if known is not None:\n",
        BROKER + "test_an_actor_that_is_declared_again_has_its_new_options",
    ),
    sender(
        "send-arguments-not-checked",
        "An argument that JSON does not have is changed on its way.",
        '        codec.check(message.args, "args")\n',
        "",
        BROKER + "test_each_message_is_checked_and_has_its_own_values",
    ),
    sender(
        "send-without-the-size",
        "A job is pushed that no worker reads.",
        "        codec.check_size(len(payload), message.actor_name)\n",
        "",
        BROKER + "test_a_job_that_is_too_large_is_refused",
    ),
    sender(
        "send-without-the-context",
        "A job that an actor sends has lost its tenant.",
        " or current_job() is not None:",
        ":",
        "integration/test_context.py",
    ),
    siblings(
        "siblings-of-equal-values",
        "A member of a group has the options of another one.",
        "            if values[place] is not common[place]:\n",
        "            if False:\n",
        SIBLINGS + "test_the_jobs_are_those_of_members_one_by_one",
    ),
    siblings(
        "siblings-of-other-classes",
        "A member of a group runs the class of another one.",
        "        return bool(values == common)\n",
        "        return True\n",
        SIBLINGS + "test_the_jobs_are_those_of_members_one_by_one",
    ),
    workflow(
        "run-ids-not-checked",
        "A step is pushed that no worker can read, and its run never ends.",
        "not are_ids(ids) or ",
        "",
        WORKFLOW + "test_a_message_that_cannot_be_a_step_is_refused_wherever_it_stands",
    ),
    workflow(
        "run-messages-not-checked",
        "A step is pushed that no worker can read, and its run never ends.",
        "            unlike.append(wire)\n            if plain:\n",
        "            if plain:\n",
        WORKFLOW + "test_a_message_that_cannot_be_a_step_is_refused_wherever_it_stands",
    ),
    workflow(
        "run-jobs-not-checked",
        "A step is pushed that no worker can read, and its run never ends.",
        "                unlike.append(wire)\n",
        "",
        WORKFLOW + "test_a_message_that_cannot_be_a_step_is_refused_wherever_it_stands",
    ),
    workflow(
        "run-arguments-not-checked",
        "An argument that JSON does not have is changed on its way.",
        "        codec.check_arrays([step.args for step in self._messages])\n",
        "",
        WORKFLOW + "test_a_message_that_cannot_be_a_step_is_refused_wherever_it_stands",
    ),
    plan(
        "siblings-start-early",
        "Members of a group that have a time start at once.",
        ' and "at" not in part[0]:',
        ":",
        SIBLINGS + "test_the_jobs_are_those_of_members_one_by_one",
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
        "    return reply > 0 or (reply == 0 and times > 1)\n",
        "    return True\n",
        CONNECTION + "test_a_copy_of_a_running_machine_pushes_what_it_sends",
        CONNECTION + "test_a_copy_of_a_running_machine_pushes_its_batches",
    ),
    queues(
        "push-all-sends-again-what-was-made",
        "A batch whose reply was lost counts as refused, and is pushed twice.",
        "    return reply > 0 or (reply == 0 and times > 1)\n",
        "    return reply > 0\n",
        MANY + "test_lost_replies_push_nothing_twice",
    ),
    queues(
        "push-all-one-number-for-all",
        "All batches of a write but the first are taken for repetitions.",
        "            scripts.PUSH.command((producer.key, keys.QUEUES, batch.key), (producer.next(), *batch.arguments))\n            for _, batch in left\n",
        "            scripts.PUSH.command((producer.key, keys.QUEUES, batch.key), (1, *batch.arguments))\n            for _, batch in left\n",
        MANY + "test_a_script_pushes_a_thousand_jobs",
        MANY + "test_after_an_error_no_more_is_sent",
    ),
    queues(
        "push-all-error-is-swallowed",
        "send_many() returns though a part was not pushed.",
        "                return Pushed(refused[0][0] if refused else index, reply)\n",
        "                continue\n",
        MANY + "test_after_an_error_no_more_is_sent",
    ),
    queues(
        "push-all-counts-what-failed",
        "The error says of jobs that were not pushed that they are in Redis.",
        "                return Pushed(refused[0][0] if refused else index, reply)\n",
        "                return Pushed(len(batches), reply)\n",
        MANY + "test_after_an_error_no_more_is_sent",
    ),
    queues(
        "push-all-refused-are-forgotten",
        "Batches of a cloned machine are lost.",
        "        if not refused:\n",
        "        if True:\n",
        CONNECTION + "test_a_copy_of_a_running_machine_pushes_its_batches",
    ),
    bulk(
        "many-a-list-is-not-checked-first",
        "Of a list with a bad item some jobs are sent.",
        "list(encoded) if whole else encoded",
        "encoded",
        MANY + "test_of_a_list_with_a_bad_item_nothing_is_sent",
    ),
    bulk(
        "many-a-list-is-not-checked-first-with-hooks",
        "Of a list with a bad item some jobs are sent.",
        "                    _check_all(_encoded(recipe, _chunks(kept, BLOCK), 0))\n",
        "                    pass\n",
        MANY + "test_of_a_list_with_a_bad_item_nothing_is_sent",
    ),
    bulk(
        "many-messages-are-not-checked-first",
        "Of a list with a bad message some are pushed.",
        "                    self._check(message, index)\n",
        "                    pass\n",
        MANY + "test_of_messages_with_a_bad_one_none_is_pushed",
    ),
    bulk(
        "many-messages-are-checked-as-they-are-pushed",
        "Of a list with a bad message some are pushed.",
        "in list(chunks) if whole else chunks:",
        "in chunks:",
        MANY + "test_of_many_messages_with_a_bad_one_none_is_pushed",
    ),
    bulk(
        "many-messages-its-own-is-pushed",
        "A step runs a second time, outside of its workflow.",
        "                    self._check_not_itself(chunk, job, first)\n",
        "                    pass\n",
        MANY + "test_a_step_that_enqueues_its_own_message_among_others",
    ),
    alike(
        "many-messages-options-are-ignored",
        "Jobs get the options of another message.",
        "keys.append((message.actor_name, message.queue_name, options))",
        'keys.append((message.actor_name, message.queue_name, b""))',
        MANY + "test_messages_whose_options_are_equal_to_python_only",
    ),
    alike(
        "many-messages-options-are-not-checked",
        "An option that JSON does not have is changed on its way.",
        '                codec.check(message.options, "options")\n',
        "                pass\n",
        MANY + "test_an_option_that_json_does_not_have_is_refused_in_each_message",
    ),
    alike(
        "many-messages-arguments-are-not-checked",
        "An argument that JSON does not have is changed on its way.",
        "    codec.check_arrays(arrays)\n",
        "    pass\n",
        MANY + "test_of_many_messages_with_a_bad_one_none_is_pushed",
    ),
    bulk(
        "many-hooks-are-left-out",
        "A middleware that records each message misses those sent together.",
        " or self.broker.enqueue_hooks.found(self.broker.middleware)",
        "",
        MANY + "test_hooks_are_called_for_each_message",
    ),
    bulk(
        "many-stamps-are-left-out",
        "Jobs sent together are missing in traces.",
        "bool(self.broker.sender.stamps) or ",
        "",
        MANY + "test_stamps_are_called_for_each_job",
    ),
    bulk(
        "many-error-of-redis-is-swallowed",
        "send_many() returns though a part was not pushed.",
        "                raise _error(pushed.error, sent.message_ids, before)\n",
        "                break\n",
        MANY + "test_after_an_error_no_more_is_sent",
    ),
    sent(
        "ids-of-all-blocks-alike",
        "Each thousandth job has the same id, and a group counts one of them.",
        'self._seed + number.to_bytes(8, "big")',
        "self._seed",
        MANY + "test_the_messages_are_those_that_were_sent",
    ),
    sent(
        "ids-of-all-calls-alike",
        "Jobs of different calls have the same ids.",
        "        self._seed = os.urandom(32)\n",
        "        self._seed = bytes(32)\n",
        MANY + "test_children_send_what_they_send",
    ),
    codec(
        "many-arguments-are-not-checked",
        "Values that JSON does not have arrive as others.",
        "        for array in arrays:\n            check(array)\n",
        "        pass\n",
        MANY + "test_of_a_list_with_a_bad_item_nothing_is_sent",
    ),
    hooks(
        "hooks-set-later-are-left-out",
        "A middleware that is added while the program runs misses messages.",
        "        if now > self._until or self._searched != middleware:\n",
        "        if not self._until:\n",
        MANY + "test_a_hook_that_is_set_later_is_called",
    ),
    queues(
        "push-error-is-swallowed",
        "send() returns though nothing was pushed.",
        "        if isinstance(reply, Exception):\n            raise reply\n        if _is_made",
        "        if not isinstance(reply, int) or _is_made",
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
