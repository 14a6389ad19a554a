-- Moves due jobs from `schedule` or `retry` to their queues.  A job that cannot be
-- read is moved to `dead`, so that it is not lost and does not block other jobs.
--
-- KEYS: 'schedule' or 'retry', 'dead', 'queues', per job: queue list
-- ARGV: score in `dead`, per job: the member, queue name ('' = to `dead`),
--       payload to push (or to bury)
-- Returns: {number of members that were moved (without those that others moved),
--       {index of each job (1 = the first) whose queue is not a list},
--       {index of each job that cannot be moved, since 'dead', 'queues' or the
--       set itself has another type}}; the jobs of both lists stay where they are

-- Checks before a script writes.
--
-- type_is(key, wanted) -> true if the key has that type, or is missing
-- checked(command, key, ...) -> the reply; nil and {'TYPE', key} if the key holds
--                         another type than the command needs
-- whole(text)          -> the number; nil if the text is not a whole number that DECR
--                         and INCRBY accept, or is too large for Lua

local function type_is(key, wanted)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == wanted
end

local function checked(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if string.find(reply.err, 'WRONGTYPE', 1, true) then return nil, {'TYPE', key} end
  -- Raised as the server words it.
  return redis.call(command, key, ...)
end

local function whole(text)
  -- The values of a chain's barrier, without a match.
  if text == '1' then return 1 end
  if text == '-1' then return -1 end
  if #text <= 15 and (string.match(text, '^%-?[1-9]%d*$') or text == '0') then return tonumber(text) end
end

local readable = type_is(KEYS[1], 'zset')
local can_bury, can_push = readable and type_is(KEYS[2], 'zset'), readable and type_is(KEYS[3], 'set')
local moved, misplaced, stuck = 0, {}, {}
for i = 4, #KEYS do
  local at = 2 + 3 * (i - 4)
  local member, queue, payload = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if queue == '' then
    if not can_bury then
      stuck[#stuck + 1] = i - 3
    elseif redis.call('ZREM', KEYS[1], member) == 1 then
      moved = moved + 1
      redis.call('ZADD', KEYS[2], ARGV[1], payload)
    end
  elseif not can_push then
    stuck[#stuck + 1] = i - 3
  elseif not type_is(KEYS[i], 'list') then
    misplaced[#misplaced + 1] = i - 3
  elseif redis.call('ZREM', KEYS[1], member) == 1 then
    moved = moved + 1
    redis.call('SADD', KEYS[3], queue)
    redis.call('LPUSH', KEYS[i], payload)
  end
end
return {moved, misplaced, stuck}
