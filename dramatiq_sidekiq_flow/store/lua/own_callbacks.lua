-- Creates the hash of a chain that belongs to one run.  Plain HSETs then fill it, since
-- a script takes four times as long to write a value of megabytes.
--
-- KEYS: swf:callbacks:SHA256
-- ARGV: ttl in seconds, barrier that the chain follows, size of its largest value in bytes
-- Returns: 1

-- @include _prolong

redis.call('HSET', KEYS[1], 'barrier', ARGV[2], 'largest', ARGV[3])
prolong(KEYS[1], tonumber(ARGV[1]))
return 1
