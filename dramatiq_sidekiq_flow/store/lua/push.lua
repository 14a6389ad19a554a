-- Pushes jobs to a queue, or to `schedule`.
--
-- KEYS: swf:push:PRODUCER, 'queues', queue list or 'schedule'
-- ARGV: number of this push (a producer makes one push at a time, so its numbers
--       only increase), queue name ('' = schedule), then payloads, or pairs of
--       score, payload
-- Returns: 1, or 0 if this push was made before (sent twice); an error if a key
--       has another type: nothing was written

-- @include _types
-- @include _type_error
-- @include _slices

local last = redis.pcall('GET', KEYS[1])
if type(last) ~= 'string' then last = nil end
if last and (tonumber(last) or 0) >= tonumber(ARGV[1]) then return 0 end
local to_schedule = ARGV[2] == ''
local wanted = to_schedule and 'zset' or 'list'
if not type_is(KEYS[3], wanted) then return type_error(KEYS[3], wanted) end
if not to_schedule and not type_is(KEYS[2], 'set') then return type_error(KEYS[2], 'set') end
redis.call('SET', KEYS[1], ARGV[1], 'EX', 3600)
call_in_slices(to_schedule and 'ZADD' or 'LPUSH', KEYS[3], ARGV, 3, #ARGV)
if not to_schedule then redis.call('SADD', KEYS[2], ARGV[2]) end
return 1
