-- Renews the leases of members, and adds missing members. ARGV: duration of a lease, maximum number of expired
-- members to remove, then each member's text. Returns the changes.
for i = 3, #ARGV do
  enter(ARGV[i], now + ARGV[1])
end
-- Expired members are removed after the renewals, since renewals may be late.
sweep(tonumber(ARGV[2]))
for _, key in ipairs(KEYS) do
  -- The keys outlive the last lease, so that its expiry can still be reported.
  redis.call('PEXPIRE', key, 2 * ARGV[1])
end
return changes
