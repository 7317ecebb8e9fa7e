-- Removes a node from the listeners of a channel's group, so that another node's copies are appended without delay.
-- KEYS: listeners of the channel, the node whose copies are appended. ARGV: this node.
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('GET', KEYS[2]) == ARGV[1] then
  redis.call('DEL', KEYS[2])
end
return 1
