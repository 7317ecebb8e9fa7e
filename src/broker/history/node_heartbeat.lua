-- Records that a node is alive, and takes groups that stopping nodes offer.
-- KEYS: last heartbeats of the nodes, the node's groups, offered channels.
-- ARGV: this node, milliseconds after which a node that is not alive is forgotten, most channels to take.
-- Returns {1 if the node was not known, {node, milliseconds since its last heartbeat, …}, {channels that were taken}}.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local is_new = redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now - ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local nodes = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 2, #nodes, 2 do
  nodes[i] = math.max(0, now - nodes[i])
end
local offered = {}
if tonumber(ARGV[3]) > 0 then
  offered = redis.call('SPOP', KEYS[3], ARGV[3])
end
return {is_new, nodes, offered}
