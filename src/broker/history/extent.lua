-- Reports how far back a channel's history reaches. It does not start an epoch.
-- KEYS: stream, meta.
-- Returns {epoch ('' = none), current offset, oldest stored offset (-1 = none), number of stored publications}.
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'offset')
if not meta[1] then
  return {'', 0, -1, 0}
end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
local oldest = first and tonumber(string.match(first[1], '^%d+')) or -1
return {meta[1], tonumber(meta[2] or 0), oldest, redis.call('XLEN', KEYS[1])}
