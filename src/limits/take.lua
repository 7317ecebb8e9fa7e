-- Takes tokens from a token bucket (GCRA), like `Gcra::take` in bucket.rs. All times are in microseconds.
-- KEYS[1] the bucket: the instant at which it will be full again. ARGV: interval, tolerance, how many tokens must be
-- left (0 = it is not refused), how many are taken, 1 if more can be taken than are left.
-- Returns {1, 0}, or {0, time until it is allowed}.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local needed, taken = tonumber(ARGV[3]), tonumber(ARGV[4])
local last = now + tolerance * (1 + ARGV[5])
local stored = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
local full_at = math.min(math.max(stored, now), last)

local function store(instant)
  -- The default conversion to a string would lose the last digits of a number of this size.
  redis.call('SET', KEYS[1], string.format('%.0f', instant), 'PX', math.ceil((instant - now) / 1000))
end

local wait = full_at + needed * interval - now - tolerance
if needed > 0 and wait > 0 then
  -- The clock has jumped back or the rate has changed: the bucket fills at the current rate from now on.
  if stored > full_at then
    store(full_at)
  end
  return {0, wait}
end
if taken > 0 then
  store(math.min(full_at + taken * interval, last))
end
return {1, 0}
