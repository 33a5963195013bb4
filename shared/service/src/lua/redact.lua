-- Puts a redacted log and its pieces in the place of those that it was made of, unless the trace moved meanwhile; what was folded of it goes.
-- A new life keeps everybody from what was read of the old one; numbers and marks stay, so every cursor goes on.
-- KEYS trace, events, seen, blobs, fold, then what was made: events, blobs
-- ARGV seq, life, least_ttl_seconds, publish, bell, bytes of its blocks, bytes of its pieces, then pairs of identities: the former one, and what it is now   -> 1 done, 0 the trace moved, ended or began anew
local state = redis.call('HMGET', KEYS[1], 'seq', 'life', 'dead')
if state[3] or state[1] ~= ARGV[1] or (state[2] or '') ~= ARGV[2] or redis.call('EXISTS', KEYS[6]) == 0 then
  redis.call('UNLINK', KEYS[6], KEYS[7])
  return 0
end
local ttl = math.max(redis.call('TTL', KEYS[2]), tonumber(ARGV[3]))
redis.call('UNLINK', KEYS[2], KEYS[4], KEYS[5])
redis.call('RENAME', KEYS[6], KEYS[2])
redis.call('EXPIRE', KEYS[2], ttl)
if redis.call('EXISTS', KEYS[7]) == 1 then
  redis.call('RENAME', KEYS[7], KEYS[4])
  redis.call('EXPIRE', KEYS[4], ttl)
end
for i = 8, #ARGV, 2 do
  if redis.call('SREM', KEYS[3], ARGV[i]) == 1 then redis.call('SADD', KEYS[3], ARGV[i + 1]) end
end
redis.call('HDEL', KEYS[1], 'fold')
redis.call('HSET', KEYS[1], 'compacted', ARGV[1], 'life', string.format('%.0f', tonumber(state[2] or '0') + 1), 'bytes', ARGV[6], 'pieces', ARGV[7])
redis.pcall(ARGV[4], ARGV[5], ARGV[1])
return 1
