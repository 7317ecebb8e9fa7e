-- Gives a channel's turn to one holder at a time, in the order of the queue for it, like `MemoryLimits::take_turn`. All times
-- are in milliseconds.
-- KEYS: the holder of the turn, scored by the end of its lease; those that wait, in their order; the ends of their
-- leases. ARGV: holder, duration of the lease of a turn, duration of the lease of a place in the queue, maximum length
-- of the queue, maximum of one client in it, the beginning of the client's holders.
-- A holder that has the turn or waits calls this again to renew its lease. Returns 'taken', 'waiting' or 'full'.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local holder = ARGV[1]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
for _, expired in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', string.format('%.0f', now))) do
  redis.call('ZREM', KEYS[2], expired)
  redis.call('ZREM', KEYS[3], expired)
end
local others = redis.call('ZCARD', KEYS[1])
if redis.call('ZSCORE', KEYS[1], holder) then
  others = others - 1
end
local first = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
if others == 0 and (not first or first == holder) then
  redis.call('ZREM', KEYS[2], holder)
  redis.call('ZREM', KEYS[3], holder)
  redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), holder)
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 'taken'
end
if not redis.call('ZSCORE', KEYS[2], holder) then
  if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[4]) then
    return 'full'
  end
  local own = 0
  for _, other in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    if string.sub(other, 1, #ARGV[6]) == ARGV[6] then
      own = own + 1
    end
  end
  if own >= tonumber(ARGV[5]) then
    return 'full'
  end
  local last = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2]
  redis.call('ZADD', KEYS[2], string.format('%.0f', (last or 0) + 1), holder)
end
redis.call('ZADD', KEYS[3], string.format('%.0f', now + ARGV[3]), holder)
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return 'waiting'
