-- Claims a message, or renews its claim, as `MemoryDedup::claim` does.
-- KEYS[1] the message. ARGV: the claim, and its milliseconds.
-- Returns what is there already, or nil where the claim was made or renewed.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
