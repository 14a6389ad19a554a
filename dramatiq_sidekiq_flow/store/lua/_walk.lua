-- The walk over a step's callback stack: which barriers the step counts down,
-- and which callback then fires.  advance.lua walks for a step on a Sidekiq queue,
-- count.lua for one on another broker, whose callbacks have a fourth key.
--
-- In KEYS, from k on, width (3 or 4) per callback from the top:
--   BARRIER, BARRIER_ran, BARRIER:u, and BARRIER:f (see count.lua) if width is 4
-- In ARGV, from a on: number of callbacks, per callback: kind
--   'f' fires a continuation         (the walk stops there)
--   'n' has none and propagates      (count down the next one, too)
--   's' has none, does not propagate (the walk stops)
--
-- walk(unit, k, a, width) -> what was found, or nil and an error reply: {'TYPE', key}
--                            | {'EXPIRED', BARRIER}.  It writes nothing.  Found are
--   n         number of callbacks
--   counts    barriers to count down, in order; all are released, but the last may wait
--   released  how many of them are released
--   fire      index of the callback that fires (1 = the top), 0 = none
--   again     set if this unit released the barrier of that callback before (width 4)
--   new       false if the top barrier has counted this step before
-- count_down(count, kept, ttl): writes one of counts, and keeps a released barrier for
--                            kept seconds.  BARRIER:u of one that waits lives for ttl
--                            seconds, or as long as the barrier if that is longer
-- prolong_waiting(walked, ttl): lets barriers that still wait, and what belongs to them,
--                            live for ttl seconds
-- RELEASED_TTL: a day; so long a released barrier is kept for a duplicate that comes late
--
-- The set BARRIER:u holds the units that a barrier has counted: the jid of a
-- child, or the barrier's id of a finished inner group.  So a job that comes
-- twice counts once.

-- @include _types
-- @include _slack

local RELEASED_TTL = 86400

local function walk(unit, k, a, width)
  local n = tonumber(ARGV[a])
  local walked = {n = n, first_key = k, width = width, counts = {}, released = 0, fire = 0, again = false, new = true}
  for i = 1, n do
    local barrier, ran, units = KEYS[k], KEYS[k + 1], KEYS[k + 2]
    local fired = width == 4 and KEYS[k + 3]
    local kind = ARGV[a + i]
    if not type_is(barrier, 'string') then return nil, {'TYPE', barrier} end
    if not type_is(ran, 'string') then return nil, {'TYPE', ran} end
    if fired and not type_is(fired, 'string') then return nil, {'TYPE', fired} end
    if not type_is(units, 'set') then return nil, {'TYPE', units} end
    local releaser = fired and redis.call('GET', fired)
    if releaser then
      if i == 1 then walked.new = false end
      -- The unit that released the barrier goes the same way again.
      if releaser ~= unit then break end
    else
      local value, marker = redis.call('GET', barrier), redis.call('GET', ran)
      if not value or not marker then return nil, {'EXPIRED', barrier} end
      value, marker = whole(value), whole(marker)
      if not value then return nil, {'TYPE', barrier} end
      if not marker then return nil, {'TYPE', ran} end
      if marker ~= -1 or redis.call('SISMEMBER', units, unit) == 1 then
        if i == 1 then walked.new = false end
        break
      end
      local released = value <= 1
      walked.counts[#walked.counts + 1] = {
        barrier = barrier, ran = ran, units = units, fired = fired, unit = unit, value = value, released = released,
      }
      if not released then break end
      walked.released = walked.released + 1
    end
    if kind == 'f' then
      walked.fire, walked.again = i, releaser
      break
    end
    if kind == 's' then break end
    unit = barrier
    k = k + width
  end
  return walked
end

local function count_down(count, kept, ttl)
  if count.released then
    redis.call('SETEX', count.barrier, kept, count.value - 1)
    redis.call('SETEX', count.ran, kept, 0)
    redis.call('UNLINK', count.units)
    return
  end
  redis.call('DECR', count.barrier)
  redis.call('SADD', count.units, count.unit)
  if redis.call('TTL', count.units) < 0 then
    -- As long as the barrier, which may wait for a child with a long delay.
    redis.call('EXPIRE', count.units, math.max(ttl, redis.call('TTL', count.barrier)))
  end
end

local function prolong_waiting(walked, ttl)
  for i = walked.released, walked.n - 1 do
    local k = walked.first_key + walked.width * i
    if redis.call('TTL', KEYS[k]) < ttl - SLACK then
      redis.call('EXPIRE', KEYS[k], ttl)
      redis.call('EXPIRE', KEYS[k + 1], ttl)
      redis.call('EXPIRE', KEYS[k + 2], ttl)
    end
  end
end
