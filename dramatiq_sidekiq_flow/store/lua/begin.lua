-- Marks a job that was fetched ahead as begun: its receipt BASE:I? becomes BASE:I.
-- Only jobs that have begun are counted when their worker dies.  Safe to send twice.
--
-- KEYS: in-flight hash
-- ARGV: the receipt, with its '?'
-- Returns: 1, or 0 if the job is not in flight here: another worker has recovered
--       it, and it must not run | {'TYPE', key} nothing written

-- @include _types
-- @include _rights

if not type_is(KEYS[1], 'hash') then return {'TYPE', KEYS[1]} end
local begun = string.sub(ARGV[1], 1, -2)
local payload = redis.call('HGET', KEYS[1], ARGV[1])
if not payload then return redis.call('HEXISTS', KEYS[1], begun) end
local refused = denied('HSET', KEYS[1], begun, '')
if refused then return refused end
-- Redis allows HDEL when it is out of memory, and after it also HSET.
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], begun, payload)
return 1
