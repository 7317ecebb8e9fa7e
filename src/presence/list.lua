-- Reads a page of the members. ARGV: maximum number of expired members to remove first, id that the page follows
-- (or ''), maximum number of members. Returns {changes} if there are more expired members, otherwise
-- {changes, connections, users, {member, connections of its user, …}}, with one extra member if more follow.
local clean = sweep(tonumber(ARGV[1]))
if not clean then
  return {changes}
end
-- '\255' sorts after any text that begins with the id.
local from = ARGV[2] == '' and '-' or '(' .. ARGV[2] .. '\255'
local page = {}
for _, text in ipairs(redis.call('ZRANGEBYLEX', members, from, '+', 'LIMIT', 0, ARGV[3] + 1)) do
  local _, user = events_and_user(text)
  page[#page + 1] = text
  page[#page + 1] = tonumber(user and redis.call('HGET', users, user) or 0)
end
local all_users = redis.call('HLEN', users) - redis.call('HEXISTS', users, '')
return {changes, redis.call('ZCARD', leases), all_users, page}
