-- Marks a continuation as enqueued on another broker, so that a duplicate of the
-- step that released its barrier does not start it again.
--
-- KEYS: per callback from the top to the one that fired: BARRIER, BARRIER_ran, BARRIER:f
-- ARGV: seconds that these are kept
-- Returns: 1, or 0 if it was marked before, or the barrier is gone

local last = KEYS[#KEYS]
local known = redis.call('GET', last)
if not known or known == '' then return 0 end
for i = 1, #KEYS, 3 do
  redis.call('EXPIRE', KEYS[i], ARGV[1])
  redis.call('EXPIRE', KEYS[i + 1], ARGV[1])
  redis.call('SET', KEYS[i + 2], '', 'EX', ARGV[1])
end
return 1
