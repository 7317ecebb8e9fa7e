-- Renews the leases of members, and adds those that are not there. ARGV: lease, most expired members to
-- remove, then each member's text. Returns the changes.
for i = 3, #ARGV do
  enter(ARGV[i], now + ARGV[1])
end
-- After the renewals, which may be late.
sweep(tonumber(ARGV[2]))
for _, key in ipairs(KEYS) do
  -- Longer than the last lease, so that its expiry can still be noticed.
  redis.call('PEXPIRE', key, 2 * ARGV[1])
end
return changes
