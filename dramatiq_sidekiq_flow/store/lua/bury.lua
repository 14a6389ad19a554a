-- Adds a step that failed for good on another broker to `dead`.
--
-- KEYS: 'dead', then barrier keys to keep alive
-- ARGV: score, payload, score up to which `dead` is trimmed, maximum jobs in
--       `dead`, ttl of the barriers in seconds
-- Returns: {'DONE'} | {'TYPE', key} nothing written

-- @include _types
-- @include _prolong

if not type_is(KEYS[1], 'zset') then return {'TYPE', KEYS[1]} end
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -tonumber(ARGV[4]))
for i = 2, #KEYS do prolong(KEYS[i], tonumber(ARGV[5])) end
return {'DONE'}
