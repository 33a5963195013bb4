-- Writes down what became of an attempt. One that was overtaken by a later attempt counts only when it was taken.
-- KEYS delivery, due, waiting, dead, delivered
-- ARGV id, attempt, state (waiting, dead, delivered), now_ms, next_ms, status, error, dead letters kept, delivered ones kept, what the key of a delivery begins with
-- -> {1 was written, dead letters dropped}
local attempts = redis.call('HGET', KEYS[1], 'attempts')
local state = ARGV[3]
if not attempts or attempts ~= ARGV[2] and state ~= 'delivered' then return {0, 0} end
redis.call('HSET', KEYS[1], 'state', state, 'at', ARGV[4], 'status', ARGV[6], 'error', ARGV[7])
if state == 'waiting' then
  redis.call('ZADD', KEYS[2], ARGV[5], ARGV[1])
  return {1, 0}
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
if state == 'dead' then
  redis.call('ZADD', KEYS[4], ARGV[4], ARGV[1])
  return {1, hook_trim(KEYS[4], ARGV[8], ARGV[10])}
end
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('ZADD', KEYS[5], ARGV[4], ARGV[1])
hook_trim(KEYS[5], ARGV[9], ARGV[10])
return {1, 0}
