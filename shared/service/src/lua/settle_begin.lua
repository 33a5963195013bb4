-- Takes the lease on settling a run that was seen to have ended at `through`.
-- KEYS trace   ARGV through, now_ms, lease_until_ms   -> {'go', run} | {'moved'} | {'busy'} | {'done'}
local state = redis.call('HMGET', KEYS[1], 'seq', 'dead', 'settled', 'settled_seq', 'settling', 'run')
if not state[1] or state[2] or state[1] ~= ARGV[1] then return {'moved'} end
if state[3] and state[4] == ARGV[1] then return {'done'} end
-- A lease that ends long after ours would was taken under a clock that was set back since.
local lease = tonumber(state[5] or '0')
if lease > tonumber(ARGV[2]) and lease <= tonumber(ARGV[3]) + 60000 then return {'busy'} end
redis.call('HSET', KEYS[1], 'settling', ARGV[3])
return {'go', state[6] or '0'}
