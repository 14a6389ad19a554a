-- Due jobs go from `schedule` or `retry` to their queues.  What cannot be read
-- goes to `dead`: never lost, never in the way.
--
-- KEYS: 'schedule' or 'retry', 'dead', 'queues', per job: queue list
-- ARGV: score in `dead`, per job: the member, queue name ('' = to `dead`),
--       payload to push (or to bury)
-- Returns: {how many members were moved (those taken by others are not),
--       then the number of each job (1 = the first) whose queue is no list:
--       it stays where it is}

local reply = {0}
for i = 4, #KEYS do
  local at = 2 + 3 * (i - 4)
  local member, queue, payload = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local destination = queue == '' and KEYS[2] or KEYS[i]
  local found, wanted = redis.call('TYPE', destination).ok, queue == '' and 'zset' or 'list'
  if found ~= 'none' and found ~= wanted then
    reply[#reply + 1] = i - 3
  elseif redis.call('ZREM', KEYS[1], member) == 1 then
    reply[1] = reply[1] + 1
    if queue == '' then
      redis.call('ZADD', KEYS[2], ARGV[1], payload)
    else
      redis.call('SADD', KEYS[3], queue)
      redis.call('LPUSH', KEYS[i], payload)
    end
  end
end
return reply
