-- Moves the jobs that a dead worker left in flight.  The receipt of each shows if the
-- job had begun, which decides where it goes:
--
--   BASE:I?  not begun: back to its queue, not counted; but a job that becomes a
--            poison pill if counted once more waits for a trial again
--   BASE:I   begun: counted in swf:recovered:JID
--   BASE:I~  perhaps begun: the counter is created, but not incremented
--   BASE:I!  counted before, waits for its trial (see trial.lua): stays
--
-- A counted job whose counter is new goes back to its queue.  One whose counter
-- existed is a suspect: if it was counted too often it goes to `dead` (a poison pill),
-- else it becomes BASE:I! and waits, so that it cannot take other jobs down with it.
--
-- KEYS: swf:workers, in-flight hash, queue list, 'dead',
--       per job: swf:recovered:JID
-- ARGV: member, seconds without a beat, recoveries that make a poison pill, ttl of
--       the counters in seconds, score in `dead`,
--       per job: receipt, payload for `dead`; those to be fetched first come last
-- Returns: {'ALIVE'} nothing written | {'TYPE', key} nothing written
--       | {'DONE', number of jobs back in the queue, dead, and waiting for a trial,
--          {index of each job that is dead (1 = the first)},
--          {index of each job that stays, since `dead` is not a sorted set}};
--       the worker is deregistered if it has no jobs in flight any more

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
-- Rights of the user, asked before a job is taken out of its place: a write that is
-- refused after that would lose it.
--
-- denied(command, key, ...) -> nil if the user may send this command; else the error
--                         reply of one who may not.  Redis 6.2 cannot be asked: nil

local function denied(command, key, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return redis.error_reply('NOPERM this user may not run ' .. command .. ' on ' .. key)
  end
end

local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
local now = redis.call('TIME')
if score and tonumber(now[1]) + tonumber(now[2]) / 1e6 - tonumber(score) < tonumber(ARGV[2]) then return {'ALIVE'} end
if not type_is(KEYS[2], 'hash') then return {'TYPE', KEYS[2]} end
if not type_is(KEYS[3], 'list') then return {'TYPE', KEYS[3]} end
local can_bury = type_is(KEYS[4], 'zset')
local refused = denied('RPUSH', KEYS[3], '') or denied('HSET', KEYS[2], '', '') or denied('ZADD', KEYS[4], '0', '')
  or KEYS[5] and denied('SET', KEYS[5], '')
if refused then return refused end

local back, waiting, dead, stay = 0, 0, {}, {}
for i = 5, #KEYS do
  local receipt, corpse = ARGV[6 + 2 * (i - 5)], ARGV[7 + 2 * (i - 5)]
  local state = string.match(receipt, '[?~!]$') or ''
  local payload = state ~= '!' and redis.call('HGET', KEYS[2], receipt)
  if payload then
    local before = redis.pcall('GET', KEYS[i])
    local suspect = type(before) == 'string'
    local count = suspect and string.match(before, '^%d%d?%d?$') and tonumber(before) or 0
    if state == '' then count = count + 1 end
    if state == '?' then suspect = count >= tonumber(ARGV[3]) - 1 end
    local pill = state == '' and count >= tonumber(ARGV[3])
    if pill and not can_bury then
      stay[#stay + 1] = i - 4
    else
      redis.call('HDEL', KEYS[2], receipt)
      if state ~= '?' then redis.call('SET', KEYS[i], count, 'EX', ARGV[4]) end
      if pill then
        redis.call('ZADD', KEYS[4], ARGV[5], corpse)
        dead[#dead + 1] = i - 4
      elseif suspect then
        redis.call('HSET', KEYS[2], string.sub(receipt, 1, #receipt - #state) .. '!', payload)
        waiting = waiting + 1
      else
        redis.call('RPUSH', KEYS[3], payload)
        back = back + 1
      end
    end
  end
end
if redis.call('HLEN', KEYS[2]) == 0 then redis.call('ZREM', KEYS[1], ARGV[1]) end
return {'DONE', back, #dead, waiting, dead, stay}
