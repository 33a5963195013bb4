-- Writes a notification down for an endpoint, once. When too many wait it is a dead letter at once.
-- KEYS delivery, due, waiting, dead   ARGV id, now_ms, ttl_seconds, most waiting, dead letters kept, what the key of a delivery begins with, fields and values ...
-- -> {'known'} | {'waits', 0} | {'full', dead letters dropped}
if redis.call('EXISTS', KEYS[1]) == 1 then return {'known'} end
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'created', ARGV[2], 'attempts', '0', 'state', 'waiting', unpack(ARGV, 7))
redis.call('EXPIRE', KEYS[1], ARGV[3])
if redis.call('ZCOUNT', KEYS[3], '-inf', '+inf') < tonumber(ARGV[4]) then
  redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1])
  redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
  return {'waits', 0}
end
redis.call('HSET', KEYS[1], 'state', 'dead', 'at', ARGV[2], 'error', 'too many notifications wait')
redis.call('ZADD', KEYS[4], ARGV[2], ARGV[1])
return {'full', hook_trim(KEYS[4], ARGV[5], ARGV[6])}
