-- Records that a generation has ended.
-- KEYS: running generations. ARGV: task id.
-- While others run, the end is remembered for a minute: an event without a task id, which other nodes may still be about
-- to deliver, must not be taken for the end of one of those. The offset of the end is 0 if it is not known.
local offset = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^ended (%d+) ') or '0'
redis.call('HDEL', KEYS[1], ARGV[1])
local now, is_alone = tonumber(redis.call('TIME')[1]), true
local others = redis.call('HGETALL', KEYS[1])
for i = 1, #others, 2 do
  local ended_until = string.match(others[i + 1], '^ended %d+ (%d+)$')
  if not ended_until then
    is_alone = false
  elseif tonumber(ended_until) < now then
    redis.call('HDEL', KEYS[1], others[i])
  end
end
if is_alone then
  redis.call('DEL', KEYS[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], string.format('ended %s %.0f', offset, now + 60))
end
