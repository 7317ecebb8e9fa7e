-- Counts a connect and grants a lease of the connection, as take.lua or hit.lua and then acquire.lua do. Their sources, as
-- the functions `take`, `hit` and `acquire`, come before this one. A refused connect gets no lease.
-- KEYS: the bucket or the window, the leases. ARGV: 'bucket' or 'window', the number of its arguments, its arguments, the
-- arguments of acquire.lua.
-- Returns {1, 0, 1, 0}; {0, wait, 0, 0} if the connect is refused; {1, 0, 0, wait} if the lease is.
local count = ARGV[1] == 'bucket' and take or hit
local length = tonumber(ARGV[2])
local connect = count({KEYS[1]}, {unpack(ARGV, 3, 2 + length)})
if connect.err then
  return connect
end
if connect[1] == 0 then
  return {0, connect[2], 0, 0}
end
local lease = acquire({KEYS[2]}, {unpack(ARGV, 3 + length)})
return {1, 0, lease[1], lease[2]}
