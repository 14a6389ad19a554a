-- Lets a stored chain that belongs to one run expire, since its last step was started.
-- It is kept for a while, in case a duplicate arrives late.  A chain without a barrier
-- may be shared with other runs, and is left unchanged.
--
-- KEYS: swf:callbacks:SHA256
-- ARGV: ttl in seconds
-- Returns: 1, or 0 if it is shared, gone, of another type, or expires earlier

local key, ttl = KEYS[1], tonumber(ARGV[1])
if redis.call('TYPE', key).ok ~= 'hash' then return 0 end
if redis.call('HEXISTS', key, 'barrier') == 0 then return 0 end
local left = redis.call('TTL', key)
if left ~= -1 and left <= ttl then return 0 end
redis.call('EXPIRE', key, ttl)
return 1
