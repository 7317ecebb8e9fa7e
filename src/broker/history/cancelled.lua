-- Leaves out the publications that belong to a cancelled task of the channel, so that no client gets them. `cancelled`
-- and `unnamed` are what the gateway has written into the channel's meta, if anything: tasks by their id, and the names
-- of the events without a task id that belong to the last of them.
local function without_cancelled(meta, channel, cancelled, unnamed, publications)
  if not cancelled and not unnamed then
    return publications
  end
  local clock = redis.call('TIME')
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  local tasks, rule = cancelled and cjson.decode(cancelled) or {}, unnamed and cjson.decode(unnamed)

  local function is_cancelled(data)
    local is_json, event = pcall(cjson.decode, data)
    if not is_json or type(event) ~= 'table' then
      return false
    end
    local task = event.task_id
    if type(task) == 'number' then
      -- The digits as they were written: Lua's numbers are less exact.
      for digits in string.gmatch(data, '"task_id"%s*:%s*([-+.%deE]+)') do
        if tonumber(digits) == event.task_id then
          task = digits
        end
      end
    end
    if type(task) == 'string' then
      return (tasks[task] or 0) > now
    end
    local name = event.event
    if task ~= nil and task ~= cjson.null or not rule or rule.expires <= now
      or type(name) ~= 'string' or name == 'join' or name == 'leave' then
      return false
    end
    local kind = rule.names[name]
    if kind == true or kind == cjson.null then
      -- The task has ended, or another one begins: other events do not belong to it.
      rule = nil
      redis.call('HDEL', meta, 'unnamed')
      redis.call('PUBLISH', channel, '{"event":"tidegate.task_started"}')
      return kind == true
    end
    return now < rule.all or kind == false
  end

  local left = {}
  for _, data in ipairs(publications) do
    if not is_cancelled(data) then
      left[#left + 1] = data
    end
  end
  return left
end
