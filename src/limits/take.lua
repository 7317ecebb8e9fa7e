-- Takes one token from a token bucket (GCRA), like `Gcra::take` in bucket.rs. All times are in microseconds.
-- KEYS[1] the bucket: the instant at which it will be full again. ARGV: interval, tolerance.
-- Returns {1, 0}, or {0, time until one more is allowed}.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local stored = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
local full_at = math.min(math.max(stored, now), now + tolerance)
local after = full_at + interval

local function store(instant)
  -- The default conversion to a string would lose the last digits of a number of this size.
  redis.call('SET', KEYS[1], string.format('%.0f', instant), 'PX', math.ceil((instant - now) / 1000))
end

if after - now > tolerance then
  -- The clock has jumped back or the rate has changed: the bucket fills at the current rate from now on.
  if stored > full_at then
    store(full_at)
  end
  return {0, after - now - tolerance}
end
store(after)
return {1, 0}
