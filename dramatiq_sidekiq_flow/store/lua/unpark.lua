-- Puts the next parked jobs of a run where they belong, in their order.  Each call moves
-- entries from the list to their places, so it may be sent twice, and by any number of
-- processes at the same time.
--
-- KEYS: record (see _record), 'queues', 'schedule', 'retry', 'swf:fanouts'
-- ARGV: maximum entries, bytes after which no further entry is read
-- Returns: {'MORE', ID of each fan-out that was committed ...} | {'DONE', the same} nothing
--       is left, or the run is paused or cancelled | {'TYPE', key} nothing written

-- @include _types
-- @include _rights
-- @include _record
-- @include _parked

local record, queues, fanouts = KEYS[1], KEYS[2], KEYS[5]
local sets = {s = KEYS[3], r = KEYS[4]}
local list, state = parked_list(record), record_state(record)
if state == 'paused' or state == 'cancelled' then return {'DONE'} end

-- Reads.
if not type_is(list, 'list') then return {'TYPE', list} end
for i, kind in ipairs({'set', 'zset', 'zset', 'zset'}) do
  if not type_is(KEYS[i + 1], kind) then return {'TYPE', KEYS[i + 1]} end
end
local refused = denied('SADD', queues, '') or denied('ZADD', sets.s, '0', '') or denied('ZADD', sets.r, '0', '')
  or denied('ZADD', fanouts, '0', '')
if refused then return refused end
local entries, bytes, most, most_bytes, known = {}, 0, tonumber(ARGV[1]), tonumber(ARGV[2]), {}
while #entries < most and bytes < most_bytes do
  local wanted = math.min(50, most - #entries)
  local found = redis.call('LRANGE', list, #entries, #entries + wanted - 1)
  for _, entry in ipairs(found) do
    local letter, name, job = split_entry(entry)
    local queue = letter == 'q' and 'queue:' .. name
    if queue and not known[queue] then
      if not type_is(queue, 'list') then return {'TYPE', queue} end
      refused = denied('LPUSH', queue, '')
      if refused then return refused end
      known[queue] = true
    end
    refused = letter == 'f' and denied('PERSIST', 'swf:fanout:' .. name)
    if refused then return refused end
    bytes = bytes + #entry
    entries[#entries + 1] = {letter = letter, name = name, job = job}
  end
  if #found < wanted then break end
end
if #entries == 0 then return {'DONE'} end

-- Writes.  Redis allows LTRIM when it is out of memory, and after it also the rest.
redis.call('LTRIM', list, #entries, -1)
local reply = {redis.call('EXISTS', list) == 1 and 'MORE' or 'DONE'}
for _, entry in ipairs(entries) do
  if entry.letter == 'q' then
    redis.call('SADD', queues, entry.name)
    redis.call('LPUSH', 'queue:' .. entry.name, entry.job)
  elseif entry.letter == 'f' then
    redis.call('PERSIST', 'swf:fanout:' .. entry.name)
    redis.call('ZADD', fanouts, redis.call('TIME')[1], entry.name)
    reply[#reply + 1] = entry.name
  else
    redis.call('ZADD', sets[entry.letter], entry.name, entry.job)
  end
end
return reply
