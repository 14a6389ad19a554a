"""An explicit-state model of the protocol: each state that workers, faults and the network can bring about.

What the model's transitions stand for (``store/lua`` is in the package):

| transition | where it is |
|---|---|
| ``ours.Protocol.start`` | ``start.lua``, ``_plan.lua`` |
| ``ours.Protocol.fetch`` | ``fetch.lua``; ``broker/consumer.py`` repeats it with the same receipt base |
| ``ours.Protocol.advance`` | ``advance.lua``, ``_plan.lua``; ``workflow/advance.py`` answers PLAN |
| ``ours.Protocol.with_offer`` | ``broker/next_job.py``, ``workflow/transport.py`` |
| ``ours.Protocol.advance_group`` | ``advance_group.lua``; ``broker/handed_over.py`` settles the step that is left |
| ``ours.Protocol.fail`` | ``fail.lua``; ``broker/consumer.py`` sends it for BarrierExpired, too |
| ``ours.Protocol.recover`` | ``recover.lua``, and ``requeue.lua`` as ``process/reconciliation.py`` sends it |
| ``ours.Protocol.promote`` | ``promote.lua`` |
| ``gem.Gem``: ``decr``, ``incrby`` | ``AtMostOnceBarrier#wait``, two commands |
| ``gem.Gem``: ``plan`` | ``Workflow#run`` of what remains: SETEX, SETEX, ..., LPUSH, ..., a command each |
| ``gem.Gem.finish`` | the gem's server middleware returns |
| ``world.World.outside`` | duplicates, expiry, a person |

A worker has one job at a time.  It may have handed over the acknowledgements of steps
that ended before, and sends those of one group together when it has no job: in a
process, another thread does so.  A command may be answered, be executed without
its reply, or be executed late, after any number of other steps, when its sender
has repeated it or has died.  The faults of a run are limited in number, not in
kind or place.

Not in the model: memory, delays (a job may be fetched in any order anyway),
poison pills and their trials, staged fan-outs, other brokers, custom barriers.

Properties, for each state that can be reached:

* *early*: nothing is pushed before each step that comes before it has ended;
* *doubled*: nothing is pushed twice;
* *place*: each job is in one place (a queue, in flight, ``retry``, ``dead``), as often as it was pushed;
* *lost*: where nothing can move, each step is done, or one that it waits for is in ``dead``;
* *stuck*: from each state, an end can be reached.

``python -m tests.model`` prints what was explored, and how the plain gem goes wrong.
"""
