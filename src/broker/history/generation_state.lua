-- Tells what the history knows about a generation.
-- KEYS: running generations, meta. ARGV: task id.
-- Returns {epoch ('' = no history), the offset after which the generation began (-1 = not known), 1 if it has ended,
-- the number of other generations that were running at some time since then, as far as it is known}.
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'offset')
local recorded = redis.call('HGET', KEYS[1], ARGV[1])
local start = string.match(recorded or '', '^(%d+) ')
local has_ended = string.find(recorded or '', '^ended ') and 1 or 0
local others, all = 0, redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local ended = tonumber(string.match(all[i + 1], '^ended (%d+) '))
  if all[i] ~= ARGV[1] and (not ended or ended == 0 or ended > tonumber(start or 0)) then
    others = others + 1
  end
end
return {meta[1] or '', tonumber(start or -1), has_ended, others}
