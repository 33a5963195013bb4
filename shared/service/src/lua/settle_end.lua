-- Writes down that a run ended, and rings. What was appended meanwhile makes it a run that has not.
-- KEYS trace   ARGV through, status, now_ms, publish, bell
local state = redis.call('HMGET', KEYS[1], 'seq', 'dead')
if state[2] or state[1] ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'settled', ARGV[2], 'settled_seq', ARGV[1], 'settled_at', ARGV[3], 'armed', '0')
redis.call('HDEL', KEYS[1], 'settling', 'term')
redis.pcall(ARGV[4], ARGV[5], ARGV[1])
return 1
