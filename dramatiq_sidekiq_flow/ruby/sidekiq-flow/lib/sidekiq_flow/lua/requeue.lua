-- Jobs in flight that were not run go back to the end that is taken from next.
--
-- KEYS: in-flight hash, queue list
-- ARGV: receipts, in the order they were fetched
-- Returns: how many went back (those no longer in flight do not)

for i, kind in ipairs({'hash', 'list'}) do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= kind then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' holds a ' .. found .. ', not a ' .. kind)
  end
end
local receipts, payloads = {}, {}
for i = #ARGV, 1, -1 do
  local payload = redis.call('HGET', KEYS[1], ARGV[i])
  if payload then
    receipts[#receipts + 1] = ARGV[i]
    payloads[#payloads + 1] = payload
  end
end
for first = 1, #receipts, 1000 do
  local last = math.min(first + 999, #receipts)
  redis.call('HDEL', KEYS[1], unpack(receipts, first, last))
  redis.call('RPUSH', KEYS[2], unpack(payloads, first, last))
end
return #receipts
