-- Stages a part of a fan-out, which is too large for one script.  advance.lua, start.lua,
-- count.lua or release.lua then commits the whole (see _plan).
--
-- KEYS: swf:fanout:ID, 'swf:fanouts'
-- ARGV: ttl in seconds of a list that is not committed, ID, number of
--       elements in the list before this part, elements:
--         bTTL VALUE RAN ID  a barrier
--         qNAME              the payloads after it go to this queue
--         {...               a payload
--         sSCORE {...        a payload for `schedule`
-- Returns: 1, also if the part is there already (sent twice) | 0 the list is
--       gone, or is committed (this part arrived late)

-- @include _slices

if redis.call('ZSCORE', KEYS[2], ARGV[2]) then return 0 end
local length, before, parts = redis.call('LLEN', KEYS[1]), tonumber(ARGV[3]), #ARGV - 3
if length == before + parts then return 1 end
if length ~= before then return 0 end
call_in_slices('RPUSH', KEYS[1], ARGV, 4, #ARGV)
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
