-- Records that a generation starts at the current end of its channel's history, unless it is recorded as running.
-- KEYS: running generations, meta. ARGV: task id, seconds after which it no longer counts as running.
local offset = redis.call('HGET', KEYS[2], 'offset') or '0'
local expires_at = redis.call('TIME')[1] + ARGV[2]
if string.find(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^ended ') then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
redis.call('HSETNX', KEYS[1], ARGV[1], offset .. ' ' .. string.format('%.0f', expires_at))
redis.call('EXPIRE', KEYS[1], ARGV[2])
