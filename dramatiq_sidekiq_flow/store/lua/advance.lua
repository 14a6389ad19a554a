-- Advances a run past a finished step: takes its job out of flight, writes its
-- output to the memory, counts down barriers, and writes the plan of the
-- continuation.  Of a paused run, the plan is parked.  Atomic, and safe to send twice.
--
-- KEYS: in-flight hash, memory hash ('' = none), record (see _record), the callbacks'
--       (see _walk), the plan's (see _plan)
-- ARGV: receipt, unit (the jid), ttl of barriers in seconds,
--       seconds that the memory is kept after its run,
--       receipt under which the worker keeps the next job ('' = push it),
--       the step's text (see _record), the fields' (see _fields), the callbacks',
--       index of the callback that the plan is for (1 = the top), 0 = no plan,
--       the plan's
-- Returns: {'DONE'} | {'GONE'} the receipt is not in flight: sent twice, or
--       recovered by another worker | {'PLAN', index} nothing written: that
--       callback fires, send its plan | {'EXPIRED', BARRIER} nothing written
--       | {'TYPE', key} nothing written: another type, or a barrier that is not a
--       whole number | {'STAGE', key} nothing written: stage the plan again
--       | {'CANCELLED'} done, and the run is cancelled: nothing of it starts
--       | {'KEPT'} done, and the next job is in flight here under its receipt
--       | {'KEPT', payload} the same, sent twice: the job that the first call kept
--
-- A worker that goes on at once offers a receipt of its own for a plan of one job, for
-- the queue of this hash.  That saves the push, the fetch and a round trip.  A queue
-- with jobs, or a paused one, refuses: the job is pushed.  The worker is registered:
-- its hash holds the finished job, and only a worker with an empty one is removed.

-- @include _chain_step

local stepped = chain_step()
if stepped then return stepped end

-- @include _walk
-- @include _fields
-- @include _plan
-- @include _memory
-- @include _record

local in_flight, memory, record = KEYS[1], KEYS[2], KEYS[3]
local receipt, unit, ttl, memory_ttl = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local keep = ARGV[5] ~= '' and {hash = in_flight, receipt = ARGV[5]} or nil

local function gone()
  local kept = keep and redis.call('HGET', in_flight, keep.receipt)
  return kept and {'KEPT', kept} or {'GONE'}
end

-- The reply if nothing can be written: a job that is not in flight needs nothing.
local function refuse(reply)
  local found, wrong = checked('HEXISTS', in_flight, receipt)
  if wrong then return wrong end
  return found == 1 and reply or gone()
end

-- Reads.
local fields, a = read_fields(7)
-- Nothing follows a step without callbacks.
local state, ending
if ARGV[a] == '' then state, ending = record_end(record) else state = record_state(record) end
-- The barriers of a cancelled run may be disarmed, so none is read.
local cancelled, walked, wrong = state == 'cancelled', nil, nil
local parked = state == 'paused' and record or nil
if cancelled then walked = no_walk() else walked, wrong = walk(unit, 4, a, false, record) end
if not walked then return refuse(wrong) end
a = a + 1
local fires = walked.fire > 0
if fires and tonumber(ARGV[a]) ~= walked.fire then return refuse({'PLAN', walked.fire}) end
local writes_fields = walked.new and fields.n > 0
if writes_fields then
  if not type_is(memory, 'hash') then return refuse({'TYPE', memory}) end
  wrong = denied('HSET', memory, '', '')
  if wrong then return refuse(wrong) end
end
local plan
if fires then
  plan, wrong = read_plan(4 + walked.n, a + 1, keep, parked)
  if not plan then return refuse(wrong) end
end

-- Writes.  HDEL, the gate, comes first: Redis allows it when it is out of memory,
-- and after it also allows the other writes of the script.
local taken
taken, wrong = checked('HDEL', in_flight, receipt)
if wrong then return wrong end
if taken == 0 then return gone() end
if parked then ttl = math.max(ttl, PARKED_TTL) end
if writes_fields then write_fields(memory, fields) end
for _, count in ipairs(walked.counts) do count_down(count, RELEASED_TTL, ttl) end
if walked.late then count_late(walked.late, ttl) end
if plan then write_plan(plan) end
prolong_waiting(walked, ttl)
if walked.new then keep_memory(memory, memory_ttl, ttl, walked, fires) end
state = state or known_state(record, ARGV[6], ttl)
if state then
  for _, count in ipairs(walked.counts) do
    if count.needs and count.released then spare_all(record, count.barrier) end
  end
  state = record_steps(record, state, {ARGV[6]}, ttl)
  if had_failed(ARGV[6]) then state = revived(record, state, ARGV[6], first_keys(4, walked.n), ttl) end
  if not cancelled and walked.new and is_over(walked, fires) then
    finish_record(record, state, ARGV[6], ending)
  end
end
if cancelled then return {'CANCELLED'} end
return {plan and plan.kept and 'KEPT' or 'DONE'}
