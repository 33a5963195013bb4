-- Keeps a snapshot unless a newer one is there, or the trace has begun a new life.
-- KEYS trace, fold   ARGV through, snapshot, ttl_seconds, life
local state = redis.call('HMGET', KEYS[1], 'fold', 'life', 'dead', 'seq')
if state[3] or not state[4] or (state[2] or '') ~= ARGV[4] then return 0 end
if tonumber(state[1] or '0') >= tonumber(ARGV[1]) or tonumber(state[4]) < tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
redis.call('HSET', KEYS[1], 'fold', ARGV[1])
return 1
