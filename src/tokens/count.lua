-- Counts a connection token for its user, unless too many of the user wait to be used.
-- KEYS: the tokens of the user by their ends. ARGV: the token's name in the set, its lifetime in milliseconds, the most
-- that may wait.
-- Returns 0, or the milliseconds until one of them expires.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then
  local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
  return math.max((first or now) - now, 1)
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 0
