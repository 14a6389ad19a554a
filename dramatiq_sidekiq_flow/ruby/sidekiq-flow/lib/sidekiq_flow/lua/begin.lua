-- Marks a job that was fetched ahead as begun: its receipt BASE:I? becomes BASE:I.
-- Only jobs that have begun are counted when their worker dies.  Safe to send twice.
--
-- KEYS: in-flight hash
-- ARGV: the receipt, with its '?'
-- Returns: 1, or 0 if the job is not in flight here: another worker has recovered
--       it, and it must not run | {'TYPE', key} nothing written

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

if not type_is(KEYS[1], 'hash') then return {'TYPE', KEYS[1]} end
local begun = string.sub(ARGV[1], 1, -2)
local payload = redis.call('HGET', KEYS[1], ARGV[1])
if not payload then return redis.call('HEXISTS', KEYS[1], begun) end
local refused = denied('HSET', KEYS[1], begun, '')
if refused then return refused end
-- Redis allows HDEL when it is out of memory, and after it also HSET.
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], begun, payload)
return 1
