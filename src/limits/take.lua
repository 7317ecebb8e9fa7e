-- Takes one from a token bucket (GCRA), as `Gcra::take` in bucket.rs does. All times in microseconds.
-- KEYS[1] the bucket: the instant at which it will be full again. ARGV: interval, tolerance.
-- Returns {1, 0}, or {0, time until one more would be allowed}.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local stored = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
local full_at = math.min(math.max(stored, now), now + tolerance)
local after = full_at + interval

local function store(instant)
  -- Formatted, because a number of this size would lose its last digits on the way to a string.
  redis.call('SET', KEYS[1], string.format('%.0f', instant), 'PX', math.ceil((instant - now) / 1000))
end

if after - now > tolerance then
  -- The clock has jumped back or the rate has changed: from now on the bucket fills at this rate.
  if stored > full_at then
    store(full_at)
  end
  return {0, after - now - tolerance}
end
store(after)
return {1, 0}
