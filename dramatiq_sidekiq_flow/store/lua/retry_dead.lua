-- Moves a dead step from `dead` back to its queue; if its run is paused, to its parked jobs.
-- The record forgets the failure.  Safe to send twice.
--
-- KEYS: 'dead', record (see _record), 'queues', queue list
-- ARGV: the member, name of the queue, payload to push, number of the step ('jid:' and
--       its jid if it has none)
-- Returns: {'DONE'} | {'GONE'} not in `dead` | {'ENDED', state} the run is cancelled: nothing
--       written | {'TYPE', key} nothing written

-- @include _types
-- @include _rights
-- @include _record
-- @include _parked

local dead, record, queues, queue = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local member, name, payload, number = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

-- Reads.
local score, wrong = checked('ZSCORE', dead, member)
if wrong then return wrong end
if not score then return {'GONE'} end
local state = record_state(record)
if state == 'cancelled' then return {'ENDED', state} end
if state == 'paused' then
  wrong = cannot_park(record)
elseif not type_is(queues, 'set') then
  wrong = {'TYPE', queues}
elseif not type_is(queue, 'list') then
  wrong = {'TYPE', queue}
else
  wrong = denied('SADD', queues, name) or denied('LPUSH', queue, '')
end
if wrong then return wrong end

-- Writes.  ZREM, the gate, comes first: Redis allows it when it is out of memory, and after
-- it also the others.
redis.call('ZREM', dead, member)
if state == 'paused' then
  park(record, 'RPUSH', {'q' .. name .. '\0' .. payload})
else
  redis.call('SADD', queues, name)
  redis.call('LPUSH', queue, payload)
end
if state and number ~= '' then forget_failure(record, state, number, redis.call('TTL', record)) end
return {'DONE'}
