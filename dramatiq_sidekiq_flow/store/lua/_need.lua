-- Groups that need some of their members.  The barrier of such a group has an id of version
-- 8, whose first eight digits are the number of members that may die: of all, without those
-- that are needed.  It is met when it is down to 0.  A member that ends later is *late*: it
-- is counted in BARRIER:u, which stays, and nothing follows it.
--
-- BARRIER:d is a hash of the dead members.  j<ID> is the member of a death that is counted: ID
-- is the number of a step, or the barrier of a group in it that needs some of its members,
-- and cannot get them.  The member is what is above the barrier in the callback stack: a
-- barrier, or else the number of the step.  u<MEMBER> is its number of deaths, and n the number
-- of dead members
--
-- spare_of(barrier) -> the number of members that may die; nil for any other barrier
-- any_needs(barriers) -> true if one of them is the barrier of such a group
-- barriers_in(first, last) -> the barriers among these KEYS, each before its other keys, from the
--       last one on
-- first_keys(first, n) -> n KEYS
-- is_met(barrier) -> true if the group needs no more members, or if its barrier has expired
-- count_death(dead, id, member, ttl) -> the number of dead members, after a death: dead is BARRIER:d
-- is_spared(barriers, number, ttl) -> true if a group can do without a step that is dead, which is counted
-- record_death(record, state, number, failure, barriers, ttl): as record_dead of _record, but a
--       death that a group can do without does not stop the run: it is spared.  barriers: of the
--       step, from the top; ttl: seconds that the deaths of members are kept
-- record_failure(record, state, number, failure, ttl, ran, barriers): record_death, or with ran
--       record_caught, of a step that goes to `dead`; nothing for the number ''.  For a step
--       without a number it makes the record, as known_state, and keeps it for ttl seconds
-- spare_all(record, barrier): the deaths in the members of a group that can do without them are spared
-- forget_death(dead, id) -> the number of dead members, if there is one less; else nil
-- revive(record, barriers, number): a step that had failed is done
-- revived(record, state, text, barriers, ttl) -> the state after a step is done: one that had
--       failed (see _record) is dead no more, and the other deaths of its group may be spared

-- @include _record

local function spare_of(barrier)
  if string.byte(barrier, 15) ~= 56 or #barrier ~= 36 then return end
  return tonumber(string.sub(barrier, 1, 8), 16)
end

local function any_needs(barriers)
  for _, barrier in ipairs(barriers) do
    if spare_of(barrier) then return true end
  end
  return false
end

local function barriers_in(first, last)
  local found = {}
  for i = first, last - 1 do
    if KEYS[i + 1] == KEYS[i] .. '_ran' then table.insert(found, 1, KEYS[i]) end
  end
  return found
end

local function first_keys(first, n)
  local found = {}
  for i = first, first + n - 1 do found[#found + 1] = KEYS[i] end
  return found
end

local function is_met(barrier)
  local value = redis.pcall('GET', barrier)
  return type(value) ~= 'string' or (tonumber(value) or 1) <= 0
end

local function count_death(dead, id, member, ttl)
  if redis.pcall('HEXISTS', dead, 'j' .. id) == 0 then
    redis.pcall('HSET', dead, 'j' .. id, member)
    if redis.pcall('HINCRBY', dead, 'u' .. member, 1) == 1 then redis.pcall('HINCRBY', dead, 'n', 1) end
  end
  local left, n = redis.pcall('TTL', dead), redis.pcall('HGET', dead, 'n')
  if type(left) == 'number' and left < ttl then redis.pcall('EXPIRE', dead, ttl) end
  return type(n) == 'string' and tonumber(n) or 0
end

local function is_spared(barriers, number, ttl)
  local id = number
  for i, barrier in ipairs(barriers) do
    local spare = spare_of(barrier)
    if spare then
      if is_met(barrier) then return true end
      if count_death(barrier .. ':d', id, barriers[i - 1] or number, ttl) <= spare then return true end
      -- The group is a dead member of the next one.
      id = barrier
    end
  end
  return false
end

local function record_death(record, state, number, failure, barriers, ttl)
  if not any_needs(barriers) then return record_dead(record, state, number, failure) end
  forget_spared(record, number)
  if state ~= 'cancelled' and is_spared(barriers, number, ttl) then
    redis.pcall('HSET', record .. ':failed', number, failure)
    return spare_failure(record, number)
  end
  record_dead(record, state, number, failure)
end

local function record_failure(record, state, number, failure, ttl, ran, barriers)
  local has_number = tonumber(number)
  if not has_number and number ~= '' then state = state or known_state(record, '', ttl) end
  if not state or number == '' then return end
  if ran then
    record_caught(record, number, failure, ran)
  else
    record_death(record, state, number, failure, barriers, ttl)
  end
  if not has_number then prolong_record(record, state, ttl) end
end

local function spare_all(record, barrier)
  local fields = redis.pcall('HKEYS', barrier .. ':d')
  if fields.err then return end
  for _, field in ipairs(fields) do
    local id = string.match(field, '^j(.*)$')
    if id and #id == 36 then
      spare_all(record, id)
    elseif id then
      spare_failure(record, id)
    end
  end
end

local function forget_death(dead, id)
  local member = redis.pcall('HGET', dead, 'j' .. id)
  if type(member) ~= 'string' then return end
  redis.pcall('HDEL', dead, 'j' .. id)
  if redis.pcall('HINCRBY', dead, 'u' .. member, -1) ~= 0 then return end
  redis.pcall('HDEL', dead, 'u' .. member)
  return redis.pcall('HINCRBY', dead, 'n', -1)
end

local function revive(record, barriers, number)
  local id = number
  for _, barrier in ipairs(barriers) do
    local spare = spare_of(barrier)
    if spare then
      -- Only then it was too many before, and is not now.
      if forget_death(barrier .. ':d', id) ~= spare then return end
      spare_all(record, barrier)
      id = barrier
    end
  end
end

local function revived(record, state, text, barriers, ttl)
  local number = string.match(text, '^!(%d+)') or string.match(text, '^!(jid:.+)')
  if not number or not any_needs(barriers) then return state end
  revive(record, barriers, number)
  if state ~= 'failed' or is_failed(record) then return state end
  set_state(record, state, 'running', ttl)
  return 'running'
end
