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
-- read_barrier(barrier, ran) -> value and marker; or nil, nil and an error reply as of walk
-- walk(unit, k, a, width) -> a table, or nil and an error reply: {'TYPE', key}
--                            | {'EXPIRED', BARRIER}.  It writes nothing.  The table has
--   n         number of callbacks
--   counts    barriers to count down, in order; all are released, but the last may wait
--   released  number of them that are released
--   fire      index of the callback that fires (1 = the top), 0 = none
--   again     set if this unit released the barrier of that callback before (width 4)
--   new       false if the top barrier counted this step before
-- count_units(barrier, set, units, ttl): counts down a barrier that waits, for units that it
--                            has not counted; set is its BARRIER:u
-- count_down(count, kept, ttl): writes one of counts, and keeps a released barrier for
--                            kept seconds.  BARRIER:u of one that waits lives for ttl
--                            seconds, or as long as the barrier if that is longer
-- prolong_waiting(walked, ttl): prolongs barriers that still wait, with all their keys,
--                            to ttl seconds
-- RELEASED_TTL: a day.  A released barrier is kept so long in case a duplicate arrives late
--
-- The set BARRIER:u holds the units that a barrier has counted: the jid of a
-- child, or the barrier's id of a finished inner group.  So a job that is
-- delivered twice counts once.

-- @include _types
-- @include _slack

local RELEASED_TTL = 86400

local function read_barrier(barrier, ran)
  -- MGET returns false for a missing key, and for a key of another type.
  local found = redis.call('MGET', barrier, ran)
  local value, marker = found[1] and whole(found[1]), found[2] and whole(found[2])
  if value and marker then return value, marker end
  for i, key in ipairs({barrier, ran}) do
    local is_number = found[i] and whole(found[i])
    if not is_number and redis.call('EXISTS', key) == 1 then return nil, nil, {'TYPE', key} end
  end
  return nil, nil, {'EXPIRED', barrier}
end

local function walk(unit, k, a, width)
  local n = tonumber(ARGV[a])
  local walked = {n = n, first_key = k, width = width, counts = {}, released = 0, fire = 0, again = false, new = true}
  for i = 1, n do
    local barrier, ran, units = KEYS[k], KEYS[k + 1], KEYS[k + 2]
    local fired = width == 4 and KEYS[k + 3]
    local kind = ARGV[a + i]
    local releaser, wrong = false
    if fired then releaser, wrong = checked('GET', fired) end
    if wrong then return nil, wrong end
    if releaser then
      if i == 1 then walked.new = false end
      -- The unit that released the barrier repeats its walk.
      if releaser ~= unit then break end
    else
      local value, marker, counted
      value, marker, wrong = read_barrier(barrier, ran)
      if wrong then return nil, wrong end
      counted, wrong = checked('SISMEMBER', units, unit)
      if wrong then return nil, wrong end
      if marker ~= -1 or counted == 1 then
        if i == 1 then walked.new = false end
        break
      end
      local released = value <= 1
      walked.counts[#walked.counts + 1] = {
        barrier = barrier, ran = ran, units = units, fired = fired, unit = unit, value = value, released = released,
        -- The barrier of a chain counts one unit, which releases it.
        alone = kind == 'f' and released,
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

local function count_units(barrier, set, units, ttl)
  redis.call('DECRBY', barrier, #units)
  redis.call('SADD', set, unpack(units))
  if redis.call('TTL', set) < 0 then
    -- As long as the barrier, which may wait for a child with a long delay.
    redis.call('EXPIRE', set, math.max(ttl, redis.call('TTL', barrier)))
  end
end

local function count_down(count, kept, ttl)
  if count.released then
    redis.call('SETEX', count.barrier, kept, count.value - 1)
    redis.call('SETEX', count.ran, kept, 0)
    if not count.alone then redis.call('UNLINK', count.units) end
    return
  end
  count_units(count.barrier, count.units, {count.unit}, ttl)
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
