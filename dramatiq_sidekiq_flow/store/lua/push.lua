-- Enqueue jobs: to a queue, or to `schedule`.
--
-- KEYS: swf:push:PRODUCER, 'queues', queue list or 'schedule'
-- ARGV: number of this push (a producer is one thread: its numbers only grow),
--       queue name ('' = schedule), then payloads, or pairs of score, payload
-- Returns: 1, or 0 where this push was made already (sent twice)

local last = redis.call('GET', KEYS[1])
if last and tonumber(last) >= tonumber(ARGV[1]) then return 0 end
local wanted = ARGV[2] == '' and 'zset' or 'list'
local found = redis.call('TYPE', KEYS[3]).ok
if found ~= 'none' and found ~= wanted then
  return redis.error_reply('WRONGTYPE ' .. KEYS[3] .. ' holds a ' .. found .. ', not a ' .. wanted)
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', 3600)
if wanted == 'zset' then
  redis.call('ZADD', KEYS[3], unpack(ARGV, 3))
else
  redis.call('SADD', KEYS[2], ARGV[2])
  redis.call('LPUSH', KEYS[3], unpack(ARGV, 3))
end
return 1
