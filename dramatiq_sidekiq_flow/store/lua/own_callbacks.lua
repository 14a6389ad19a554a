-- Make the hash of a chain that belongs to one run; plain HSETs fill it. A
-- value of megabytes takes four times as long through a script.
--
-- KEYS: swf:callbacks:SHA256
-- ARGV: ttl in seconds, barrier that the chain follows
-- Returns: 1

local key, ttl = KEYS[1], tonumber(ARGV[1])
redis.call('HSET', key, 'barrier', ARGV[2])
if redis.call('TTL', key) < ttl then redis.call('EXPIRE', key, ttl) end
return 1
