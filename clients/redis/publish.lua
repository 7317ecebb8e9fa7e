-- Publishes to a channel and appends to its history, in one atomic step. Workers and the gateway use this script.
--
-- KEYS[1] tg:{<channel>}:stream   KEYS[2] tg:{<channel>}:meta      ("tg:" is [engine.redis] key_prefix)
-- KEYS[3] optional: tg:{<channel>}:once:<key>; each number is then published only once under this key
-- ARGV[1] the channel's name
-- ARGV[2] the number of publications to keep (0 = none), as in [route.history] size
-- ARGV[3] how long to keep them after the last one, in milliseconds, as in [route.history] ttl
-- with KEYS[3]: ARGV[4] a number that grows with each call, ARGV[5] how long to remember it, in milliseconds
-- KEYS[4] optional: nothing is published once this key exists
-- all other arguments: one publication each, a JSON object as text
--
-- Returns {epoch, offset of the last publication, 1 if it was published before, 2 if it belongs to a cancelled task and
-- was not published, otherwise 0}; without history {'', 0, …}. Of several publications, those of cancelled tasks are
-- left out.

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

local size, data = tonumber(ARGV[2]), 4
if KEYS[3] then
  data = 6
  local done = redis.call('GET', KEYS[3])
  if done then
    local number, epoch, offset = string.match(done, '^(%d+) (%x*) (%d+)$')
    if number and tonumber(number) >= tonumber(ARGV[4]) then
      return {epoch, tonumber(offset), 1}
    end
  end
end
if KEYS[4] and redis.call('EXISTS', KEYS[4]) == 1 then
  return {'', 0, 2}
end

local meta = redis.call('HMGET', KEYS[2], 'epoch', 'offset', 'cancelled', 'unnamed')
local publications = {}
for i = data, #ARGV do
  publications[#publications + 1] = ARGV[i]
end
publications = without_cancelled(KEYS[2], ARGV[1], meta[3], meta[4], publications)
local outcome = #publications == 0 and #ARGV >= data and 2 or 0

local epoch, offset = '', 0
if size > 0 then
  epoch, offset = meta[1] or '', tonumber(meta[2] or 0)
  if not meta[1] and outcome == 0 then
    local clock = redis.call('TIME')
    epoch, offset = string.format('%x%05x', clock[1], clock[2]), 0
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[2], 'epoch', epoch)
  end
end
for _, publication in ipairs(publications) do
  if size > 0 then
    offset = offset + 1
    local number = string.format('%.0f', offset)
    redis.call('XADD', KEYS[1], 'MAXLEN', '=', size, number .. '-0', 'data', publication)
    redis.call('PUBLISH', ARGV[1], '@' .. epoch .. ':' .. number .. ':' .. publication)
  else
    redis.call('PUBLISH', ARGV[1], publication)
  end
end
if size > 0 and outcome == 0 then
  redis.call('HSET', KEYS[2], 'offset', string.format('%.0f', offset))
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  -- The position is kept a day longer than the publications, so that clients that missed nothing can be told so.
  redis.call('PEXPIRE', KEYS[2], string.format('%.0f', ARGV[3] + 86400000))
end
if KEYS[3] then
  local done = string.format('%.0f %s %.0f', ARGV[4], epoch, offset)
  redis.call('SET', KEYS[3], done, 'PX', ARGV[5])
end
return {epoch, offset, outcome}
