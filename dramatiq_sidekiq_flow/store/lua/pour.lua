-- Pushes the next part of a committed fan-out: its barriers first, then its jobs in
-- order.  Each call moves elements from the list to their keys and queues, so it may be
-- sent twice, and by any number of processes at the same time.
--
-- Elements of the list, which advance.lua, start.lua, count.lua or release.lua committed:
--         bTTL VALUE RAN ID  a barrier
--         qNAME              the payloads after it go to this queue
--         {...               a payload
--         sSCORE {...        a payload for `schedule`
--
-- KEYS: 'swf:fanouts', swf:fanout:ID, 'queues', 'schedule'
-- ARGV: ID, maximum elements (2 or more), bytes after which no further element is read
-- Returns: {'MORE'} | {'DONE'} nothing is left, or the fan-out is not committed
--       | {'TYPE', key} nothing written

-- @include _types
-- @include _slices

local fanouts, list, QUEUES, SCHEDULE = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
if not type_is(fanouts, 'zset') then return {'TYPE', fanouts} end
if not redis.call('ZSCORE', fanouts, ARGV[1]) then return {'DONE'} end
if not type_is(list, 'list') then return {'TYPE', list} end

-- Reads.  A part is the name of a queue, and payloads for it.
local barriers, parts, scheduled, part = {}, {}, {}, nil
local read, bytes, most, most_bytes = 0, 0, tonumber(ARGV[2]), tonumber(ARGV[3])
while read < most and bytes < most_bytes do
  -- As many as fit if they have the average size of those before; the first one alone,
  -- since it may be large.
  local fit = read > 0 and math.floor((most_bytes - bytes) * read / bytes) or 1
  local wanted = math.max(1, math.min(100, fit, most - read))
  local elements = redis.call('LRANGE', list, read, read + wanted - 1)
  for _, element in ipairs(elements) do
    local kind = string.byte(element)
    bytes = bytes + #element
    if kind == 123 then -- {
      part.payloads[#part.payloads + 1] = element
    elseif kind == 113 then -- q
      part = {name = string.sub(element, 2), payloads = {}}
      parts[#parts + 1] = part
      if not type_is('queue:' .. part.name, 'list') then return {'TYPE', 'queue:' .. part.name} end
    elseif kind == 115 then -- s
      local score, payload = string.match(element, '^s(%S+) (.*)$')
      scheduled[#scheduled + 1] = score
      scheduled[#scheduled + 1] = payload
    else
      local ttl, value, ran, id = string.match(element, '^b(%S+) (%S+) (%S+) (.*)$')
      barriers[#barriers + 1] = {id = id, ttl = ttl, value = value, ran = ran}
    end
  end
  read = read + #elements
  if #elements < wanted then break end
end
if part and not type_is(QUEUES, 'set') then return {'TYPE', QUEUES} end
if #scheduled > 0 and not type_is(SCHEDULE, 'zset') then return {'TYPE', SCHEDULE} end

-- Writes.  Redis allows LTRIM when it is out of memory, and after it also the rest.
redis.call('LTRIM', list, read, -1)
for _, barrier in ipairs(barriers) do
  redis.call('SETEX', barrier.id, barrier.ttl, barrier.value)
  redis.call('SETEX', barrier.id .. '_ran', barrier.ttl, barrier.ran)
end
for _, pushed in ipairs(parts) do
  redis.call('SADD', QUEUES, pushed.name)
  call_in_slices('LPUSH', 'queue:' .. pushed.name, pushed.payloads, 1, #pushed.payloads)
end
call_in_slices('ZADD', SCHEDULE, scheduled, 1, #scheduled)
if redis.call('EXISTS', list) == 1 then
  -- The rest belongs to the queue that was named last.
  if part then redis.call('LPUSH', list, 'q' .. part.name) end
  return {'MORE'}
end
redis.call('ZREM', fanouts, ARGV[1])
return {'DONE'}
