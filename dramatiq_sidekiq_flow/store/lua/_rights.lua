-- Rights of the user, asked before a job is taken out of its place: a write that is
-- refused after that would lose it.
--
-- denied(command, key, ...) -> nil if the user may send this command; else the error
--                         reply of one who may not.  Redis 6.2 cannot be asked: nil

local function denied(command, key, ...)
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, key, ...) then
    return redis.error_reply('NOPERM this user may not run ' .. command .. ' on ' .. key)
  end
end
