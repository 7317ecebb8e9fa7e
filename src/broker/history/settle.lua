-- Records that the terminal event at `offset` has ended a generation, so that a client that connects from now on does not
-- get it as a running one. `task` is the event's task id, or '' if it names none: then nothing is recorded unless the
-- generation is the only one that is known.
local function settle(key, task, offset)
  local recorded
  if task ~= '' then
    recorded = {task, redis.call('HGET', key, task) or ''}
  else
    recorded = redis.call('HGETALL', key)
  end
  if #recorded == 2 then
    local start, expires_at = string.match(recorded[2], '^(%d+) (%d+)$')
    if start and tonumber(start) < offset then
      redis.call('HSET', key, recorded[1], string.format('ended %.0f %s', offset, expires_at))
    end
  end
end

