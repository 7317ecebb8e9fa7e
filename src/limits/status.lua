-- Reports the status of a limit. It changes nothing.
-- KEYS[1] the bucket, the counter or the set of leases. ARGV: "bucket", "window" or "leases".
-- Returns three numbers. Bucket: microseconds until it is full. Window: the count, and milliseconds until it
-- ends. Leases: the number of live leases, milliseconds until the first and until the last of them expires.
local clock = redis.call('TIME')
if ARGV[1] == 'bucket' then
  local full_at = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
  return {math.max(full_at - (clock[1] * 1000000 + clock[2]), 0), 0, 0}
end
if ARGV[1] == 'window' then
  local value = redis.call('GET', KEYS[1])
  if value and not string.match(value, '^%-?%d+$') then
    return redis.error_reply('ERR the value of a fixed window is not an integer')
  end
  return {math.max(tonumber(value or 0), 0), math.max(redis.call('PTTL', KEYS[1]), 0), 0}
end
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local live = string.format('(%.0f', now)
local count = redis.call('ZCOUNT', KEYS[1], live, '+inf')
if count == 0 then
  return {0, 0, 0}
end
local first = redis.call('ZRANGEBYSCORE', KEYS[1], live, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
return {count, first[2] - now, last[2] - now}
