-- The lifetime of a run's memory.  It lives as long as its run: while a barrier waits,
-- as long as the barriers; at the end of the run, for its own ttl, or for the ttl that
-- extend_ttl set, if that is longer (swf:keep:MEMORY lives that long).
--
-- keep_memory(memory, memory_ttl, ttl, walked, fires): memory '' = none; memory_ttl: seconds
--                      after the run; ttl: of barriers; walked: see _walk; fires: true if a
--                      callback fires
-- is_over(walked, fires) -> true if nothing of the run is left

-- @include _slack

local function is_over(walked, fires)
  return walked.released == walked.n and not fires
end

local function keep_memory(memory, memory_ttl, ttl, walked, fires)
  if memory == '' then return end
  local left, wanted = redis.call('TTL', memory), memory_ttl
  local waits, over = walked.released < walked.n, is_over(walked, fires)
  if not over then wanted = math.max(wanted, ttl) end
  -- The lowest barrier waits for the whole run, including siblings with a delay.
  if waits then
    local lowest = KEYS[walked.first_key + walked.n - 1]
    wanted = math.max(wanted, redis.call('TTL', lowest))
  end
  if left ~= -2 and (over or left < wanted - SLACK) then
    redis.call('EXPIRE', memory, math.max(wanted, redis.call('TTL', 'swf:keep:' .. memory)))
  end
end
