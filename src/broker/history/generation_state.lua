-- Tells what the history knows about a generation.
-- KEYS: running generations, meta. ARGV: task id.
-- Returns {epoch ('' = no history), the offset after which the generation began (-1 = not known), 1 if it has ended,
-- the number of other generations that are recorded}.
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'offset')
local recorded = redis.call('HGET', KEYS[1], ARGV[1])
local start = string.match(recorded or '', '^(%d+) ')
local has_ended = string.find(recorded or '', '^ended ') and 1 or 0
local others = redis.call('HLEN', KEYS[1]) - (recorded and 1 or 0)
return {meta[1] or '', tonumber(start or -1), has_ended, others}
