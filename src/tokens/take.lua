-- Takes a token, and says whose it is if nothing in its record keeps it from being used for this connection. Then what is
-- counted for its user can be counted in the same call. Anything unusual is left to the gateway, which reads every record
-- by itself: a record of whose fields one is named twice, or written with escapes, for example.
-- KEYS[1] the record. ARGV: the channel that is joined ('' = none), the origin that asks ('' = none), the time in Unix
-- seconds, the most bytes of a record, the name that no user has.
-- Returns {record, user}; {record, false}; false if there is none.
local record = redis.pcall('GETDEL', KEYS[1])
if not record or type(record) == 'table' then
  return record
end

local function is_named_twice(name)
  local _, found = string.find(record, '"' .. name .. '"', 1, true)
  return found and string.find(record, '"' .. name .. '"', found, true)
end

local function is_text_or_nothing(value)
  return value == nil or value == cjson.null or type(value) == 'string'
end

local function may_join(channels)
  if channels == nil or channels == cjson.null then
    return true
  end
  if type(channels) ~= 'table' then
    return false
  end
  local is_named = false
  for _, channel in ipairs(channels) do
    if type(channel) ~= 'string' then
      return false
    end
    is_named = is_named or (channel == ARGV[1] and channel ~= '')
  end
  return is_named
end

local function user_of_plain_record()
  if #record > tonumber(ARGV[4]) or string.find(record, '\\', 1, true) then
    return false
  end
  for _, name in ipairs({'user_id', 'username', 'connection_id', 'used', 'channels', 'origin', 'session_expires_at'}) do
    if is_named_twice(name) then
      return false
    end
  end
  local is_json, fields = pcall(cjson.decode, record)
  if not is_json or type(fields) ~= 'table' then
    return false
  end
  local origin, ends = fields.origin, fields.session_expires_at
  local has_origin = origin ~= nil and origin ~= cjson.null
  local has_end = ends ~= nil and ends ~= cjson.null
  if fields.used or (has_origin and (origin == '' or origin ~= ARGV[2])) then
    return false
  end
  if has_end and not (type(ends) == 'number' and ends > ARGV[3] + 1) then
    return false
  end
  if not (is_text_or_nothing(fields.username) and is_text_or_nothing(fields.connection_id)) then
    return false
  end
  if not may_join(fields.channels) then
    return false
  end
  local user = fields.user_id
  if type(user) == 'number' then
    -- The digits as they are written: a number in Lua has not all of a large integer.
    user = string.match(record, '"user_id"%s*:%s*(%d+)%s*[,}]')
    return user and user == string.format('%.0f', fields.user_id) and user
  end
  return type(user) == 'string' and user ~= '' and user ~= ARGV[5] and not string.find(user, '%c') and user
end

return {record, user_of_plain_record() or false}
