-- Puts a trace from the archive in its place, unless one is there.
-- KEYS trace, events, seen, blobs, fold, then what was made: events, seen, blobs
-- ARGV replace ('1': whatever is there goes), ttl_seconds, now_ms, publish, bell, then fields and values of its state
-- -> {1} done | {0, 'there' or 'deleted', seq, mark} something lies there
local state = redis.call('HMGET', KEYS[1], 'seq', 'mark', 'dead')
if (state[1] or state[3]) and ARGV[1] ~= '1' then
  redis.call('UNLINK', KEYS[6], KEYS[7], KEYS[8])
  return {0, state[3] and 'deleted' or 'there', state[1] or '0', state[2] or '0'}
end
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5])
for i = 1, 3 do
  if redis.call('EXISTS', KEYS[5 + i]) == 1 then
    redis.call('RENAME', KEYS[5 + i], KEYS[1 + i])
    redis.call('EXPIRE', KEYS[1 + i], ARGV[2])
  end
end
redis.call('HSET', KEYS[1], 'restored', ARGV[3], 'kept_until', string.format('%.0f', ARGV[3] + ARGV[2] * 1000), unpack(ARGV, 6))
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.pcall(ARGV[4], ARGV[5], '0')
return {1}
