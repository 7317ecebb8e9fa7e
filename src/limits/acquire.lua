-- Grants one of a limited number of leases, like `MemoryLimits::acquire`. All times are in milliseconds.
-- KEYS[1] the sorted set of holders, scored by the expiry of their leases. ARGV: limit, holder, duration of a lease.
-- A holder that already has a lease gets it renewed.
-- Returns {1, 0}, or {0, time until a lease expires}.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZREM', KEYS[1], ARGV[2])
if redis.call('ZCARD', KEYS[1]) < tonumber(ARGV[1]) then
  redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[3]), ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return {1, 0}
end
local earliest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
return {0, earliest and earliest - now or 0}
