-- Appends messages of a channel layer to the channel's history and publishes them with their positions,
-- once each, no matter how many nodes import them.
-- KEYS: stream, meta, guard.
-- ARGV: channel name, publications to keep, milliseconds to keep them, lifetime of the guard in milliseconds,
-- this node, then the id ('' = none) and the data of each publication.
-- With ids, the guard is a sorted set of the ids that were appended. Without ids, it names the one node whose
-- copies are appended; another node takes its place when that node has imported nothing for the guard's lifetime.
-- Returns the number of publications that were appended.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local by_id = ARGV[6] ~= ''
if not by_id then
  local reader = redis.call('GET', KEYS[3])
  if reader and reader ~= ARGV[5] then
    return 0
  end
  redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[4])
end

local new = {}
for i = 6, #ARGV, 2 do
  if not by_id or redis.call('ZADD', KEYS[3], 'NX', now, ARGV[i]) == 1 then
    new[#new + 1] = ARGV[i + 1]
  end
end
if by_id then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', string.format('(%.0f', now - ARGV[4]))
  redis.call('PEXPIRE', KEYS[3], ARGV[4])
end
if #new == 0 then
  return 0
end

local meta = redis.call('HMGET', KEYS[2], 'epoch', 'offset', 'cancelled', 'unnamed')
local epoch, offset = meta[1], tonumber(meta[2] or 0)
if not epoch then
  epoch, offset = string.format('%x%05x', clock[1], clock[2]), 0
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[2], 'epoch', epoch)
end
new = without_cancelled(KEYS[2], ARGV[1], meta[3], meta[4], new)
for _, data in ipairs(new) do
  offset = offset + 1
  local number = string.format('%.0f', offset)
  redis.call('XADD', KEYS[1], 'MAXLEN', '=', ARGV[2], number .. '-0', 'data', data)
  redis.call('PUBLISH', ARGV[1], '@' .. epoch .. ':' .. number .. ':' .. data)
end
redis.call('HSET', KEYS[2], 'offset', string.format('%.0f', offset))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
-- The position lives a day longer, so that a client that missed nothing can still resume.
redis.call('PEXPIRE', KEYS[2], string.format('%.0f', ARGV[3] + 86400000))
return #new
