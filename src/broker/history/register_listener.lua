-- Registers a node as a listener of a channel's group in the channel layer. A registered node gets every message, and
-- appends those that nobody has appended. If no node was listening until now, messages may be missing from the
-- history. It continues under a new epoch, so that no client mistakes the following publications for a complete
-- continuation.
-- KEYS: meta, listeners of the channel, numbers of the messages, stream.
-- ARGV: channel name, this node, lifetime of the registration in milliseconds, the node's state ('joining' = it starts
-- to listen, 'listening' = it is registered, 'ready' = it now has what the others have, 'missed' = it missed messages,
-- 'lost' = it missed messages that no other node has appended, 'leaving' = only look), the origin of numbers that
-- start now ('' = the layer's messages have ids), then all nodes that get messages or have left theirs where they can
-- be read.
-- Returns {'first' if no other node listens and none of this node's earlier messages count, 'epoch' if in addition a
-- new epoch was started, '' otherwise, other listeners …}. With other listeners, the node was not registered: it must
-- get from them what it does not have, and call again.
local valid, others = {}, {}
for i = 6, #ARGV do
  valid[ARGV[i]] = true
end
local clock = redis.call('TIME')
local mine = redis.call('ZSCORE', KEYS[2], ARGV[2])
local listeners, state = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES'), ARGV[4]
for i = 1, #listeners, 2 do
  local node, since = listeners[i], clock[1] - listeners[i + 1]
  if node ~= ARGV[2] then
    -- A node that has registered within 3 seconds may be newer than the caller's list. Who leaves looks again.
    if valid[node] or state ~= 'leaving' and since < 3 then
      others[#others + 1] = node
    elseif state ~= 'leaving' then
      redis.call('ZREM', KEYS[2], node)
    end
  end
end
if state == 'leaving' then
  return {'', unpack(others)}
end
local is_new = state == 'joining' or state == 'missed' or state == 'listening' and not mine
if is_new and #others > 0 then
  redis.call('ZREM', KEYS[2], ARGV[2])
  return {'', unpack(others)}
end

redis.call('ZADD', KEYS[2], clock[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
if is_new and ARGV[5] ~= '' then
  redis.call('HSET', KEYS[3], 'origin', ARGV[5], 'last', 0)
end
redis.call('PEXPIRE', KEYS[3], ARGV[3])
if not is_new and state ~= 'lost' then
  return {''}
end
local known = redis.call('HEXISTS', KEYS[1], 'epoch') == 1
if not known and (state == 'joining' or state == 'listening') then
  return {'first'}
end
local epoch = string.format('%x%05x', clock[1], clock[2])
redis.call('HSET', KEYS[1], 'epoch', epoch)
-- Nobody gets publications from before and after the gap as if they followed each other.
redis.call('DEL', KEYS[4])
-- These offsets have no publications, and neither looks like the first of the epoch. The second one is published
-- without data, to tell the nodes about the new epoch.
local offset = redis.call('HINCRBY', KEYS[1], 'offset', 2)
redis.call('PUBLISH', ARGV[1], '@' .. epoch .. ':' .. string.format('%.0f', offset) .. ':')
if not known then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return {'epoch'}
