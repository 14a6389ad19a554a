-- Parks a job in flight that did not run, since its run is paused.  If the run was resumed
-- meanwhile, the job goes back to the end of its queue that is fetched first; if it was
-- cancelled, the job is dropped.  Safe to send twice.
--
-- KEYS: in-flight hash, record (see _record), queue list, then keys of barriers, memory and
--       record to keep alive
-- ARGV: receipt, name of the queue, seconds that the kept keys live from now on
-- Returns: {'DONE'} | {'GONE'} not in flight: sent twice, or recovered
--       | {'TYPE', key} nothing written

-- @include _types
-- @include _rights
-- @include _prolong
-- @include _record
-- @include _parked

local in_flight, record, queue = KEYS[1], KEYS[2], KEYS[3]
local receipt = ARGV[1]

-- Reads.
local payload, wrong = checked('HGET', in_flight, receipt)
if wrong then return wrong end
if not payload then return {'GONE'} end
local state = record_state(record)
if state == 'paused' then
  wrong = cannot_park(record)
elseif not type_is(queue, 'list') then
  wrong = {'TYPE', queue}
else
  wrong = denied('RPUSH', queue, '')
end
if wrong then return wrong end

-- Writes.  HDEL, the gate, comes first: Redis allows it when it is out of memory, and after
-- it also the others.
redis.call('HDEL', in_flight, receipt)
if state == 'paused' then
  park(record, 'RPUSH', {'q' .. ARGV[2] .. '\0' .. payload})
  for i = 4, #KEYS do prolong(KEYS[i], tonumber(ARGV[3])) end
elseif state ~= 'cancelled' then
  redis.call('RPUSH', queue, payload)
end
return {'DONE'}
