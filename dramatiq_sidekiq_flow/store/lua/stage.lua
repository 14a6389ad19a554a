-- Lay down one chunk of a large fan-out; advance or start commits it.
--
-- KEYS: swf:stage:ID
-- ARGV: ttl in seconds, payloads
-- Returns: 1, or 0 where the chunk lies there already (sent twice)

if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
for first = 2, #ARGV, 1000 do
  redis.call('RPUSH', KEYS[1], unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
