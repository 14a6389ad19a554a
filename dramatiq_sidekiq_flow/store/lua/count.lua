-- Advances a run past a step that finished on another broker: writes its output to
-- the memory, counts down barriers, creates the continuation's barriers, and pushes
-- its jobs for Sidekiq's queues, which are parked if the run is paused.  The caller then
-- enqueues its jobs for the other broker.  Atomic; sent again for the same unit it
-- returns the same.
--
-- KEYS: memory hash ('' = none), record (see _record), the callbacks' (see _walk), the
--       plan's (see _plan)
-- ARGV: unit (the message id), ttl of barriers in seconds,
--       seconds that the memory lives from now on, the step's text (see _record), the
--       fields' (see _fields), the callbacks',
--       index of the callback that the plan is for (1 = the top), 0 = no plan,
--       '1' if the plan has jobs for the other broker, else '0',
--       the plan's
-- Returns: {'DONE'} nothing is left to do | {'FIRE'} enqueue the rest of the
--       plan, then call `fired` | {'PLAN', index} nothing written: that
--       callback fires, send its plan | {'EXPIRED', BARRIER} nothing written
--       | {'TYPE', key} nothing written: another type, or a barrier that is not a
--       whole number | {'STAGE', key} nothing written: stage the plan again
--       | {'CANCELLED'} done, and the run is cancelled: nothing of it starts
--
-- BARRIER:f holds the unit that released the barrier, until fired.lua marks its
-- continuation as enqueued; then it is empty.  Only that unit gets FIRE again.

-- @include _walk
-- @include _fields
-- @include _plan
-- @include _memory
-- @include _prolong
-- @include _record

local memory, record = KEYS[1], KEYS[2]
local unit, ttl, memory_ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

-- Reads.
local fields, a = read_fields(5)
local state = record_state(record)
-- The barriers of a cancelled run may be disarmed, so none is read.
local cancelled, walked, wrong = state == 'cancelled', nil, nil
local parked = state == 'paused' and record or nil
if cancelled then walked = no_walk() else walked, wrong = walk(unit, 3, a, true, record) end
if not walked then return wrong end
a = a + 1
local fires = walked.fire > 0
if fires and tonumber(ARGV[a]) ~= walked.fire then return {'PLAN', walked.fire} end
if walked.again then return {'FIRE'} end
local elsewhere = fires and ARGV[a + 1] == '1'
local writes_fields = walked.new and fields.n > 0
if writes_fields and not type_is(memory, 'hash') then return {'TYPE', memory} end
local plan
if fires then
  plan, wrong = read_plan(3 + walked.n, a + 2, nil, parked)
  if not plan then return wrong end
end

-- Writes.  The output first, for the next step.  The counts before the plan: Redis
-- refuses each of them when it is out of memory, so the first one fails with nothing
-- written, while a script that has begun to write continues.
if parked and not is_over(walked, fires) then
  ttl, memory_ttl = math.max(ttl, PARKED_TTL), math.max(memory_ttl, PARKED_TTL)
end
if writes_fields then write_fields(memory, fields) end
if memory ~= '' then prolong(memory, memory_ttl) end
-- Until the other broker has the rest of the plan, a released barrier lives as long
-- as one that waits.
local kept = elsewhere and ttl or RELEASED_TTL
for _, count in ipairs(walked.counts) do
  count_down(count, kept, ttl)
  if elsewhere then redis.call('SETEX', count.barrier .. ':f', kept, count.unit) end
end
if plan then write_plan(plan) end
prolong_waiting(walked, ttl)
state = state or known_state(record, ARGV[4], ttl)
if state then
  state = record_steps(record, state, {ARGV[4]}, ttl)
  if not cancelled and walked.new and is_over(walked, fires) then finish_record(record, state, ARGV[4]) end
end
if elsewhere then return {'FIRE'} end
if cancelled then return {'CANCELLED'} end
return {'DONE'}
