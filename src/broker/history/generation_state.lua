-- Tells what the history knows about a generation.
-- KEYS: running generations, meta. ARGV: task id.
-- Returns {epoch ('' = no history), the offset after which the generation began (-1 = not recorded), the number of
-- other generations that are recorded}.
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'offset')
local start = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%d+) ')
local others = redis.call('HLEN', KEYS[1])
return {meta[1] or '', tonumber(start or -1), start and others - 1 or others}
