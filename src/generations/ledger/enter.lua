-- Enters generations, or renews them.
-- KEYS: the generations, scored by the end of their lease in milliseconds; their facts, each after its
-- node. ARGV: node, lease, prefix of cancel keys; then for each: member, facts, 1 where it has just begun.
-- Returns {members that another node has claimed, members whose cancellation was requested}.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local taken, cancelled = {}, {}
for i = 4, #ARGV, 3 do
  local member = ARGV[i]
  local cancel = ARGV[3] .. string.match(member, '^%S+ (.*)$')
  local node = string.match(redis.call('HGET', KEYS[2], member) or '', '^%S+')
  local ends = node and node ~= ARGV[1] and tonumber(redis.call('ZSCORE', KEYS[1], member) or 0)
  if ends and ends > now then
    taken[#taken + 1] = member
  else
    redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), member)
    redis.call('HSET', KEYS[2], member, ARGV[1] .. ' ' .. ARGV[i + 1])
    if ARGV[i + 2] == '1' then
      redis.call('DEL', cancel)
    elseif redis.call('EXISTS', cancel) == 1 then
      cancelled[#cancelled + 1] = member
    end
  end
end
return {taken, cancelled}
