-- A step failed for good on another broker: into `dead`.
--
-- KEYS: 'dead', then barrier keys to keep alive
-- ARGV: score, payload, score up to which `dead` is trimmed, most jobs that
--       `dead` keeps, ttl of the barriers in seconds
-- Returns: {'DONE'} | {'TYPE', key} nothing written

local found = redis.call('TYPE', KEYS[1]).ok
if found ~= 'none' and found ~= 'zset' then return {'TYPE', KEYS[1]} end
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -tonumber(ARGV[4]))
for i = 2, #KEYS do
  local left = redis.call('TTL', KEYS[i])
  if left ~= -2 and left < tonumber(ARGV[5]) then redis.call('EXPIRE', KEYS[i], ARGV[5]) end
end
return {'DONE'}
