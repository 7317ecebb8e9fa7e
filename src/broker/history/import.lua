-- Appends messages of a channel layer to the channel's history and publishes them with their positions,
-- once each, no matter how many nodes import them.
-- KEYS: stream, meta, what is known about the messages that were appended, and running generations.
-- ARGV: channel name, publications to keep, milliseconds to keep them, milliseconds to remember what was appended,
-- the origin of the numbers ('' = messages have ids), the number of the first message, then of each publication: the id
-- ('' = none), the generation that it ends ('' = none, '-' = it names no task, or '=' and the task id), and the data.
-- With ids, the third key is a sorted set of the ids that were appended. Without ids, it is a hash: all nodes count the
-- messages of a channel from the same origin, and it has this origin and the number of the last message.
-- Returns {number of publications that were appended, 1 if messages before them are missing}, or {-1, 0} if the
-- nodes now count from another origin.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local new, ends, is_broken = {}, {}, false
if ARGV[5] == '' then
  for i = 7, #ARGV, 3 do
    if redis.call('ZADD', KEYS[3], 'NX', now, ARGV[i]) == 1 then
      new[#new + 1], ends[ARGV[i + 2]] = ARGV[i + 2], ARGV[i + 1]
    end
  end
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', string.format('(%.0f', now - ARGV[4]))
else
  local known = redis.call('HMGET', KEYS[3], 'origin', 'last')
  if known[1] ~= ARGV[5] then
    return {-1, 0}
  end
  local last, first = tonumber(known[2] or 0), tonumber(ARGV[6])
  is_broken = first > last + 1
  for i = 7, #ARGV, 3 do
    local number = first + (i - 7) / 3
    if number > last then
      new[#new + 1], ends[ARGV[i + 2]] = ARGV[i + 2], ARGV[i + 1]
      redis.call('HSET', KEYS[3], 'last', string.format('%.0f', number))
    end
  end
end
redis.call('PEXPIRE', KEYS[3], ARGV[4])
if #new == 0 then
  return {0, 0}
end

local meta = redis.call('HMGET', KEYS[2], 'epoch', 'offset', 'cancelled', 'unnamed')
local epoch, offset = meta[1], tonumber(meta[2] or 0)
if not epoch then
  epoch, offset = string.format('%x%05x', clock[1], clock[2]), 0
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[2], 'epoch', epoch)
elseif is_broken then
  -- These offsets have no publications, and neither looks like the first of the epoch. The second one is published
  -- without data, to tell the nodes about the new epoch.
  epoch, offset = string.format('%x%05x', clock[1], clock[2]), offset + 2
  redis.call('HSET', KEYS[2], 'epoch', epoch)
  -- Nobody gets publications from before and after the gap as if they followed each other.
  redis.call('DEL', KEYS[1])
  redis.call('PUBLISH', ARGV[1], '@' .. epoch .. ':' .. string.format('%.0f', offset) .. ':')
end
new = without_cancelled(KEYS[2], ARGV[1], meta[3], meta[4], new)
for _, data in ipairs(new) do
  offset = offset + 1
  local number = string.format('%.0f', offset)
  if ends[data] ~= '' then
    settle(KEYS[4], string.sub(ends[data], 2), offset)
  end
  redis.call('XADD', KEYS[1], 'MAXLEN', '=', ARGV[2], number .. '-0', 'data', data)
  redis.call('PUBLISH', ARGV[1], '@' .. epoch .. ':' .. number .. ':' .. data)
end
redis.call('HSET', KEYS[2], 'offset', string.format('%.0f', offset))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
-- The position lives a day longer, so that a client that missed nothing can still resume.
redis.call('PEXPIRE', KEYS[2], string.format('%.0f', ARGV[3] + 86400000))
return {#new, is_broken and 1 or 0}
