-- type_error(key, wanted) -> the error reply that names a key of another type

local function type_error(key, wanted)
  local found = redis.call('TYPE', key).ok
  return redis.error_reply('WRONGTYPE ' .. key .. ' holds a ' .. found .. ', not a ' .. wanted)
end
