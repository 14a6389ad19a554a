-- Enqueue jobs: to a queue, or to `schedule`.
--
-- KEYS: swf:push:PRODUCER, 'queues', queue list or 'schedule'
-- ARGV: number of this push (a producer makes one push at a time: its numbers
--       only grow), queue name ('' = schedule), then payloads, or pairs of
--       score, payload
-- Returns: 1, or 0 where this push was made already (sent twice); an error
--       where a key holds another type, and nothing is written

local function type_error(key, found, wanted)
  return redis.error_reply('WRONGTYPE ' .. key .. ' holds a ' .. found .. ', not a ' .. wanted)
end

local last = redis.pcall('GET', KEYS[1])
if type(last) ~= 'string' then last = nil end
if last and (tonumber(last) or 0) >= tonumber(ARGV[1]) then return 0 end
local wanted = ARGV[2] == '' and 'zset' or 'list'
local found = redis.call('TYPE', KEYS[3]).ok
if found ~= 'none' and found ~= wanted then return type_error(KEYS[3], found, wanted) end
if wanted == 'list' then
  found = redis.call('TYPE', KEYS[2]).ok
  if found ~= 'none' and found ~= 'set' then return type_error(KEYS[2], found, 'set') end
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', 3600)
for first = 3, #ARGV, 1000 do
  local last_ = math.min(first + 999, #ARGV)
  if wanted == 'zset' then
    redis.call('ZADD', KEYS[3], unpack(ARGV, first, last_))
  else
    redis.call('LPUSH', KEYS[3], unpack(ARGV, first, last_))
  end
end
if wanted == 'list' then redis.call('SADD', KEYS[2], ARGV[2]) end
return 1
