-- Records that a terminal event has ended a generation, so that a client that connects from now on does not get it as a
-- running one. Every node that delivers the event calls this.
-- KEYS: running generations. ARGV: task id, or '' if the event names none; the event's offset.
-- Without a task id, nothing is recorded unless the generation is the only one that is known.
local recorded
if ARGV[1] ~= '' then
  recorded = {ARGV[1], redis.call('HGET', KEYS[1], ARGV[1]) or ''}
else
  recorded = redis.call('HGETALL', KEYS[1])
end
if #recorded == 2 then
  local start, expires_at = string.match(recorded[2], '^(%d+) (%d+)$')
  if start and tonumber(start) < tonumber(ARGV[2]) then
    redis.call('HSET', KEYS[1], recorded[1], 'ended ' .. ARGV[2] .. ' ' .. expires_at)
  end
end
