-- Records that a node is alive, or that it has left, and returns the nodes that have been alive lately.
-- KEYS: nodes. ARGV: this node, 1 if it has left, milliseconds after which a silent node is forgotten.
-- A node that has left stays with '-' in front, so that the others do not wait for it to be forgotten.
-- Returns {node, milliseconds since it was last alive, node, …}.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local nodes, own = KEYS[1], ARGV[1]
redis.call('ZREMRANGEBYSCORE', nodes, '-inf', string.format('(%.0f', now - ARGV[3]))
if ARGV[2] == '1' then
  redis.call('ZREM', nodes, own)
  own = '-' .. own
end
redis.call('ZADD', nodes, string.format('%.0f', now), own)
redis.call('PEXPIRE', nodes, ARGV[3])
local listed = redis.call('ZRANGE', nodes, 0, 4095, 'WITHSCORES')
for i = 2, #listed, 2 do
  listed[i] = math.max(now - listed[i], 0)
end
return listed
