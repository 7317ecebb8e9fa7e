-- Releases generations of this node; those of other nodes stay as they are.
-- KEYS: the generations, their facts. ARGV: node, lease; then for each: member, how, facts.
-- 'ended' = it has ended, 'lost' = it was reported as lost, which its node can learn until the lease expires,
-- 'free' = any other node may claim it at once, even if it was never entered.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
for i = 3, #ARGV, 3 do
  local member, how = ARGV[i], ARGV[i + 1]
  local node = string.match(redis.call('HGET', KEYS[2], member) or '', '^%S+')
  if node == ARGV[1] or how == 'free' and not node then
    if how == 'ended' then
      redis.call('ZREM', KEYS[1], member)
      redis.call('HDEL', KEYS[2], member)
    elseif how == 'lost' then
      redis.call('HSET', KEYS[2], member, '- {}')
      redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), member)
    else
      redis.call('HSET', KEYS[2], member, ARGV[1] .. ' ' .. ARGV[i + 2])
      redis.call('ZADD', KEYS[1], 0, member)
    end
  end
end
