-- The list of runs whose steps must not start, which workers read: the sorted set
-- swf:cancelled holds the ids of cancelled and of paused runs by the time of that.  Each
-- score is higher than those before, also if the clock was set back: a worker reads only
-- what comes behind the last one that it knows.
--
-- cannot_list(list) -> nil, or the reply if no run can be added: {'TYPE', key}, or an error
-- next_score(list, now) -> the score of the next run
-- list_run(list, id, score, now, kept, most): adds a run.  kept: seconds for which a run
--       stays in the list; most: runs in it

-- @include _types
-- @include _rights

local function cannot_list(list)
  if not type_is(list, 'zset') then return {'TYPE', list} end
  return denied('ZADD', list, '0', '') or denied('ZREMRANGEBYSCORE', list, '0', '0')
    or denied('ZREMRANGEBYRANK', list, '0', '0') or denied('EXPIRE', list, '1')
end

local function next_score(list, now)
  local last = redis.call('ZRANGE', list, -1, -1, 'WITHSCORES')[2]
  local score = last and tonumber(last) >= tonumber(now) and string.format('%.3f', tonumber(last) + 0.001) or now
  return score
end

local function list_run(list, id, score, now, kept, most)
  redis.call('ZADD', list, score, id)
  redis.call('ZREMRANGEBYSCORE', list, '-inf', string.format('(%.3f', tonumber(now) - kept))
  redis.call('ZREMRANGEBYRANK', list, 0, -most - 1)
  redis.call('EXPIRE', list, kept)
end
