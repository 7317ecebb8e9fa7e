-- Records that a generation begins at the present end of its channel's history, if it is not recorded yet.
-- KEYS: running generations, meta. ARGV: task id, seconds after which it no longer counts as running.
local offset = redis.call('HGET', KEYS[2], 'offset') or '0'
local ends = redis.call('TIME')[1] + ARGV[2]
redis.call('HSETNX', KEYS[1], ARGV[1], offset .. ' ' .. string.format('%.0f', ends))
redis.call('EXPIRE', KEYS[1], ARGV[2])
