-- Disarms barriers of a cancelled run, so that the plain gem starts nothing behind them.
-- Safe to send twice.
--
-- The gem counts a barrier down, and then raises its marker BARRIER_ran by 1: the caller that
-- gets 0, from -1, starts the next steps.  From a marker of 0, all get more.
--
-- KEYS: BARRIER_ran of each
-- ARGV: seconds that a disarmed marker lives at least
-- Returns: number of barriers that were armed

local ttl, disarmed = tonumber(ARGV[1]), 0
for _, marker in ipairs(KEYS) do
  if redis.pcall('GET', marker) == '-1' then
    disarmed = disarmed + 1
    local lives = math.max(ttl, redis.call('TTL', marker))
    -- Redis allows EXPIRE when it is out of memory, and after it also SET.
    redis.call('EXPIRE', marker, lives)
    redis.call('SET', marker, '0', 'EX', lives)
  end
end
return disarmed
