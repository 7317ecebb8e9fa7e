-- Records that a generation starts at the current end of its channel's history, unless it is recorded as running. The
-- same task may have ended or have been cancelled before. Events without a task id may belong to it from now on.
-- KEYS: running generations, meta, what remembers the end of the task. ARGV: task id, seconds after which it no longer
-- counts as running, channel name, and the id under which the same generation was recorded before ('' = none): it starts
-- where that one did.
local meta = redis.call('HMGET', KEYS[2], 'offset', 'cancelled', 'unnamed')
local expires_at = redis.call('TIME')[1] + ARGV[2]
if string.find(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^ended ') then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
local start = meta[1] or '0'
if ARGV[4] ~= '' then
  start = string.match(redis.call('HGET', KEYS[1], ARGV[4]) or '', '^(%d+) ') or start
  redis.call('HDEL', KEYS[1], ARGV[4])
end
redis.call('HSETNX', KEYS[1], ARGV[1], start .. ' ' .. string.format('%.0f', expires_at))
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[3])
local tasks = meta[2] and cjson.decode(meta[2])
local was_cancelled = tasks and tasks[ARGV[1]]
if was_cancelled then
  tasks[ARGV[1]] = nil
  redis.call('HSET', KEYS[2], 'cancelled', cjson.encode(tasks))
end
if meta[3] then
  redis.call('HDEL', KEYS[2], 'unnamed')
end
if was_cancelled or meta[3] then
  -- For the nodes, which do not pass it on.
  local task = was_cancelled and ',"task_id":' .. cjson.encode(ARGV[1]) or ''
  redis.call('PUBLISH', ARGV[3], '{"event":"tidegate.task_started"' .. task .. '}')
end
