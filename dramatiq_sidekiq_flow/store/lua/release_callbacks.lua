-- The last step of a chain was started: keep it for a day, for a duplicate that
-- comes late, where it belongs to one run. Others may share what has no barrier.
--
-- KEYS: swf:callbacks:SHA256
-- ARGV: ttl in seconds
-- Returns: 1, or 0 where it is shared, gone, of another type, or expires before

local key, ttl = KEYS[1], tonumber(ARGV[1])
if redis.call('TYPE', key).ok ~= 'hash' then return 0 end
if redis.call('HEXISTS', key, 'barrier') == 0 then return 0 end
local left = redis.call('TTL', key)
if left ~= -1 and left <= ttl then return 0 end
redis.call('EXPIRE', key, ttl)
return 1
