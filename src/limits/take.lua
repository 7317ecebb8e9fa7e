-- Takes one from a token bucket (GCRA), as `Gcra::take` in bucket.rs does. All times in microseconds.
-- KEYS[1] the bucket: the instant at which it will be full again. ARGV: interval, tolerance.
-- Returns {1, 0}, or {0, time until one more would be allowed}.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local full_at = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
full_at = math.min(math.max(full_at, now), now + tolerance)
local after = full_at + interval
if after - now > tolerance then
  return {0, after - now - tolerance}
end
-- Formatted, because a number of this size would lose its last digits on the way to a string.
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
return {1, 0}
