-- Records heartbeats and returns workers whose heartbeat has expired.
--
-- KEYS: swf:workers
-- ARGV: seconds without a beat that make a worker dead, number of the dead to
--       skip (they are known), per member of this process: its name, and
--       number of jobs that it holds ('' = do not compare)
-- Returns: {members without a beat for that long, 16 at most,
--       members of this process that have more in flight than they hold,
--       1 if committed fan-outs still have jobs to push (see pour.lua), else 0}

local now = redis.call('TIME')
now = tonumber(now[1]) + tonumber(now[2]) / 1e6
local timeout = tonumber(ARGV[1])

local function beat(member)
  -- Redis allows ZREM when it is out of memory, and after it also ZADD: a full
  -- Redis must not make every worker look dead.
  redis.call('ZREM', KEYS[1], member)
  redis.call('ZADD', KEYS[1], string.format('%.6f', now), member)
end

local more = {}
for i = 3, #ARGV, 2 do
  beat(ARGV[i])
  if ARGV[i + 1] ~= '' then
    local found = redis.pcall('HLEN', 'swf:inflight:' .. ARGV[i])
    if type(found) == 'number' and found > tonumber(ARGV[i + 1]) then more[#more + 1] = ARGV[i] end
  end
end
-- If the clock of Redis was set back, beats are in the future, and dead workers would
-- not be found until the clock has caught up.  Set these beats to now; live workers
-- beat again soon.
local future = string.format('(%.6f', now + timeout)
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], future, '+inf', 'LIMIT', 0, 100)) do beat(member) end
local expired = string.format('(%.6f', now - timeout)
local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', expired, 'LIMIT', ARGV[2], 16)
local has_fanouts = redis.call('TYPE', 'swf:fanouts').ok == 'zset'
return {dead, more, has_fanouts and 1 or 0}
