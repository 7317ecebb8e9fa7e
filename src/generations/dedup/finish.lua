-- Puts an answer in the place of a claim, or removes the claim, as `MemoryDedup::finish` does.
-- KEYS[1] the message. ARGV: the claim; the answer and its milliseconds, or neither.
-- A claim that has expired is still finished, unless somebody else has made another one since.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
if ARGV[2] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
else
  redis.call('DEL', KEYS[1])
end
return 1
