-- Write fields of a run's memory, or of a registry, which lives no shorter than before.
--
-- KEYS: the hash
-- ARGV: ttl in seconds, then pairs of name, JSON
-- Returns: 1

for first = 2, #ARGV, 1000 do
  redis.call('HSET', KEYS[1], unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
if redis.call('TTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return 1
