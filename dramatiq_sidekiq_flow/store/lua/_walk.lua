-- The walk over a step's callback stack: which barriers the step counts down,
-- and which callback then fires.  advance.lua walks for a step on a Sidekiq queue,
-- count.lua for one on another broker, whose barriers have a fourth key.
--
-- In KEYS, from k on, per callback from the top: BARRIER, its id.  Its other keys have
--   names made of it: BARRIER_ran, BARRIER:u, and BARRIER:f (see count.lua)
-- In ARGV[a]: the kinds of the callbacks from the top, a letter each
--   'f' fires a continuation         (the walk stops there)
--   'n' has none and propagates      (count down the next one, too)
--   's' has none, does not propagate (the walk stops)
--
-- disarmed_in(record, barrier, value, marker) -> the hash of disarmed barriers, if it holds
--                            this one, which is armed for this script (see _parked); else nil
-- read_barrier(barrier) -> value and marker; or nil, nil and an error reply as of walk
-- read_any_barrier(barrier, needs) -> the same; 0 and 0 if needs, and the barrier has expired: that of a group
--                            that needs some of its members is missed by those that are late only
-- walk(unit, k, a, elsewhere, record) -> a table, or nil and an error reply: {'TYPE', key}
--                            | {'EXPIRED', BARRIER} | an error if the user may not count
--                            down.  It writes nothing.  elsewhere: true reads BARRIER:f.
--                            record: of the run, or ''.  The table has
--   n         number of callbacks
--   counts    barriers to count down, in order; all are released, but the last may wait
--   released  number of them that are released
--   fire      index of the callback that fires (1 = the top), 0 = none
--   again     set if this unit released the barrier of that callback before (elsewhere)
--   new       false if the top barrier counted this step before
--   late      set to {barrier, unit} if the unit comes after the group of that barrier, which
--             needs some of its members, was met (see _need): nothing follows
-- no_walk() -> the walk of a step that counts nothing, since its run is cancelled
-- count_units(barrier, units, ttl): counts down a barrier that waits, for units that it
--                            has not counted
-- count_down(count, kept, ttl): writes one of counts, and keeps a released barrier for
--                            kept seconds.  BARRIER:u of one that waits lives for ttl
--                            seconds, or as long as the barrier if that is longer
-- count_late(late, ttl): writes walked.late
-- prolong_waiting(walked, ttl): prolongs barriers that still wait, with all their keys,
--                            to ttl seconds
--
-- The set BARRIER:u holds the units that a barrier has counted: the jid of a
-- child, or the barrier's id of a finished inner group.  So a job that is
-- delivered twice counts once.  The barrier of a chain has no such set: it is made to
-- count one unit, which releases it, and then its marker refuses that unit.

-- @include _types
-- @include _rights
-- @include _released
-- @include _slack
-- @include _need

local function read_barrier(barrier)
  local ran = barrier .. '_ran'
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

local function disarmed_in(record, barrier, value, marker)
  if marker ~= 0 or value < 1 or record == '' then return end
  local disarmed = record .. ':disarmed'
  if redis.pcall('HEXISTS', disarmed, barrier) == 1 then return disarmed end
end

local function read_any_barrier(barrier, needs)
  local value, marker, wrong = read_barrier(barrier)
  if needs and wrong and wrong[1] == 'EXPIRED' then return 0, 0 end
  return value, marker, wrong
end

local function walk(unit, k, a, elsewhere, record)
  local kinds = ARGV[a]
  local n = #kinds
  local walked = {n = n, first_key = k, counts = {}, released = 0, fire = 0, again = false, new = true}
  for i = 1, n do
    local barrier, kind = KEYS[k + i - 1], string.sub(kinds, i, i)
    local releaser, wrong = false
    if elsewhere then releaser, wrong = checked('GET', barrier .. ':f') end
    if wrong then return nil, wrong end
    if releaser then
      if i == 1 then walked.new = false end
      -- The unit that released the barrier repeats its walk.
      if releaser ~= unit then break end
    else
      local value, marker, counted
      local needs = spare_of(barrier)
      value, marker, wrong = read_any_barrier(barrier, needs)
      if wrong then return nil, wrong end
      local released = value <= 1
      local alone = released and kind == 'f'
      if not alone then counted, wrong = checked('SISMEMBER', barrier .. ':u', unit) end
      if wrong then return nil, wrong end
      local disarmed = disarmed_in(record, barrier, value, marker)
      if disarmed then marker = -1 end
      if needs and marker ~= -1 and counted ~= 1 then
        wrong = denied('SADD', barrier .. ':u', '')
        if wrong then return nil, wrong end
        walked.late = {barrier = barrier, unit = unit}
        break
      end
      if marker ~= -1 or counted == 1 then
        if i == 1 then walked.new = false end
        break
      end
      if released then wrong = denied('SETEX', barrier, '1', '') else wrong = denied('DECRBY', barrier, '1') end
      if wrong then return nil, wrong end
      local count = {barrier = barrier, unit = unit, value = value, released = released, alone = alone}
      count.needs = needs
      count.disarmed = disarmed
      walked.counts[#walked.counts + 1] = count
      if not released then break end
      walked.released = walked.released + 1
    end
    if kind == 'f' then
      walked.fire, walked.again = i, releaser
      break
    end
    if kind == 's' then break end
    unit = barrier
  end
  return walked
end

local function no_walk()
  return {n = 0, first_key = 1, counts = {}, released = 0, fire = 0, again = false, new = true}
end

local function count_units(barrier, units, ttl)
  local set = barrier .. ':u'
  redis.call('DECRBY', barrier, #units)
  redis.call('SADD', set, unpack(units))
  if redis.call('TTL', set) < 0 then
    -- As long as the barrier, which may wait for a child with a long delay.
    redis.call('EXPIRE', set, math.max(ttl, redis.call('TTL', barrier)))
  end
end

local function count_late(late, ttl)
  local set = late.barrier .. ':u'
  redis.call('SADD', set, late.unit)
  if redis.call('TTL', set) < 0 then redis.call('EXPIRE', set, ttl) end
end

local function count_down(count, kept, ttl)
  if count.released then
    -- For members that are late.
    if count.needs then kept = math.max(tonumber(kept), redis.call('TTL', count.barrier)) end
    redis.call('SETEX', count.barrier, kept, count.value == 1 and '0' or count.value - 1)
    redis.call('SETEX', count.barrier .. '_ran', kept, '0')
    if count.disarmed then redis.pcall('HDEL', count.disarmed, count.barrier) end
    if count.needs then
      redis.call('SADD', count.barrier .. ':u', count.unit)
      redis.call('EXPIRE', count.barrier .. ':u', kept)
    elseif not count.alone then
      redis.call('UNLINK', count.barrier .. ':u')
    end
    return
  end
  count_units(count.barrier, {count.unit}, ttl)
end

local function prolong_waiting(walked, ttl)
  for i = walked.released, walked.n - 1 do
    local barrier = KEYS[walked.first_key + i]
    if redis.call('TTL', barrier) < ttl - SLACK then
      redis.call('EXPIRE', barrier, ttl)
      redis.call('EXPIRE', barrier .. '_ran', ttl)
      redis.call('EXPIRE', barrier .. ':u', ttl)
    end
  end
end
