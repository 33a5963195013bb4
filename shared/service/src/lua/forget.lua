-- Ends a trace's life: its data goes, its name stays taken so that late spans cannot bring it back, and followers are told.
-- KEYS trace, events, seen, blobs, fold   ARGV now_ms, ttl_seconds, publish, bell, mode ('delete' | 'replace' | 'bury': delete, also when nothing is there), token
-- -> {0} nothing was there | {1, last seq}
local state = redis.call('HMGET', KEYS[1], 'seq', 'dead', 'life', 'token')
-- The caller's own repeat: its first attempt was done and the answer lost.
if state[4] == ARGV[6] then return {1, state[1] or '0'} end
if not state[1] and ARGV[5] ~= 'bury' or ARGV[5] ~= 'replace' and state[2] then return {0} end
local seq, life = state[1] or '0', string.format('%.0f', tonumber(state[3] or '0') + 1)
redis.call('UNLINK', unpack(KEYS))
-- Numbers go on above the old ones: a cursor of the old life is below the new life's base.
redis.call('HSET', KEYS[1], 'seq', seq, 'mark', '0', 'base', seq, 'life', life, 'at', ARGV[1], 'token', ARGV[6])
if ARGV[5] ~= 'replace' then redis.call('HSET', KEYS[1], 'dead', ARGV[1]) end
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.pcall(ARGV[3], ARGV[4], seq)
return {1, seq}
