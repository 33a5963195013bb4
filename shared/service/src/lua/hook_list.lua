-- Deliveries of a list, the newest first.
-- KEYS list   ARGV most, what the key of a delivery begins with, what the key of an endpoint's due times begins with
-- -> of each: id, endpoint, kind, trace, state, created, attempts, at, status, error, due
local found = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], '+inf', '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, ARGV[1])) do
  local fields = redis.call('HMGET', ARGV[2] .. id, 'endpoint', 'kind', 'trace', 'state', 'created', 'attempts', 'at', 'status', 'error')
  if fields[1] then
    local due = redis.call('ZSCORE', ARGV[3] .. fields[1], id)
    found[#found + 1] = {id, fields[1], fields[2], fields[3], fields[4], fields[5], fields[6], fields[7] or '', fields[8] or '', fields[9] or '', due or ''}
  else
    -- Its time is over.
    redis.call('ZREM', KEYS[1], id)
  end
end
return found
