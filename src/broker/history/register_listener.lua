-- Says that a node hears a channel's layer. If nobody heard it until now, what was sent meanwhile is in no
-- history: it goes on under a new epoch, so that no client takes what follows for all there was.
-- KEYS: meta, nodes that hear the channel.
-- ARGV: this node, milliseconds until it says so again at the latest, what the node knows ('' = nothing,
-- 'missed' = it did not hear everything, 'lost' = and nobody else did), then the nodes that are alive.
-- Answers {how many other nodes hear it, 1 if a new epoch began}.
local alive, others = {}, 0
for i = 4, #ARGV do
  alive[ARGV[i]] = true
end
local mine = redis.call('ZSCORE', KEYS[2], ARGV[1])
for _, node in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  if node ~= ARGV[1] then
    if alive[node] then
      others = others + 1
    else
      redis.call('ZREM', KEYS[2], node)
    end
  end
end
local clock = redis.call('TIME')
redis.call('ZADD', KEYS[2], clock[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[2])

local broken = ARGV[3] == 'lost' or others == 0 and (ARGV[3] == 'missed' or not mine)
local known = redis.call('HEXISTS', KEYS[1], 'epoch') == 1
if not broken or not known and ARGV[3] == '' then
  return {others, 0}
end
redis.call('HSET', KEYS[1], 'epoch', string.format('%x%05x', clock[1], clock[2]))
-- A place that nobody fills: to whoever had another epoch, what follows is not its first publication.
redis.call('HINCRBY', KEYS[1], 'offset', 1)
if not known then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return {others, 1}
