-- Puts a rewritten log in the place of the one it was made of, unless that moved meanwhile.
-- KEYS trace, events, made   ARGV seq, life, least_ttl_seconds, bytes of its blocks, bytes of new pieces   -> 1 done, 0 the trace moved, ended or began anew
local state = redis.call('HMGET', KEYS[1], 'seq', 'life', 'dead')
if state[3] or state[1] ~= ARGV[1] or (state[2] or '') ~= ARGV[2] or redis.call('EXISTS', KEYS[3]) == 0 then
  redis.call('UNLINK', KEYS[3])
  return 0
end
-- What was made has a time-out of its own, so that nobody has to clear up after who died over it.
local ttl = math.max(redis.call('TTL', KEYS[2]), tonumber(ARGV[3]))
redis.call('UNLINK', KEYS[2])
redis.call('RENAME', KEYS[3], KEYS[2])
redis.call('EXPIRE', KEYS[2], ttl)
redis.call('HSET', KEYS[1], 'compacted', ARGV[1], 'bytes', ARGV[4])
if ARGV[5] ~= '0' then redis.call('HINCRBY', KEYS[1], 'pieces', ARGV[5]) end
return 1
