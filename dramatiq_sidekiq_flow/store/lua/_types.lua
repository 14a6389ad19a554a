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
