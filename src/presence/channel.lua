-- This file is prepended to all presence scripts. All times are in milliseconds, by this server's clock.
-- KEYS[1] leases: a sorted set of connection ids, scored by the expiry of their leases. KEYS[2] members: a sorted
-- set of the Member::to_text of the same connections, in byte order. KEYS[3] users: a hash of the number of
-- connections of each user ('' = anonymous).
local leases, members, users = KEYS[1], KEYS[2], KEYS[3]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- Either all three keys exist or none. If one was evicted, the others are incomplete and are deleted. The next
-- renewals add all members again.
local existing = redis.call('EXISTS', leases, members, users)
if existing ~= 0 and existing ~= 3 then
  redis.call('DEL', leases, members, users)
end

-- The changes to announce on the channel: 1 (join) or 0 (leave), member, …
local changes = {}
local function record_change(joined, events, text)
  if events == '1' then
    changes[#changes + 1] = joined
    changes[#changes + 1] = text
  end
end

-- Returns the events flag and the user of a member. As users, 7 and "7" are the same.
local function events_and_user(text)
  local events, user = string.match(text, '^%x+\n%d+\n(%d)\n([^\n]*)')
  return events, user and (string.match(user, '^"(%-?%d+)"$') or user)
end

local function enter(text, expires)
  local id = string.sub(text, 1, 32)
  if redis.call('ZADD', leases, string.format('%.0f', expires), id) == 1 then
    redis.call('ZADD', members, 0, text)
    local events, user = events_and_user(text)
    if redis.call('HINCRBY', users, user, 1) == 1 or user == '' then
      record_change(1, events, text)
    end
  end
end

local function leave(id)
  if redis.call('ZREM', leases, id) == 0 then
    return
  end
  local text = redis.call('ZRANGEBYLEX', members, '[' .. id .. '\n', '+', 'LIMIT', 0, 1)[1]
  local events, user
  if text and string.sub(text, 1, #id) == id then
    redis.call('ZREM', members, text)
    events, user = events_and_user(text)
  end
  if user then
    local connections = redis.call('HINCRBY', users, user, -1)
    if connections <= 0 then
      redis.call('HDEL', users, user)
    end
    if connections <= 0 or user == '' then
      record_change(0, events, text)
    end
  end
end

-- Removes at most `limit` members whose lease has expired. Returns whether no expired member is left.
local function sweep(limit)
  local until_now = string.format('%.0f', now)
  local expired = redis.call('ZRANGEBYSCORE', leases, '-inf', until_now, 'LIMIT', 0, limit)
  for _, id in ipairs(expired) do
    leave(id)
  end
  return #expired < limit
end
