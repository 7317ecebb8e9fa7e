-- Publishes the event with which the gateway ends a task, appends it to the channel's history, and records that the task
-- has ended, in one atomic step: nobody who has seen the end gets the task as a running one. If the task was cancelled,
-- every later event of it is refused.
-- KEYS: stream, meta, what remembers the end of the task, running generations.
-- ARGV: channel name, publications to keep (0 = none), milliseconds to keep them, milliseconds to remember the end, the
-- event, task id, milliseconds to refuse later events (0 = it was not cancelled), names of the events without a task id
-- that are refused as well while nothing else runs on the channel ('' = none are), and milliseconds to refuse those with
-- any name.
-- Returns {epoch, offset, 1 if the task had ended before, otherwise 0}; without history {'', 0, …}.
local done = redis.call('GET', KEYS[3])
if done then
  local epoch, offset = string.match(done, '^%d+ (%x*) (%d+)$')
  return {epoch or '', tonumber(offset or 0), 1}
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'offset', 'cancelled')
local epoch, offset, size = meta[1] or '', tonumber(meta[2] or 0), tonumber(ARGV[2])

if tonumber(ARGV[7]) > 0 then
  -- The most cancelled tasks that are remembered for one channel; beyond it, those that expire soonest are forgotten.
  local room, tasks, soonest = 64, {[ARGV[6]] = now + ARGV[7]}, {}
  for task, expires in pairs(meta[3] and cjson.decode(meta[3]) or {}) do
    if expires > now and task ~= ARGV[6] then
      soonest[#soonest + 1] = {expires, task}
    end
  end
  table.sort(soonest, function(a, b) return a[1] > b[1] end)
  for i = 1, math.min(#soonest, room - 1) do
    tasks[soonest[i][2]] = soonest[i][1]
  end
  redis.call('HSET', KEYS[2], 'cancelled', cjson.encode(tasks))
end

if ARGV[8] ~= '' then
  local is_alone, running = true, redis.call('HGETALL', KEYS[4])
  for i = 1, #running, 2 do
    local expires = string.match(running[i + 1], '^%d+ (%d+)$')
    if running[i] ~= ARGV[6] and expires and tonumber(expires) >= tonumber(clock[1]) then
      is_alone = false
    end
  end
  if is_alone then
    local rule = {expires = now + ARGV[7], all = now + ARGV[9], names = cjson.decode(ARGV[8])}
    redis.call('HSET', KEYS[2], 'unnamed', cjson.encode(rule))
    -- For the nodes, which do not pass it on. A plain PUBLISH of a worker reaches them without a script.
    redis.call('PUBLISH', ARGV[1], '{"event":"tidegate.task_cancelled","names":' .. ARGV[8] .. '}')
  end
end

if size > 0 then
  if epoch == '' then
    epoch, offset = string.format('%x%05x', clock[1], clock[2]), 0
    redis.call('DEL', KEYS[1])
  end
  offset = offset + 1
  local number = string.format('%.0f', offset)
  redis.call('XADD', KEYS[1], 'MAXLEN', '=', size, number .. '-0', 'data', ARGV[5])
  redis.call('HSET', KEYS[2], 'epoch', epoch, 'offset', number)
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('PEXPIRE', KEYS[2], string.format('%.0f', ARGV[3] + 86400000))
  settle(KEYS[4], ARGV[6], offset)
  redis.call('PUBLISH', ARGV[1], '@' .. epoch .. ':' .. number .. ':' .. ARGV[5])
else
  epoch, offset = '', 0
  if tonumber(ARGV[7]) > 0 and redis.call('PTTL', KEYS[2]) < tonumber(ARGV[7]) then
    redis.call('PEXPIRE', KEYS[2], ARGV[7])
  end
  redis.call('PUBLISH', ARGV[1], ARGV[5])
end
redis.call('SET', KEYS[3], string.format('1 %s %.0f', epoch, offset), 'PX', ARGV[4])
record_end({KEYS[4]}, {ARGV[6]})
return {epoch, offset, 0}
