-- Creates the hash of a chain that belongs to one run.  Plain HSETs then fill it, since
-- a script takes four times as long to write a value of megabytes.
--
-- KEYS: swf:callbacks:SHA256
-- ARGV: ttl in seconds, barrier that the chain follows
-- Returns: 1

-- @include _prolong

redis.call('HSET', KEYS[1], 'barrier', ARGV[2])
prolong(KEYS[1], tonumber(ARGV[1]))
return 1
