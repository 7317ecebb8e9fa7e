-- Prolongs the leases of members, and lets those in that are not there. ARGV: lease, most expired members
-- to take out, then each member's text. Answers changes.
for i = 3, #ARGV do
  enter(ARGV[i], now + ARGV[1])
end
-- After the leases of those who are still there, however late.
sweep(tonumber(ARGV[2]))
for _, key in ipairs(KEYS) do
  -- Longer than the last lease, so that somebody can still find out that it expired.
  redis.call('PEXPIRE', key, 2 * ARGV[1])
end
return changes
