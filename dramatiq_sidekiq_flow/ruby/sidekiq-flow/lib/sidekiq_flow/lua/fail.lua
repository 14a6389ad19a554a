-- Moves a failed job from flight to `retry` or `dead`, or discards it.
--
-- KEYS: in-flight hash, 'retry' or 'dead', then keys of barriers and memory to keep alive
-- ARGV: receipt, action ('retry', 'dead', 'discard'), score, payload,
--       score up to which `dead` is trimmed, maximum jobs in `dead`,
--       seconds that the kept keys live from now on
-- Returns: {'DONE'} | {'GONE'} not in flight: sent twice, or recovered
--       | {'TYPE', key} nothing written

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
-- Extends lifetimes, and never shortens them.  A missing key stays missing.
--
-- prolong(key, ttl): to at least ttl seconds.  A key without an expiry gets one, since
--       all keys of a run expire
-- prolong_volatile(key, ttl, slack) -> false if the key is missing.  The same, but
--       leaves a key without an expiry unchanged, and one whose lifetime is at most
--       slack seconds shorter than ttl

local function prolong(key, ttl)
  local left = redis.call('TTL', key)
  if left ~= -2 and left < ttl then redis.call('EXPIRE', key, ttl) end
end

local function prolong_volatile(key, ttl, slack)
  local left = redis.call('TTL', key)
  if left >= 0 and left < ttl - slack then redis.call('EXPIRE', key, ttl) end
  return left ~= -2
end

if not type_is(KEYS[1], 'hash') then return {'TYPE', KEYS[1]} end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return {'GONE'} end
local action = ARGV[2]
if action ~= 'discard' then
  if not type_is(KEYS[2], 'zset') then return {'TYPE', KEYS[2]} end
  local refused = denied('ZADD', KEYS[2], '0', '')
  if refused then return refused end
end
redis.call('HDEL', KEYS[1], ARGV[1])
if action ~= 'discard' then redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4]) end
if action == 'dead' then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[5])
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -tonumber(ARGV[6]))
end
for i = 3, #KEYS do prolong(KEYS[i], tonumber(ARGV[7])) end
return {'DONE'}
