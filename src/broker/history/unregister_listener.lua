-- Says that a node hears a channel's layer no longer, so that another one's copies count at once.
-- KEYS: nodes that hear the channel, the node whose copies count. ARGV: this node.
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('GET', KEYS[2]) == ARGV[1] then
  redis.call('DEL', KEYS[2])
end
return 1
