"""Python: the acknowledgement, failures, recovery, and what a process holds."""

from __future__ import annotations

from ..mutant import in_file
from .tests import (
    BROKER,
    CONNECTION,
    FAILURES,
    FANOUTS,
    GROUP,
    NEXT,
    OWED,
    PLUGGABLE,
    RECOVERY,
    STANDING,
    STORAGE,
    TTL,
    WORKFLOW,
)

consumer = in_file("broker/consumer.py")
reader = in_file("broker/job_reader.py")
failures = in_file("broker/failure_writer.py")
commit = in_file("broker/ack_batch.py")
handed_over = in_file("broker/handed_over.py")
fetcher = in_file("broker/fetcher.py")
next_job = in_file("broker/next_job.py")
internals = in_file("broker/dramatiq_internals.py")
work_queue = in_file("broker/queue_order.py")
standing = in_file("broker/standing.py")
standing_fetch = in_file("store/standing_fetch.py")
owed = in_file("broker/owed_acks.py")
completion = in_file("workflow/completion.py")
transport = in_file("workflow/transport.py")
retries = in_file("broker/retries.py")
recovery = in_file("process/recovery.py")
window = in_file("broker/in_flight.py")
begin = in_file("broker/begin.py")
in_flight = in_file("process/reconciliation.py")
lifecycle = in_file("broker/worker_middleware.py")
process = in_file("broker/worker_process.py")
identity = in_file("process/identity.py")
heartbeat = in_file("process/heartbeat.py")
advance = in_file("workflow/advance.py")
outcomes = in_file("store/outcomes.py")
needs = in_file("store/needs.py")
lifetimes = in_file("wire/lifetimes.py")
plan = in_file("workflow/plan.py")
plan_ids = in_file("workflow/plan_ids.py")
ttl = in_file("workflow/ttl.py")
outputs = in_file("workflow/outputs.py")
callbacks = in_file("wire/callbacks.py")
tree_schema = in_file("wire/tree_schema.py")
foreign = in_file("foreign/foreign_steps.py")
foreign_transport = in_file("foreign/foreign_transport.py")

MIDDLEWARE = "integration/test_dramatiq_middleware.py::"
LATE = RECOVERY + "test_an_advance_that_found_no_server_is_tried_again"
COMMIT = "integration/test_commit.py::"
STACK = "unit/test_group_stack.py::"
PLAN = "unit/test_plan.py::"
TIME_LIMITS = "unit/test_time_limits.py::"

