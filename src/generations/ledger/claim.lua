-- Claims generations that were handed over, and those whose node has not renewed their lease.
-- KEYS: the generations, their facts. ARGV: node, lease, prefix of cancel keys, most, 1 if only those that were handed
-- over are claimed.
-- Returns {member, facts, 1 if its cancellation was requested, member, …}.
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
-- What was handed over has the score 0.
local latest = ARGV[5] == '1' and 0 or now
local claimed = {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', latest, 'LIMIT', 0, ARGV[4])) do
  local node, facts = string.match(redis.call('HGET', KEYS[2], member) or '', '^(%S+) (.*)$')
  if not node or node == '-' then
    redis.call('ZREM', KEYS[1], member)
    redis.call('HDEL', KEYS[2], member)
  else
    redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), member)
    redis.call('HSET', KEYS[2], member, ARGV[1] .. ' ' .. facts)
    claimed[#claimed + 1] = member
    claimed[#claimed + 1] = facts
    local task = string.match(member, '^%S+ (.*)$') or ''
    claimed[#claimed + 1] = redis.call('EXISTS', ARGV[3] .. task)
  end
end
return claimed
