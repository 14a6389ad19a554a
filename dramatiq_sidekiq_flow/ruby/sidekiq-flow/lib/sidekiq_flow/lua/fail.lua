-- A job failed: from flight into `retry` or `dead`, or nowhere.
--
-- KEYS: in-flight hash, 'retry' or 'dead', then keys of barriers and memory to keep alive
-- ARGV: receipt, action ('retry', 'dead', 'discard'), score, payload,
--       score up to which `dead` is trimmed, most jobs that `dead` keeps,
--       seconds that those live on
-- Returns: {'DONE'} | {'GONE'} not in flight: sent twice, or recovered
--       | {'TYPE', key} nothing written

local found = redis.call('TYPE', KEYS[1]).ok
if found ~= 'none' and found ~= 'hash' then return {'TYPE', KEYS[1]} end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return {'GONE'} end
local action = ARGV[2]
found = redis.call('TYPE', KEYS[2]).ok
if action ~= 'discard' and found ~= 'none' and found ~= 'zset' then return {'TYPE', KEYS[2]} end
redis.call('HDEL', KEYS[1], ARGV[1])
if action ~= 'discard' then redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4]) end
if action == 'dead' then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[5])
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -tonumber(ARGV[6]))
end
local ttl = tonumber(ARGV[7])
for i = 3, #KEYS do
  local left = redis.call('TTL', KEYS[i])
  if left ~= -2 and left < ttl then redis.call('EXPIRE', KEYS[i], ttl) end
end
return {'DONE'}