WORKERS = [
    consumer(
        "ack-failed-is-done",
        "Without the Retries middleware a failed step counts as done, and its run goes on.",
        "        if message.exception is not None:\n",
        "        if False:\n",
        BROKER + "test_without_retries_a_failure_is_still_a_failure",
    ),
    consumer(
        "ack-retried-is-done",
        "A step that is to be retried counts as done: what follows starts early.",
        "        self._leave(message, self._failure_of(message))\n",
        "        self._leave(message, None)\n",
        WORKFLOW + "test_a_dead_step_is_retried_and_the_run_goes_on",
        BROKER + "test_a_failure_goes_to_retry_as_sidekiq_writes_it",
    ),
    consumer(
        "ack-skipped-is-done",
        "A step that a middleware skipped counts as done.",
        "        if message.skipped and message.payload.stack:\n",
        "        if False:\n",
        MIDDLEWARE + "test_a_skipped_step_is_dead_by_name_and_goes_on_when_it_is_retried",
    ),
    consumer(
        "ack-of-a-recovered-job",
        "A barrier of the application's own counts a step that runs elsewhere: what follows starts early.",
        "        if message.gone:\n            self.in_flight.discard(message.receipt)\n            return\n",
        "",
        PLUGGABLE + "test_a_job_that_another_worker_has_is_not_counted",
    ),
    consumer(
        "ack-does-not-advance",
        "A step is taken out of flight without what follows it.",
        "        step = completion.advance(message, may_wait=may_wait)\n",
        "        step = commit.ack(message.member, message.receipt)\n",
        WORKFLOW + "test_a_job_acknowledged_twice_advances_once",
    ),
    consumer(
        "ack-gives-up",
        "Redis is away while a job ends: it stays in flight until the process ends, and runs again.",
        "                time.sleep(pause)\n",
        "                return\n",
        LATE,
    ),
    consumer(
        "ack-lost-is-a-failure",
        "Redis is away during an advance: the step is buried though it is done.",
        "        except (ConnectionClosed, *LOST):\n            raise\n        except FlowError as e:",
        "        except FlowError as e:",
        LATE,
    ),
    consumer(
        "ack-refused-is-done",
        "A step whose run cannot go on leaves no trace.",
        "            failure = killed(message.payload, self.queue_name, e)\n            message.stuff_exception(e)\n"
        "            return failure\n",
        "            message.stuff_exception(e)\n            return None\n",
        WORKFLOW + "test_with_a_missing_barrier_the_job_is_dead_by_name[]",
    ),
    consumer(
        "ack-mark-not-confirmed",
        "A job whose mark got no reply leaves flight under the wrong receipt: it stays, and runs again.",
        "            confirm(self.process.in_flight, self.process.connection, message)\n",
        "            pass\n",
        RECOVERY + "test_the_mark_of_a_beginning_may_be_lost",
    ),
    reader(
        "step-without-middleware-runs",
        "A step runs in a process that cannot go on after it: its run stops.",
        "            if payload.stack and completion is None:\n",
        "            if False:\n",
        WORKFLOW + "test_a_step_without_the_middleware_is_dead_by_name",
    ),
    reader(
        "read-lost-is-a-failure",
        "A storage that cannot be reached for a moment costs the job a retry.",
        "        except LOST:\n            raise\n        except FlowError as e:\n            self._bury(",
        "        except FlowError as e:\n            self._bury(",
        STORAGE + "test_a_lost_connection_to_the_storage_leaves_the_job_where_it_was",
    ),
    fetcher(
        "read-forgets-what-it-took",
        "Redis is away while a bad job is buried: nobody holds it until the process ends.",
        "                held.put_back(*fetched)\n",
        "                pass\n",
        RECOVERY + "test_a_bad_job_that_found_no_server_is_buried_later",
    ),
    needs(
        "fail-without-barriers",
        "What a failed step's run needs expires before the retry.",
        "    return Needs((*barriers, *chains, *memories, *records), max(ttl, memory.ttl))\n",
        "    return Needs((*chains, *memories, *records), max(ttl, memory.ttl))\n",
        TTL + "test_a_failed_step_keeps_all_for_the_delays_that_follow_it",
    ),
    failures(
        "fail-dead-for-three-weeks",
        "A dead step's run cannot go on when it is retried after three weeks.",
        '        waits = DEAD_TIMEOUT if failure.action == "dead" else failure.at - now\n',
        "        waits = failure.at - now\n",
        TTL + "test_a_step_that_met_no_middleware_keeps_its_barriers",
        STORAGE + "test_it_lives_as_long_as_a_dead_job_can_be_retried",
    ),
    needs(
        "fail-without-memory",
        "The memory of a failed step's run expires before the retry.",
        "    return Needs((*barriers, *chains, *memories, *records), max(ttl, memory.ttl))\n",
        "    return Needs((*barriers, *chains, *records), max(ttl, memory.ttl))\n",
        TTL + "test_a_failed_step_keeps_the_memory_until_it_is_tried_again",
    ),
    needs(
        "fail-without-chains",
        "The stored chain of a dead step expires before the retry.",
        "    return Needs((*barriers, *chains, *memories, *records), max(ttl, memory.ttl))\n",
        "    return Needs((*barriers, *memories, *records), max(ttl, memory.ttl))\n",
        STORAGE + "test_it_lives_as_long_as_a_dead_job_can_be_retried",
    ),
    handed_over(
        "commit-forgets-on-an-error",
        "Acknowledgements that found no server are forgotten: the jobs stay in flight.",
        "        self.queued.extendleft(reversed(self._sending))\n",
        "",
        RECOVERY + "test_acknowledgements_wait_until_the_server_is_back",
    ),
    handed_over(
        "commit-forgets-what-is-refused",
        "Acknowledgements that the server refuses for now are forgotten.",
        "                self.queued.extend(batch.acknowledgements)\n",
        "                pass\n",
        COMMIT + "test_what_the_server_refuses_for_now_is_sent_again",
    ),
    handed_over(
        "group-forgets-the-last-step",
        "The last step of a group is left by the script, and by the worker: the run never goes on.",
        "            return [acknowledgements[index] for index in batch.operation.read(reply)]\n",
        "            return [acknowledgements[index] for index in batch.operation.read(reply)][:0]\n",
        GROUP + "test_a_group_is_counted_to_its_end[33]",
    ),
    outputs(
        "memory-of-another-run",
        "A step's output is written to the memory of the run before.",
        "        if last_run != run_id or last_dialect is not dialect:\n",
        "        if not last_run or last_dialect is not dialect:\n",
        STACK + "test_each_run_has_a_memory_of_its_own",
    ),
    outputs(
        "memory-of-another-dialect",
        "A step's output is written where the gem of its run does not look.",
        " or last_dialect is not dialect:\n",
        ":\n",
        STACK + "test_each_run_has_a_memory_of_its_own",
    ),
    tree_schema(
        "first-trees-of-two-threads",
        "A worker whose threads read their first steps at the same time crashes.",
        "    _error(None, _schema)\n",
        "    pass\n",
        "unit/test_first_trees.py::test_threads_read_their_first_trees_together",
    ),
    callbacks(
        "stack-of-another-thread",
        "A step is given the callback stack that another thread reads at this moment.",
        "        return last_stack\n",
        "        return _last_of_group[1]\n",
        STACK + "test_another_thread_may_read_another_group_at_any_time",
    ),
    callbacks(
        "stack-of-another-group",
        "A step of a group is given the callback stack of the group before.",
        "    if written and written == last_written:\n",
        "    if written and _last_of_group[0]:\n",
        STACK + "test_values_that_python_takes_for_equal_differ",
    ),
    handed_over(
        "group-refused-is-done",
        "Steps whose barrier is gone stay in flight until the process ends, without an error.",
        "            if acknowledgements[0].step is not None:\n",
        "            if False:\n",
        GROUP + "test_members_whose_barrier_is_gone_are_dead_by_name[]",
    ),
    handed_over(
        "handed-over-is-unknown",
        "The heartbeat takes a finished job for lost, and it runs again.",
        "        found = [*list(self._sending), *list(self.queued), *list(self.left)]\n",
        "        found = [*list(self._sending), *list(self.left)]\n",
        GROUP + "test_what_waits_is_not_taken_for_lost",
    ),
    handed_over(
        "left-is-unknown",
        "The heartbeat takes the last step of a group for lost, and it runs again.",
        "        found = [*list(self._sending), *list(self.queued), *list(self.left)]\n",
        "        found = [*list(self._sending), *list(self.queued)]\n",
        GROUP + "test_a_member_that_is_left_waits_for_redis",
    ),
    commit(
        "shutdown-forgets-the-last-step",
        "The last step of a group is not advanced at shutdown: it runs again.",
        "            raise ConnectionClosed(e) from None\n        self._settle_left()\n",
        "            raise ConnectionClosed(e) from None\n",
        GROUP + "test_a_shutdown_sends_what_was_handed_over",
    ),
    commit(
        "left-is-forgotten-on-an-error",
        "Redis is away when the last step of a group is to be advanced: the run never goes on.",
        "                    settle()\n                    left.popleft()\n",
        "                    left.popleft()\n                    settle()\n",
        GROUP + "test_a_member_that_is_left_waits_for_redis",
    ),
    consumer(
        "left-is-handed-over-again",
        "The last step of a group is handed over again and again: the run never goes on.",
        "        message.alone = True\n",
        "",
        GROUP + "test_a_group_is_counted_to_its_end[1]",
    ),
    process(
        "shutdown-forgets-acknowledgements",
        "What was handed over is forgotten at shutdown: finished jobs run again.",
        "        self._attempt(self._flush)\n",
        "",
        GROUP + "test_a_shutdown_sends_what_was_handed_over",
    ),
    # -- an acknowledgement that goes with a mark
    owed(
        "owed-is-not-sent",
        "The acknowledgement that a thread owes is lost: a finished job runs again.",
        "        acknowledged, reply = self.connection.send((queues.done(member, (receipt,)), command))\n",
        "        acknowledged, reply = None, self.connection.call(*command)\n",
        OWED + "test_it_goes_with_the_next_command",
    ),
    owed(
        "owed-is-forgotten-too-early",
        "An acknowledgement whose round trip is lost is forgotten.",
        "        member, receipt = owed\n",
        "        member, receipt = self._owed.pop(thread)\n",
        OWED + "test_it_stays_while_the_server_cannot_be_reached",
    ),
    owed(
        "owed-is-refused",
        "An acknowledgement that Redis refuses is forgotten.",
        "        if isinstance(acknowledged, Exception):\n            self.send()\n        else:\n            self._owed",
        "        if True:\n            self._owed",
        OWED + "test_one_that_is_refused_is_sent_as_usual",
    ),
    owed(
        "owed-next-is-forgotten",
        "A heartbeat that sends the acknowledgement of a job forgets that of the next one, which runs again.",
        "                if self._owed.get(thread) is owed:\n",
        "                if True:\n",
        OWED + "test_a_heartbeat_forgets_only_what_it_has_sent",
    ),
    owed(
        "owed-twice",
        "A thread that owes one forgets it for the next one.",
        "        self.send()\n        with self._lock:\n            self._owed[",
        "        with self._lock:\n            self._owed[",
        OWED + "test_without_a_command_it_is_sent_as_usual",
    ),
    process(
        "owed-is-unknown",
        "A finished job whose acknowledgement is owed is put back, and runs again.",
        "*self.owed.waiting(), ",
        "",
        OWED + "test_a_mark_that_gets_no_reply",
    ),
    process(
        "owed-by-threads-that-ended",
        "What threads owe that are paused, or have ended, is sent at the end only.",
        "        self.owed.send_all()\n",
        "",
        OWED + "test_a_mark_that_gets_no_reply",
    ),
    lifecycle(
        "owed-by-idle-threads",
        "A thread that has nothing more to do owes its last acknowledgement until the next beat.",
        "lambda: self.process.owed.send()",
        "lambda: None",
        OWED + "test_a_thread_without_a_next_job_sends_what_it_owes",
    ),
    lifecycle(
        "owed-before-a-job-that-has-begun",
        "A thread owes an acknowledgement for as long as its next job takes.",
        "            process.owed.send()\n",
        "            pass\n",
        OWED + "test_a_next_job_that_has_begun_already",
    ),
    # -- a fetch that stands at the server
    fetcher(
        "standing-while-quiet",
        "A quiet process takes another job.",
        "                self._end_standing()\n                self.give_back()",
        "                self.give_back()",
        STANDING + "test_a_quiet_process_takes_no_job",
    ),
    fetcher(
        "standing-while-paused",
        "A paused worker takes another job.",
        "            if consumer_stops():\n                self._end_standing()\n",
        "",
        STANDING + "test_a_paused_worker_takes_no_job",
    ),
    fetcher(
        "standing-jobs-are-dropped",
        "Jobs that a fetch brings while it is ended stay in flight.",
        "            self.in_flight.add(answer.jobs)\n",
        "            pass\n",
        STANDING + "test_a_job_that_comes_while_its_fetch_is_ended_goes_back",
    ),
    standing(
        "standing-is-not-reserved",
        "A thread is promised to fetches of two queues: a job that waits counts as begun.",
        "        self._fetch = None\n        self.held.reserved = 0\n",
        "        self._fetch = None\n",
        STANDING + "test_the_threads_are_free_again",
    ),
    standing(
        "standing-is-expected-for-ever",
        "A job that a lost fetch has put in flight is never put back.",
        "            self.held.add([])\n",
        "            pass\n",
        STANDING + "test_a_lost_server_leaves_nothing_expected",
    ),
    process(
        "standing-in-strict-order",
        "In strict order a queue is served while one before it has jobs.",
        "        return not ordered and ",
        "        return ",
        STANDING + "test_not_in_strict_order[order0-0]",
    ),
    standing_fetch(
        "standing-skips-errors",
        "A worker that may not wait any more fetches without a pause.",
        '        self._waits = isinstance(reply, list) and reply[0] not in (b"", b"TYPE") and not self.refused\n',
        "        self._waits = True\n",
        STANDING + "test_a_command_that_is_refused_later",
    ),
    # -- the next job of a chain
    consumer(
        "next-job-is-not-run",
        "A job that was kept is known to no thread: it waits until the next beats put it back.",
        "                self._run_next(message.offer, message.next_job, message.next_stack)\n",
        "                pass\n",
        NEXT + "test_one_thread_runs_a_chain",
    ),
    consumer(
        "offer-does-not-end",
        "A job that was kept and not run, after an interrupt, is never put back.",
        "                self.in_flight.end_offer(message.offer)\n",
        "                pass\n",
        NEXT + "test_an_interrupt_loses_no_job",
    ),
    window(
        "offer-is-unknown",
        "The heartbeat takes a job for lost whose reply is on its way: it runs twice.",
        "        offered = list(self.offered)\n",
        "        offered: list[str] = []\n",
        NEXT + "test_an_offer_that_is_open_is_not_taken_for_lost",
    ),
    next_job(
        "offer-is-new-each-time",
        "The reply is lost, and the advance is repeated: the job that was kept waits until the next beats.",
        "    if message.offer or not _is_free(process, message):\n",
        "    if not _is_free(process, message):\n",
        NEXT + "test_a_lost_reply_runs_the_job_that_was_kept",
    ),
    next_job(
        "offer-for-a-step-handed-over",
        "The step behind a group is kept, and no thread runs it until the next beats.",
        "    if message.alone:\n",
        "    if False:\n",
        GROUP + "test_the_step_behind_a_group_is_run",
    ),
    next_job(
        "offer-while-quiet",
        "A worker that is to stop goes on with the chain.",
        " or held.fetched or process.quiet:",
        " or held.fetched:",
        NEXT + "test_a_quiet_process_keeps_nothing[True]",
    ),
    internals(
        "offer-while-paused",
        "A job that waits in a paused worker is not given back at shutdown.",
        "thread.paused or not thread.running:\n        return False\n    work =",
        "not thread.running:\n        return False\n    work =",
        NEXT + "test_a_paused_worker_keeps_nothing",
    ),
    internals(
        "new-deadline-unlocked",
        "A thread's first time limit is set while the deadlines are iterated over, which ends with an error.",
        "if deadlines.get(thread, 0.0) is None:",
        "if not deadlines.get(thread):",
        TIME_LIMITS + "test_only_the_first_limit_of_a_thread_takes_the_lock",
    ),
    internals(
        "passed-deadline-unlocked",
        "A time limit that has passed is cleared after the thread has set the next one, which is lost.",
        "if deadline and time.monotonic() + NEAR < deadline:",
        "if deadline:",
        TIME_LIMITS + "test_a_limit_that_may_be_cleared_is_removed_with_the_lock",
    ),
    internals(
        "offer-overtakes",
        "The steps of a chain overtake the jobs that wait in the process.",
        " and work.peek() is None and",
        " and",
        NEXT + "test_jobs_of_another_queue_have_their_turn",
    ),
    transport(
        "kept-payload-of-another-plan",
        "The advance is repeated with a plan of its own: the job runs under an id that is not in flight.",
        "            message.next_job = outcome.payload or following\n",
        "            message.next_job = following\n",
        NEXT + "test_a_lost_reply_runs_the_job_that_was_kept",
    ),
    transport(
        "kept-stack-of-another-plan",
        "The advance is repeated with a plan of its own: the job that was kept counts at a barrier of the second plan.",
        "None if plan is None or outcome.payload else plan.carried",
        "None if plan is None else plan.carried",
        NEXT + "test_a_lost_reply_runs_the_job_that_was_kept",
    ),
    plan(
        "kept-stack-despite-a-storage",
        "The stack of a kept step is not the one that the payload's storage holds.",
        "build.carried if source.prepare is None and source.store is None else None",
        "build.carried",
        PLAN + "test_a_payload_that_others_write_is_read[store]",
    ),
    commit(
        "commit-error-is-a-reply",
        "A refusal of the server is taken for an answer: the step counts as settled.",
        "    if isinstance(reply, LOST):\n        entry.error = ConnectionClosed(reply)\n    elif",
        "    if isinstance(reply, LOST):\n        pass\n    elif",
        COMMIT + "test_a_refusal_is_not_an_answer",
    ),
    commit(
        "commit-leaves-what-came-meanwhile",
        "An acknowledgement that came during a round trip is sent with the next job, if one comes.",
        "        if self._handed_over.queued or self._handed_over.left:\n            self._go_on()\n",
        "",
        COMMIT + "test_one_that_comes_during_a_round_trip_is_sent_after_it",
    ),
    retries(
        "discard-a-step",
        "A step with retry: false disappears, and its run waits for ever.",
        '    if not job.stack and (job.run_id is None or payload_fields.is_callback(job.fields)):\n        return Failure("discard", b"")\n',
        '    return Failure("discard", b"")\n',
        TTL + "test_a_step_that_a_plain_job_would_not_survive_is_dead_and_keeps_all[{'retry': False}]",
    ),
    retries(
        "shutdown-is-a-failure",
        "A deploy costs each interrupted job a retry.",
        '    if stopping and isinstance(exception, Shutdown):\n        return Failure("requeue", b"")\n',
        "",
        MIDDLEWARE + "test_a_shutdown_puts_a_job_back_uncounted",
    ),
    recovery(
        "recovery-one-bad-record",
        "One bad record keeps all other dead workers from being recovered.",
        "                except LOST:\n                    raise\n                except Exception as e:\n"
        "                    self._again[raw] = now + AGAIN\n",
        "                except LOST:\n                    raise\n                except ZeroDivisionError as e:\n"
        "                    self._again[raw] = now + AGAIN\n",
        RECOVERY + "test_one_bad_record_does_not_stop_the_other_recoveries[0.0]",
    ),
    recovery(
        "recovery-pills-barriers-expire",
        "The run of a poison pill cannot go on when that is retried.",
        "            if job.payload is not None:\n                self.upkeep.handle(job.dead_payload)\n",
        "            pass\n",
        TTL + "test_a_poison_pill_may_be_retried_for_as_long_as_it_is_dead",
    ),
    window(
        "fetch-with-a-new-base",
        "A fetch whose reply was lost is repeated under another base: its jobs lie in flight unknown.",
        '        if self._base is None:\n            self._base = format(next(_fetches), "x")\n        return self._base\n',
        '        self._base = format(next(_fetches), "x")\n        return self._base\n',
        RECOVERY + "test_a_fetch_whose_reply_was_lost_twice",
    ),
    window(
        "window-expects-nothing",
        "What a fetch has just moved is taken for unknown, and put back while it runs.",
        "((base, index) not in known and base not in expected)",
        "((base, index) not in known)",
        RECOVERY + "test_a_fetch_whose_reply_was_lost_twice",
        "unit/test_in_flight.py::test_what_a_fetch_has_just_moved_is_not_unknown",
    ),
    window(
        "window-leaves-suspects",
        "A job that became a suspect while its worker stood still waits until that worker ends.",
        "if state == SUSPECT or ((base, index)",
        "if ((base, index)",
        RECOVERY + "test_what_no_thread_has_goes_back",
    ),
    in_flight(
        "unknown-once",
        "What one look finds unknown is put back at once, though it may just be on its way.",
        "            lost = unknown & before.get(member, set())\n",
        "            lost = unknown\n",
        RECOVERY + "test_what_no_thread_has_goes_back",
    ),
    process(
        "unknown-waits-for-its-ack",
        "A finished job whose acknowledgement waits is put back, and runs again.",
        "        return [*self.commit.waiting(), *self.owed.waiting(), *list(self.set_aside)]\n",
        "        return []\n",
        RECOVERY + "test_what_waits_to_be_acknowledged_is_known",
    ),
    begin(
        "begin-runs-what-is-gone",
        "A job that was recovered before it began runs here, too.",
        "    if receipt is None:\n        message.gone = True\n",
        "    if receipt is None:\n        return\n    if not receipt:\n        message.gone = True\n",
        RECOVERY + "test_a_job_that_another_worker_recovered_before_it_began_is_not_run",
    ),
    lifecycle(
        "shutdown-keeps-what-waits",
        "Jobs that wait in a stopping worker are left to recovery.",
        "        give_back(worker)\n\n    def after_worker_shutdown",
        "\n    def after_worker_shutdown",
        RECOVERY + "test_a_shutdown_hands_back_at_its_start_what_has_not_begun",
    ),
    process(
        "shutdown-hands-suspects-back",
        "A suspect goes back into the queue beside its neighbours.",
        "        receipts = [receipt for receipt in receipts if not receipt.endswith(keys.SUSPECT.encode())]\n",
        "",
        RECOVERY + "test_a_shutdown_leaves_suspects_and_hands_back_all_else",
    ),
    process(
        "shutdown-hands-nothing-back",
        "What still runs at a hard shutdown waits for another worker to notice.",
        "            self._attempt(partial(self._hand_back, held))\n",
        "            pass\n",
        RECOVERY + "test_a_hard_shutdown_puts_back_what_still_runs",
    ),
    process(
        "fork-shares-the-broker",
        "A forked child hands back what its parent holds.",
        "        if self._pid == os.getpid():\n            return\n        self._pid = os.getpid()\n        self.in_flight",
        "        return\n        self.in_flight",
        "integration/test_connection.py::test_a_child_that_closes_its_copy_leaves_the_parents_job_alone",
    ),
    heartbeat(
        "beat-recovers-nobody",
        "Jobs of workers that were killed are never run again.",
        "        self.recovery.recover_all(found.dead)\n",
        "",
        RECOVERY + "test_a_dead_workers_jobs_go_back",
    ),
    heartbeat(
        "beat-pours-nothing",
        "The fan-out of a process that died after its commit stays where it is.",
        "            self._pour()\n",
        "            pass\n",
        FANOUTS + "test_a_dead_processes_fan_out_is_poured_by_any_other[start]",
    ),
    identity(
        "fork-shares-the-identity",
        "A forked child beats under its parent's name.",
        "        if self._pid != os.getpid():\n",
        "        if not self._pid:\n",
        "integration/test_connection.py::test_a_child_works_with_a_broker_that_the_parent_works_with",
        CONNECTION + "test_a_child_has_a_name_of_its_own",
    ),
    advance(
        "plan-not-answered",
        "The last member of a group ends without its continuation.",
        "                due, plan = index, None\n",
        "                return\n",
        WORKFLOW + "test_delivered_twice_a_job_of_a_group_counts_once",
    ),
    advance(
        "stage-not-answered",
        "A fan-out that vanished before its commit is lost.",
        "                # Its staged list is gone: the transport stages the same plan again.\n                continue\n",
        "                return\n",
        WORKFLOW + "test_a_continuation_that_vanishes_is_staged_again",
    ),
    outcomes(
        "expired-is-done",
        "A step whose barrier is gone is done, and its run stops without an error.",
        "        raise barrier_expired(reply[1].decode())\n",
        "        return DONE\n",
        WORKFLOW + "test_with_a_missing_barrier_the_job_is_dead_by_name[]",
    ),
    advance(
        "chain-of-the-run-expires",
        "A stored chain expires while its run moves.",
        "    engine.stacks.extend(job.payload, job.ttl)\n",
        "",
        STORAGE + "test_it_lives_on_while_the_run_moves",
    ),
    lifetimes(
        "barriers-without-delays",
        "Barriers expire before the delays ahead of them have passed.",
        "    return int(min(RETRY_HORIZON + ahead / 1000 + 1, MAX_TTL))\n",
        "    return int(min(RETRY_HORIZON + 1, MAX_TTL))\n",
        PLAN + "test_barriers_outlive_the_delays_ahead",
    ),
    callbacks(
        "references-without-delays",
        "Barriers expire before the delays of a stored chain have passed.",
        ' or "delay" in tree):',
        "):",
        PLAN + "test_barriers_outlive_the_delay_of_a_reference[60000]",
    ),
    plan_ids(
        "derived-ids-differ",
        "What follows a barrier of another kind gets new ids each time: a repetition is another job.",
        '        return hashlib.sha256(f"{self.name}:job:{next(self._jids)}".encode()).hexdigest()[:24]\n',
        "        return uuid.uuid4().hex[:24]\n",
        "unit/test_plan.py::test_derived_ids_are_the_same_for_the_same_name_only",
    ),
    ttl(
        "dead-jobs-barriers-expire",
        "The run of a job that was killed by hand cannot go on when that is retried.",
        "        _extend(engine, payload, engine.needs(payload, waits=DEAD_TIMEOUT))\n",
        "        _extend(engine, payload, engine.needs(payload))\n",
        TTL + "test_a_job_that_was_killed_by_hand_may_be_retried_for_as_long_as_it_is_dead",
    ),
    foreign(
        "foreign-failed-is-done",
        "A step that fails for good on another broker counts as done.",
        "            self._bury(message, step.exception)\n        elif step.skipped:",
        "            self._advance_or_bury(message, step, payload)\n        elif step.skipped:",
        FAILURES + "test_without_retries_a_failure_is_dead_and_not_done[redis]",
    ),
    foreign(
        "foreign-skipped-is-done",
        "A step that a middleware skipped on another broker counts as done.",
        "        elif step.skipped:\n",
        "        elif False:\n",
        FAILURES + "test_a_step_that_is_skipped_does_not_advance[redis]",
    ),
    foreign_transport(
        "foreign-enqueues-nothing",
        "What follows a step on another broker is counted, and not enqueued.",
        "        self._enqueue(steps)\n        self.broker.process.commit.run(foreign_runs.fired(job.walk[:due]))\n",
        "        self.broker.process.commit.run(foreign_runs.fired(job.walk[:due]))\n",
        "brokers/test_scenarios.py::test_a_chain[redis]",
    ),
    foreign_transport(
        "foreign-says-so-first",
        "Killed between saying that it enqueued and enqueueing, the continuation is lost.",
        "        self._enqueue(steps)\n        self.broker.process.commit.run(foreign_runs.fired(job.walk[:due]))\n",
        "        self.broker.process.commit.run(foreign_runs.fired(job.walk[:due]))\n        self._enqueue(steps)\n",
        FAILURES + "test_a_broker_that_is_away_gets_the_continuation_later[error0]",
    ),
]
