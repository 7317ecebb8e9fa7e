-- Stores the record of a connection token, unless its user has too many that wait to be used.
-- KEYS: the token, the tokens of its user by their ends. ARGV: record, lifetime in milliseconds, the token's name in the
-- set, the most that may wait.
-- Returns 0, or the milliseconds until one of them expires.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now))
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[4]) then
  local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
  return math.max((first or now) - now, 1)
end
redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[2]), ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 0
