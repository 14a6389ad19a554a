-- Writes a worker process's record for Sidekiq's Web UI.  Atomic.
--
-- KEYS: 'processes', HOST:PID:NONCE, HOST:PID:NONCE:work, HOST:PID:NONCE-signals,
--       'process_cleanup'
-- ARGV: milliseconds that the record lives without another beat,
--       seconds until a process may clean up again, number of busy threads,
--       thread and JSON of each, then fields and values of the record
-- Returns: {signals sent to the process, the last one first; they are not removed,
--       1 if this process must look for processes that are gone, else 0};
--       an error if a key has another type: nothing was written

-- @include _types
-- @include _type_error

for i, kind in ipairs({'set', 'hash', false, 'list'}) do
  if kind and not type_is(KEYS[i], kind) then return type_error(KEYS[i], kind) end
end
local at = 3 + 2 * tonumber(ARGV[3])
redis.call('UNLINK', KEYS[3])
if at > 3 then
  redis.call('HSET', KEYS[3], unpack(ARGV, 4, at))
  redis.call('PEXPIRE', KEYS[3], ARGV[1])
end
redis.call('SADD', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[2], unpack(ARGV, at + 1))
redis.call('PEXPIRE', KEYS[2], ARGV[1])
local look = redis.call('SET', KEYS[5], 1, 'NX', 'EX', ARGV[2])
return {redis.call('LRANGE', KEYS[4], 0, -1), look and 1 or 0}
