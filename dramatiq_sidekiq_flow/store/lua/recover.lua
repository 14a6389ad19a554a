-- A worker died: its jobs in flight go back to their queue, or to `dead` when
-- a job has outlived too many workers (a poison pill).
--
-- KEYS: swf:workers, in-flight hash, queue list, 'dead',
--       per job: swf:recovered:JID
-- ARGV: member, seconds without a beat, recoveries that are too many, seconds
--       that they are counted for, score in `dead`,
--       per job: receipt, payload for `dead`
-- Returns: {'ALIVE'} nothing written | {'TYPE', key} nothing written
--       | {'DONE', back in the queue, dead}; the worker is struck off when
--       nothing of it is left

local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
local now = redis.call('TIME')
if score and tonumber(now[1]) + tonumber(now[2]) / 1e6 - tonumber(score) < tonumber(ARGV[2]) then return {'ALIVE'} end
for key, wanted in pairs({[KEYS[3]] = 'list', [KEYS[4]] = 'zset'}) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= wanted then return {'TYPE', key} end
end
local back, dead = 0, 0
for i = 5, #KEYS do
  local receipt, corpse = ARGV[6 + 2 * (i - 5)], ARGV[7 + 2 * (i - 5)]
  local payload = redis.call('HGET', KEYS[2], receipt)
  if payload then
    local count = redis.pcall('GET', KEYS[i])
    count = type(count) == 'string' and tonumber(count) or 0
    redis.call('HDEL', KEYS[2], receipt)
    redis.call('SET', KEYS[i], count + 1, 'EX', ARGV[4])
    if count + 1 >= tonumber(ARGV[3]) then
      redis.call('ZADD', KEYS[4], ARGV[5], corpse)
      dead = dead + 1
    else
      redis.call('RPUSH', KEYS[3], payload)
      back = back + 1
    end
  end
end
if redis.call('HLEN', KEYS[2]) == 0 then redis.call('ZREM', KEYS[1], ARGV[1]) end
return {'DONE', back, dead}
