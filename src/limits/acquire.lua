-- Leases one of several places, as `MemoryLimits::acquire` does. All times in milliseconds.
-- KEYS[1] the set of leases, scored by their expiry. ARGV: places, member, lease.
-- A member that already has a lease gets it anew.
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
local soonest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
return {0, soonest and soonest - now or 0}
