-- Pushes jobs to a queue, or to `schedule`.
--
-- KEYS: swf:push:PRODUCER, 'queues', queue list or 'schedule'
-- ARGV: number of this push, queue name ('' = schedule), then payloads, or pairs of
--       score, payload.  A producer counts its pushes from 1, and each one needs the
--       one before: of several in one write, those after a failed one fail, too
-- Returns: 1 | 0 this push was made before (sent twice) | -1 nothing written: the push
--       before this one was not made, or is forgotten; an error if a key has another
--       type: nothing was written

-- @include _types
-- @include _type_error
-- @include _slices

local last, number = redis.pcall('GET', KEYS[1]), tonumber(ARGV[1])
last = type(last) == 'string' and tonumber(last) or 0
if last >= number then return 0 end
if last ~= number - 1 then return -1 end
local to_schedule = ARGV[2] == ''
local command = to_schedule and 'ZADD' or 'LPUSH'
local listed, wrong, _
if not to_schedule then
  listed, wrong = checked('SISMEMBER', KEYS[2], ARGV[2])
  if wrong then return type_error(KEYS[2], 'set') end
end
-- The first write: it has its key checked, and a full Redis refuses it, and none after it.
_, wrong = checked(command, KEYS[3], unpack(ARGV, 3, math.min(#ARGV, 1002)))
if wrong then return type_error(KEYS[3], to_schedule and 'zset' or 'list') end
if #ARGV > 1002 then call_in_slices(command, KEYS[3], ARGV, 1003, #ARGV) end
redis.call('SET', KEYS[1], ARGV[1], 'EX', '3600')
if listed == 0 then redis.call('SADD', KEYS[2], ARGV[2]) end
return 1
