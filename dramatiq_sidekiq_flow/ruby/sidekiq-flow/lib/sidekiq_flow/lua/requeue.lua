-- Moves jobs in flight that did not run back to the end of their queue that is fetched
-- first.
--
-- KEYS: in-flight hash, queue list
-- ARGV: receipts, in the order they were fetched
-- Returns: number of jobs that were moved (without those no longer in flight); an error
--       if a key has another type: nothing was written

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
-- type_error(key, wanted) -> the error reply that names a key of another type

local function type_error(key, wanted)
  local found = redis.call('TYPE', key).ok
  return redis.error_reply('WRONGTYPE ' .. key .. ' holds a ' .. found .. ', not a ' .. wanted)
end
-- call_in_slices(command, key, values, first, last): calls a command with many
-- values, 1000 at a time.  unpack has a limit of some thousands.

local function call_in_slices(command, key, values, first, last)
  for from = first, last, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, last)))
  end
end

for i, kind in ipairs({'hash', 'list'}) do
  if not type_is(KEYS[i], kind) then return type_error(KEYS[i], kind) end
end
local receipts, payloads = {}, {}
for i = #ARGV, 1, -1 do
  local payload = redis.call('HGET', KEYS[1], ARGV[i])
  if payload then
    receipts[#receipts + 1] = ARGV[i]
    payloads[#payloads + 1] = payload
  end
end
local refused = denied('RPUSH', KEYS[2], '')
if refused then return refused end
call_in_slices('HDEL', KEYS[1], receipts, 1, #receipts)
call_in_slices('RPUSH', KEYS[2], payloads, 1, #payloads)
return #receipts
