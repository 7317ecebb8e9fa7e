-- Claims a message, as `MemoryDedup::claim` does.
-- KEYS[1] the message. ARGV: the claim, and its milliseconds.
-- Returns what is there already, or nil where the claim was made.
local held = redis.call('GET', KEYS[1])
if held then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false
