-- A job that was fetched ahead begins: its receipt BASE:I? becomes BASE:I.
-- Only jobs that had begun count when their worker dies.  Safe to send twice.
--
-- KEYS: in-flight hash
-- ARGV: the receipt, with its '?'
-- Returns: 1, or 0 if the job has left flight here: recovered by
--       another worker, it must not run | {'TYPE', key} nothing written

local found = redis.call('TYPE', KEYS[1]).ok
if found ~= 'none' and found ~= 'hash' then return {'TYPE', KEYS[1]} end
local begun = string.sub(ARGV[1], 1, -2)
local payload = redis.call('HGET', KEYS[1], ARGV[1])
if not payload then return redis.call('HEXISTS', KEYS[1], begun) end
-- HDEL passes when Redis is out of memory, and after it HSET does, too.
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], begun, payload)
return 1
