-- Begins a session, or begins it anew: the former life's trace stays in the log, and what still comes for the name goes to the new one.
-- KEYS live, log, noted   ARGV of, cap, now_us, publish, most sessions, session, name, trace, into, '=' and the eval set or '', metadata
-- -> started (µs)
local live = {all = KEYS[1], log = KEYS[2], noted = KEYS[3], of = ARGV[1], cap = ARGV[2], now = ARGV[3]}
local session, into = ARGV[6], ARGV[9]
local key, started = live.of .. session, ARGV[3]
local was = redis.call('HMGET', key, 'started', 'into')
-- Our own repeat after a lost answer.
if was[2] == into then return was[1] end
if was[1] then
  if tonumber(was[1]) >= tonumber(started) then started = string.format('%.0f', tonumber(was[1]) + 1) end
  live_let_go(live, was[2])
  redis.call('UNLINK', key)
else
  live_make_room(live, tonumber(ARGV[5]))
end
redis.call('HSET', key, 'name', ARGV[7], 'trace', ARGV[8], 'into', into, 'source', 'websocket', 'started', started, 'complete', '0', 'meta', ARGV[11], 'n', '1', 'open', '1', 'place', '1', 't:' .. into, 'o 1')
if ARGV[10] ~= '' then redis.call('HSET', key, 'eval_set', string.sub(ARGV[10], 2)) end
redis.call('HSET', live.noted, into, '0 @9w' .. session)
redis.call('ZADD', live.all, 'NX', started, session)
live_tell(live, 'started', session, ARGV[7], into, started)
redis.pcall(ARGV[4], live.log .. ':bell', '')
return started
