-- Takes deliveries that are due, pushes them ahead, so that nobody else tries them meanwhile, and counts the attempt: one that kills whoever makes it ends too.
-- KEYS waiting, due of each endpoint ...   ARGV now_ms, what the key of a delivery begins with, then of each endpoint: until_ms, most
-- -> of each: the place of its endpoint (from 1), id, attempts with this one, kind, trace, body
local found = {}
for place = 1, #KEYS - 1 do
  local due, until_ms, most = KEYS[place + 1], ARGV[1 + 2 * place], ARGV[2 + 2 * place]
  for _, id in ipairs(redis.call('ZRANGE', due, '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, most)) do
    local of = ARGV[2] .. id
    local fields = redis.call('HMGET', of, 'kind', 'trace', 'body')
    if fields[3] then
      redis.call('ZADD', due, until_ms, id)
      local attempts = redis.call('HINCRBY', of, 'attempts', 1)
      redis.call('HSET', of, 'at', ARGV[1])
      found[#found + 1] = {place, id, attempts, fields[1], fields[2], fields[3]}
    else
      redis.call('ZREM', due, id)
      redis.call('ZREM', KEYS[1], id)
    end
  end
end
return found
