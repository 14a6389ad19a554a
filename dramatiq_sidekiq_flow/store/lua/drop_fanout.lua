-- Drops a committed fan-out, with the jobs that are still to be pushed.  Safe to send
-- twice.
--
-- KEYS: 'swf:fanouts', swf:fanout:ID
-- ARGV: ID
-- Returns: number of elements that were left of it | {'TYPE', key} nothing written

-- @include _types
-- @include _rights

local fanouts, list = KEYS[1], KEYS[2]
if not type_is(fanouts, 'zset') then return {'TYPE', fanouts} end
local length, wrong = checked('LLEN', list)
if wrong then return wrong end
wrong = denied('UNLINK', list)
if wrong then return wrong end
redis.call('ZREM', fanouts, ARGV[1])
redis.call('UNLINK', list)
return length
