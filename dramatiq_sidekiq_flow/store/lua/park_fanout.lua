-- Parks what is left of a committed fan-out of a paused run.  Safe to send twice.
--
-- KEYS: 'swf:fanouts', swf:fanout:ID, record (see _record)
-- ARGV: ID
-- Returns: number of elements that are left of it; 0 if it is not committed, or the run is
--       not paused | {'TYPE', key} nothing written

-- @include _types
-- @include _record
-- @include _parked

local fanouts, list, record = KEYS[1], KEYS[2], KEYS[3]
if record_state(record) ~= 'paused' then return 0 end
if not type_is(fanouts, 'zset') then return {'TYPE', fanouts} end
local length, wrong = checked('LLEN', list)
wrong = wrong or cannot_park(record)
if wrong then return wrong end
if not redis.call('ZSCORE', fanouts, ARGV[1]) then return 0 end

-- Redis allows ZREM when it is out of memory, and after it also the others.
redis.call('ZREM', fanouts, ARGV[1])
redis.call('EXPIRE', list, PARKED_TTL)
park(record, 'RPUSH', {'f' .. ARGV[1] .. '\0"' .. string.sub(record, 10) .. '"'})
return length
