-- A worker process says that it lives, and hears who does not.
--
-- KEYS: swf:workers
-- ARGV: seconds without a beat that make a worker dead, members of this process
-- Returns: members without a beat for that long, 16 at most

local now = redis.call('TIME')
now = tonumber(now[1]) + tonumber(now[2]) / 1e6
for i = 2, #ARGV do
  -- ZREM passes when Redis is out of memory, and after it ZADD does, too: a
  -- full Redis must not make every worker look dead.
  redis.call('ZREM', KEYS[1], ARGV[i])
  redis.call('ZADD', KEYS[1], string.format('%.6f', now), ARGV[i])
end
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.6f', now - tonumber(ARGV[1])), 'LIMIT', 0, 16)
