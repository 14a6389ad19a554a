-- Finds the jobs that hold a text, the id of their run, in the next part of a list, a
-- sorted set or a hash.  Reads only.  Each call is short, so that others are served in
-- between.
--
-- A list is read from its head and a sorted set from its highest score, by position: jobs
-- that are pushed, fetched or promoted meanwhile move nothing out of the part that is
-- still to be read.
--
-- KEYS: queue, set, in-flight hash or other place of jobs
-- ARGV: text, cursor ('0' begins), maximum elements, bytes after which no further element
--       is read, elements to read at once (fewer if they are large)
-- Returns: {cursor of the next part ('' at the end), elements read, bytes read, payload,
--       label, ...}; the label of a job is its score in a sorted set, its receipt in a
--       hash, else ''
--     | {'TYPE', key} the key holds another type

local place, text, cursor = KEYS[1], ARGV[1], ARGV[2]
local most, most_bytes, at_once = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local find, call = string.find, redis.call
local read, bytes, found = 0, 0, {'', 0, 0}

local kind = call('TYPE', place).ok
if kind == 'list' or kind == 'zset' then
  local command = kind == 'list' and 'LRANGE' or 'ZREVRANGE'
  local from, more = tonumber(cursor), true
  while more and read < most and bytes < most_bytes do
    local slice = call(command, place, from + read, from + read + at_once - 1)
    for index = 1, #slice do
      local payload = slice[index]
      bytes = bytes + #payload
      if find(payload, text, 1, true) then
        found[#found + 1] = payload
        found[#found + 1] = kind == 'zset' and call('ZSCORE', place, payload) or ''
      end
    end
    read = read + #slice
    more = #slice == at_once
  end
  if more then found[1] = string.format('%d', from + read) end
elseif kind == 'hash' then
  repeat
    local reply = call('HSCAN', place, cursor, 'COUNT', at_once)
    cursor = reply[1]
    local pairs_read = reply[2]
    for index = 1, #pairs_read, 2 do
      local payload = pairs_read[index + 1]
      read, bytes = read + 1, bytes + #payload
      if find(payload, text, 1, true) then
        found[#found + 1] = payload
        found[#found + 1] = pairs_read[index]
      end
    end
  until cursor == '0' or read >= most or bytes >= most_bytes
  if cursor ~= '0' then found[1] = cursor end
elseif kind ~= 'none' then
  return {'TYPE', place}
end
found[2], found[3] = read, bytes
return found
