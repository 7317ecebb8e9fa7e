-- Records that a generation starts at the current end of its channel's history, unless it is recorded already. Events
-- without a task id may belong to it from now on, even if the task before it was cancelled.
-- KEYS: running generations, meta, what remembers the end of the task. ARGV: task id, seconds after which it no longer
-- counts as running, channel name, 1 if the same task may have ended before and starts again.
local meta = redis.call('HMGET', KEYS[2], 'offset', 'cancelled', 'unnamed')
local expires_at = redis.call('TIME')[1] + ARGV[2]
redis.call('HSETNX', KEYS[1], ARGV[1], (meta[1] or '0') .. ' ' .. string.format('%.0f', expires_at))
redis.call('EXPIRE', KEYS[1], ARGV[2])
if ARGV[4] == '1' then
  redis.call('DEL', KEYS[3])
end
local tasks = meta[2] and cjson.decode(meta[2])
local restarts = ARGV[4] == '1' and tasks and tasks[ARGV[1]]
if restarts then
  tasks[ARGV[1]] = nil
  redis.call('HSET', KEYS[2], 'cancelled', cjson.encode(tasks))
end
if meta[3] then
  redis.call('HDEL', KEYS[2], 'unnamed')
end
if restarts or meta[3] then
  -- For the nodes, which do not pass it on.
  local task = restarts and ',"task_id":' .. cjson.encode(ARGV[1]) or ''
  redis.call('PUBLISH', ARGV[3], '{"event":"tidegate.task_started"' .. task .. '}')
end
