-- Removes members. ARGV: maximum number of expired members to remove as well, then connection ids.
-- Returns the changes.
for i = 2, #ARGV do
  leave(ARGV[i])
end
sweep(tonumber(ARGV[1]))
return changes
