-- Advances a run past a finished step after custom barriers counted it: takes its job
-- out of flight, writes its output to the memory, and writes the plan of the
-- continuation.  Of a paused run, the plan is parked.  Safe to send twice.
--
-- KEYS: in-flight hash, memory hash ('' = none),
--       swf:released:BARRIER of the barrier that the plan is the continuation of
--       ('' = no plan), record (see _record), the plan's (see _plan)
-- ARGV: receipt, ttl of that marker in seconds, seconds that the memory lives from
--       now on, the step's text (see _record), '1' if nothing of the run is left, else '0',
--       the fields' (see _fields), the plan's
-- Returns: {'DONE'} | {'GONE'} not in flight: sent twice, or recovered
--       | {'TYPE', key} | {'STAGE', key} nothing written: stage the plan again
--       | {'CANCELLED'} done, and the run is cancelled: nothing of it starts
--
-- The marker is needed if a job is delivered twice: its barrier then returns twice
-- that it has released, and only the first call pushes the continuation.

-- @include _types
-- @include _fields
-- @include _plan
-- @include _prolong
-- @include _record

local in_flight, memory, marker, record = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local receipt, marker_ttl, memory_ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local fields, a = read_fields(6)

if not type_is(in_flight, 'hash') then return {'TYPE', in_flight} end
if redis.call('HEXISTS', in_flight, receipt) == 0 then return {'GONE'} end
if fields.n > 0 and not type_is(memory, 'hash') then return {'TYPE', memory} end
local state = record_state(record)
local cancelled = state == 'cancelled'
local plan, wrong
local parked = state == 'paused' and record or nil
if marker ~= '' and not cancelled and redis.call('EXISTS', marker) == 0 then
  plan, wrong = read_plan(5, a, nil, parked)
  if not plan then return wrong end
end

redis.call('HDEL', in_flight, receipt)
if parked and ARGV[5] ~= '1' then memory_ttl = math.max(memory_ttl, PARKED_TTL) end
write_fields(memory, fields)
if memory ~= '' then prolong(memory, memory_ttl) end
if plan then
  redis.call('SET', marker, '1', 'EX', marker_ttl)
  write_plan(plan)
end
state = state or known_state(record, ARGV[4], memory_ttl)
if state then
  state = record_steps(record, state, {ARGV[4]}, memory_ttl)
  if ARGV[5] == '1' and not cancelled then finish_record(record, state, ARGV[4]) end
end
return {cancelled and 'CANCELLED' or 'DONE'}
