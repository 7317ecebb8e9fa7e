-- Counts in a fixed window, like `Window::hit` in window.rs. Other applications may share the counter: it is a decimal
-- number that expires with the window.
-- KEYS[1] the counter. ARGV: limit, milliseconds of a window, which starts with its first hit, how much must be left
-- (0 = it is not refused), how much is counted.
-- Returns {1, 0}, or {0, milliseconds until the window ends}. A refused hit is not counted.
local value = redis.call('GET', KEYS[1])
local count = 0
if value then
  -- A pickled or compressed value, for example. It was written by another application and is not replaced.
  if not string.match(value, '^%-?%d+$') then
    return redis.error_reply('ERR the value of a fixed window is not an integer')
  end
  count = tonumber(value)
end
local left = redis.call('PTTL', KEYS[1])
local needed, taken = tonumber(ARGV[3]), tonumber(ARGV[4])
local allowed = needed == 0 or count + needed <= tonumber(ARGV[1])
if allowed and taken == 0 then
  return {1, 0}
end
if allowed and taken == 1 then
  redis.call('INCR', KEYS[1])
elseif allowed then
  local counted = string.format('%.0f', count + taken)
  redis.call('SET', KEYS[1], counted, 'PX', left > 0 and left or ARGV[2])
  return {1, 0}
end
-- The counter is new, or another client incremented it without setting an expiry.
if left < 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  left = tonumber(ARGV[2])
end
if allowed then
  return {1, 0}
end
return {0, math.max(left, 1)}
