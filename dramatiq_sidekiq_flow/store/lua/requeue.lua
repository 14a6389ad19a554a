-- Moves jobs in flight that did not run back to the end of their queue that is fetched
-- first.
--
-- KEYS: in-flight hash, queue list
-- ARGV: receipts, in the order they were fetched
-- Returns: number of jobs that were moved (without those no longer in flight); an error
--       if a key has another type: nothing was written

-- @include _types
-- @include _rights
-- @include _type_error
-- @include _slices

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
