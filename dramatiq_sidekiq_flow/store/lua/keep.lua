-- Takes or renews the claim of the keeper, and tells what there is to do.  Safe to send
-- twice.
--
-- KEYS: 'swf:keeper', 'swf:keeper:dead', 'dead', 'swf:resting', 'swf:deadlines'
-- ARGV: identity of the process, seconds that the claim lives
-- Returns: {'OTHER'} another process is the keeper | {'KEEPER', number of members of `dead`
--       from the keeper's position on, number of runs that rest or have a deadline}

local function count(command, key, ...)
  local found = redis.pcall(command, key, ...)
  return type(found) == 'number' and found or 0
end

local holder = redis.pcall('GET', KEYS[1])
if type(holder) == 'string' and holder ~= ARGV[1] then return {'OTHER'} end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
local position = redis.pcall('GET', KEYS[2])
if type(position) ~= 'string' or not tonumber(position) then position = '-inf' end
return {'KEEPER', count('ZCOUNT', KEYS[3], position, '+inf'), count('ZCARD', KEYS[4]) + count('ZCARD', KEYS[5])}
