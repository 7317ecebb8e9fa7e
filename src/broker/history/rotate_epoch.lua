-- Makes a history continue under a new epoch, if it ends before a publication that was already received.
-- KEYS: stream, meta, running generations. ARGV: epoch and offset of that publication.
local meta = redis.call('HMGET', KEYS[2], 'epoch', 'offset')
if meta[1] == ARGV[1] and tonumber(meta[2] or 0) < tonumber(ARGV[2]) then
  redis.call('DEL', KEYS[1], KEYS[3])
  -- The cancelled tasks stay cancelled.
  redis.call('HDEL', KEYS[2], 'epoch', 'offset')
end
