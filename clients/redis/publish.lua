-- Publishes to a channel and appends to its history, in one step. For workers, and used by the gateway.
--
-- KEYS[1] tg:{<channel>}:stream   KEYS[2] tg:{<channel>}:meta      ("tg:" is [engine.redis] key_prefix)
-- KEYS[3] optional: tg:{<channel>}:once:<key>; then each number is published once under this key
-- ARGV[1] the channel's name
-- ARGV[2] publications to keep (0 = none), as [route.history] size
-- ARGV[3] for how many milliseconds after the last one, as [route.history] ttl
-- with KEYS[3]: ARGV[4] a number that grows with each call, ARGV[5] milliseconds to remember it
-- then one argument for each publication, a JSON object as text
--
-- Answers {epoch, offset of the last, 1 if it had been published before}; without history {'', 0, …}.
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
  -- A day longer, so that a client that missed nothing is told so.
  redis.call('PEXPIRE', KEYS[2], string.format('%.0f', ARGV[3] + 86400000))
end
if KEYS[3] then
  local done = string.format('%.0f %s %.0f', ARGV[4], epoch, offset)
  redis.call('SET', KEYS[3], done, 'PX', ARGV[5])
end
return {epoch, offset, 0}
