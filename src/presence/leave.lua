-- Takes members out. ARGV: most expired members to take out as well, then connection ids.
-- Answers changes.
for i = 2, #ARGV do
  leave(ARGV[i])
end
sweep(tonumber(ARGV[1]))
return changes
