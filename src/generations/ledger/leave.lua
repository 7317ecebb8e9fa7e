-- Ends this node's care for generations; those of other nodes stay as they are.
-- KEYS: the generations, their facts. ARGV: node, lease; then for each: member, how, facts.
-- 'gone' = it has ended, 'dead' = it was reported as lost, and its node is to learn that until the lease
-- is over, 'left' = any other node may take it over at once, even if it was never entered.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
for i = 3, #ARGV, 3 do
  local member, how = ARGV[i], ARGV[i + 1]
  local node = string.match(redis.call('HGET', KEYS[2], member) or '', '^%S+')
  if node == ARGV[1] or how == 'left' and not node then
    if how == 'gone' then
      redis.call('ZREM', KEYS[1], member)
      redis.call('HDEL', KEYS[2], member)
    elseif how == 'dead' then
      redis.call('HSET', KEYS[2], member, '- {}')
      redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), member)
    else
      redis.call('HSET', KEYS[2], member, ARGV[1] .. ' ' .. ARGV[i + 2])
      redis.call('ZADD', KEYS[1], 0, member)
    end
  end
end
