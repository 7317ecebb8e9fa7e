-- Records that the terminal event at `offset` has ended a generation, so that a client that connects from now on does not
-- get it as a running one. `task` is the event's task id, or '' if it names none: then nothing is recorded unless only one
-- generation is running, and none has ended since the event or at an unknown offset, which it may have ended.
local function settle(key, task, offset)
  local recorded
  if task ~= '' then
    recorded = {task, redis.call('HGET', key, task) or ''}
  else
    recorded = redis.call('HGETALL', key)
  end
  local running, start, expires_at
  for i = 1, #recorded, 2 do
    local ended = tonumber(string.match(recorded[i + 1], '^ended (%d+) '))
    if ended and (ended == 0 or ended >= offset) then
      return
    elseif not ended and running then
      return
    elseif not ended then
      running = recorded[i]
      start, expires_at = string.match(recorded[i + 1], '^(%d+) (%d+)$')
    end
  end
  if start and tonumber(start) < offset then
    redis.call('HSET', key, running, string.format('ended %.0f %s', offset, expires_at))
  end
end

