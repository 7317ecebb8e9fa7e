-- Reads what has come into another node's mailbox since an earlier read, and removes nothing.
-- KEYS: mailbox, taken messages.
-- ARGV: how many messages were in the mailbox up to the last one of that read, the digest of this one, the batch that was
-- taken then ('' = none), and the most messages. 0 and '' stand for no earlier read.
-- Returns {number of messages up to the last one of this read, the digest of this one, number of all messages, the batch
-- that is taken now, message, score, … of the mailbox, and of the batch}. Everything is returned again if the node has
-- taken messages since, or if a sender whose clock is behind has put one before the last one.
local count, last = tonumber(ARGV[1]), ''
if count > 0 then
  last = redis.call('ZRANGE', KEYS[1], count - 1, count - 1)[1]
  last = last and redis.sha1hex(last) or ''
  if last ~= ARGV[2] then
    count, last = 0, ''
  end
end
local waiting = redis.call('ZRANGE', KEYS[1], count, count + ARGV[4] - 1, 'WITHSCORES')
if #waiting > 0 then
  count, last = count + #waiting / 2, redis.sha1hex(waiting[#waiting - 1])
end
local batch, taken = redis.call('HGET', KEYS[2], '') or '', {}
if batch ~= ARGV[3] then
  taken = redis.call('HGETALL', KEYS[2])
end
return {count, last, redis.call('ZCARD', KEYS[1]), batch, waiting, taken}
