-- Registers a node as a listener of a channel's group in the channel layer. If no node was listening
-- until now, messages may be missing from the history. It continues under a new epoch, so that no client mistakes
-- the following publications for a complete continuation.
-- KEYS: meta, listeners of the channel.
-- ARGV: this node, lifetime of the registration in milliseconds, the node's state ('' = unbroken, 'missed' = it
-- missed messages, 'lost' = it missed messages that no other node has appended), then all nodes that are alive.
-- Returns {number of other listening nodes, 1 if a new epoch was started}.
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
-- This offset has no publication, so that the next one does not look like the first of the epoch.
redis.call('HINCRBY', KEYS[1], 'offset', 1)
if not known then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return {others, 1}
