-- Reads the due jobs of `schedule` and `retry`, by the clock of Redis.
--
-- KEYS: the sorted sets
-- ARGV: maximum members of each, bytes after which no further member of the set
--       is read, per set: number of due members to skip
-- Returns: {now in epoch seconds, per set: {'DUE', its due members, the lowest
--       score first} | {'LATER', score of the next one, '' if there is none}
--       | {'TYPE', type}: it is not a sorted set}

-- @include _types

local now = redis.call('TIME')
now = string.format('%d.%06d', now[1], now[2])
local reply = {now}
for i, key in ipairs(KEYS) do
  if not type_is(key, 'zset') then
    reply[i + 1] = {'TYPE', redis.call('TYPE', key).ok}
  else
    local members, size, most, offset = {}, 0, tonumber(ARGV[1]), tonumber(ARGV[2 + i])
    while #members < most and size <= tonumber(ARGV[2]) do
      local wanted = math.min(10, most - #members)
      local some = redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', offset + #members, wanted)
      for _, member in ipairs(some) do
        members[#members + 1] = member
        size = size + #member
      end
      if #some < wanted then break end
    end
    if #members > 0 then
      reply[i + 1] = {'DUE', members}
    else
      local next_ = redis.call('ZRANGEBYSCORE', key, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
      reply[i + 1] = {'LATER', next_[2] or ''}
    end
  end
end
return reply
