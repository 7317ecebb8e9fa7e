-- Publishes to a channel and appends to its history, in one atomic step. Workers and the gateway use this script.
--
-- KEYS[1] tg:{<channel>}:stream   KEYS[2] tg:{<channel>}:meta      ("tg:" is [engine.redis] key_prefix)
-- KEYS[3] optional: tg:{<channel>}:once:<key>; each number is then published only once under this key
-- ARGV[1] the channel's name
-- ARGV[2] the number of publications to keep (0 = none), as in [route.history] size
-- ARGV[3] how long to keep them after the last one, in milliseconds, as in [route.history] ttl
-- with KEYS[3]: ARGV[4] a number that grows with each call, ARGV[5] how long to remember it, in milliseconds
-- all other arguments: one publication each, a JSON object as text
--
-- Returns {epoch, offset of the last publication, 1 if it was published before, otherwise 0}; without history
-- {'', 0, …}.
local size, data = tonumber(ARGV[2]), 4
if KEYS[3] then
  data = 6
  local done = redis.call('GET', KEYS[3])
  if done then
    local number, epoch, offset = string.match(done, '^(%d+) (%x*) (%d+)$')
    if number and tonumber(number) >= tonumber(ARGV[4]) then
      return {epoch, tonumber(offset), 1}
    end
  end
end

local epoch, offset = '', 0
if size > 0 then
  local meta = redis.call('HMGET', KEYS[2], 'epoch', 'offset')
  epoch, offset = meta[1], tonumber(meta[2] or 0)
  if not epoch then
    local clock = redis.call('TIME')
    epoch, offset = string.format('%x%05x', clock[1], clock[2]), 0
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[2], 'epoch', epoch)
  end
end
for i = data, #ARGV do
  if size > 0 then
    offset = offset + 1
    local number = string.format('%.0f', offset)
    redis.call('XADD', KEYS[1], 'MAXLEN', '=', size, number .. '-0', 'data', ARGV[i])
    redis.call('PUBLISH', ARGV[1], '@' .. epoch .. ':' .. number .. ':' .. ARGV[i])
  else
    redis.call('PUBLISH', ARGV[1], ARGV[i])
  end
end
if size > 0 then
  redis.call('HSET', KEYS[2], 'offset', string.format('%.0f', offset))
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  -- The position is kept a day longer than the publications, so that clients that missed nothing can be told so.
  redis.call('PEXPIRE', KEYS[2], string.format('%.0f', ARGV[3] + 86400000))
end
if KEYS[3] then
  local done = string.format('%.0f %s %.0f', ARGV[4], epoch, offset)
  redis.call('SET', KEYS[3], done, 'PX', ARGV[5])
end
return {epoch, offset, 0}
