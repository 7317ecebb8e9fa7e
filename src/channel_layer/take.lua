-- Takes the oldest messages out of a mailbox. They are kept in a second key until the next call confirms them, so
-- that they are not lost with the node that takes them.
-- KEYS: mailbox, taken messages.
-- ARGV: the batch that is confirmed ('' = none), the name of the new batch, the most messages, and how long they are
-- kept, in milliseconds.
-- Returns message, score, message, score, … A batch that was not confirmed is returned again, in any order.
local pending = redis.call('HGET', KEYS[2], '')
if pending and pending ~= ARGV[1] then
  redis.call('HSET', KEYS[2], '', ARGV[2])
  local again = {}
  local fields = redis.call('HGETALL', KEYS[2])
  for i = 1, #fields, 2 do
    if fields[i] ~= '' then
      again[#again + 1] = fields[i]
      again[#again + 1] = fields[i + 1]
    end
  end
  return again
end
if pending then
  redis.call('DEL', KEYS[2])
end
local taken = redis.call('ZPOPMIN', KEYS[1], ARGV[3])
if #taken > 0 then
  redis.call('HSET', KEYS[2], '', ARGV[2], unpack(taken))
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
return taken
