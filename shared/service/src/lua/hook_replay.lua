-- Makes a delivery wait again, with all its attempts before it.
-- KEYS delivery, waiting, dead, delivered   ARGV id, now_ms, ttl_seconds, what the key of an endpoint's due times begins with   -> whether it is there
local endpoint = redis.call('HGET', KEYS[1], 'endpoint')
if not endpoint then
  redis.call('ZREM', KEYS[3], ARGV[1])
  return 0
end
redis.call('HSET', KEYS[1], 'state', 'waiting', 'attempts', '0')
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
redis.call('ZADD', ARGV[4] .. endpoint, ARGV[2], ARGV[1])
return 1
