-- Reads a page of a channel's history. Starts an epoch if the channel has none.
-- KEYS: stream, meta, running generations. ARGV: epoch ('' = from the start of the
-- oldest running generation, or from now if there is none), offset, maximum publications, maximum bytes,
-- lifetime of a new epoch in milliseconds.
-- Returns {epoch, current offset, offset that the publications follow (-1 = the history does not reach back that
-- far), 1 if complete, 1 if the start of a running generation is not stored any more, cancelled tasks, offset, data,
-- offset, data, …}.
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'offset', 'cancelled')
local epoch, now = meta[1], tonumber(meta[2] or 0)
local clock = redis.call('TIME')
if not epoch then
  epoch, now = string.format('%x%05x', clock[1], clock[2]), 0
  redis.call('DEL', KEYS[1], KEYS[3])
  redis.call('HSET', KEYS[2], 'epoch', epoch, 'offset', 0)
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
-- The oldest stored offset, or the next one if nothing is stored.
local oldest = first and tonumber(string.match(first[1], '^%d+')) or now + 1

local after, is_cut = nil, 0
if ARGV[1] == '' then
  after = now
  local running = redis.call('HGETALL', KEYS[3])
  for i = 1, #running, 2 do
    -- A generation that has ended is 'ended', its last offset, and when the record expires.
    local start, expires_at = string.match(running[i + 1], '^(%d+) (%d+)$')
    expires_at = expires_at or string.match(running[i + 1], '^ended %d+ (%d+)$')
    if not expires_at or tonumber(expires_at) < tonumber(clock[1]) then
      redis.call('HDEL', KEYS[3], running[i])
    elseif start and tonumber(start) < after then
      after = tonumber(start)
    end
  end
  if after < oldest - 1 then
    after, is_cut = oldest - 1, 1
  end
else
  after = tonumber(ARGV[2])
  if ARGV[1] ~= epoch or after > now or after + 1 < oldest then
    return {epoch, now, -1, 1, 0, {}}
  end
end

local cancelled, now_ms = {}, clock[1] * 1000 + math.floor(clock[2] / 1000)
for task, expires in pairs(meta[3] and cjson.decode(meta[3]) or {}) do
  if expires > now_ms then
    cancelled[#cancelled + 1] = task
  end
end
local page, last, bytes = {epoch, now, after, 1, is_cut, cancelled}, after, 0
local count, most = 0, tonumber(ARGV[3])
while last < now do
  if count >= most or bytes >= tonumber(ARGV[4]) then
    page[4] = 0
    break
  end
  local from = string.format('%.0f-0', last + 1)
  local entries = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', math.min(16, most - count))
  if #entries == 0 then
    break
  end
  for _, entry in ipairs(entries) do
    last = tonumber(string.match(entry[1], '^%d+'))
    page[#page + 1] = last
    page[#page + 1] = entry[2][2]
    bytes = bytes + #entry[2][2]
    count = count + 1
  end
end
return page
