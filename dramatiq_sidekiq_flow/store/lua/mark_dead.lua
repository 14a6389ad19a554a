-- Records a step whose job is nowhere as dead.  Safe to send twice.
--
-- KEYS: record (see _record)
-- ARGV: number of the step, what the record holds of the failure
-- Returns: {'DONE'} | {'GONE'} nothing written: the run has no record, or has ended

-- @include _record

local state = record_state(KEYS[1])
if state ~= 'running' and state ~= 'failed' then return {'GONE'} end
-- Redis allows HDEL when it is out of memory, and after it also the other writes.
redis.pcall('HDEL', KEYS[1] .. ':failed', ARGV[1])
record_dead(KEYS[1], state, ARGV[1], ARGV[2])
local left = redis.pcall('TTL', KEYS[1])
if type(left) == 'number' and left > 0 then redis.pcall('EXPIRE', KEYS[1] .. ':failed', left) end
return {'DONE'}
