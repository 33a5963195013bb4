-- As note.lua, for one session; what was noted of each of its traces lies in the session itself: "t:<trace>" the last event, "e:<trace>" the event with which its last run ended.
-- KEYS session, log   ARGV cap, ttl_seconds, now_ms, name, most_traces, publish, then trace, last seq and status or '' of each
redis.call('HSETNX', KEYS[1], 'name', ARGV[4])
redis.call('HSETNX', KEYS[1], 'from', ARGV[3])
redis.call('HSET', KEYS[1], 'at', ARGV[3])
local GOES_ON = {[''] = true, running = true, stalled = true}
local most = 2 * tonumber(ARGV[5]) + 4
local written, rings = 0, 0
for i = 7, #ARGV, 3 do
  local trace, last, status = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
  local known = redis.call('HGET', KEYS[1], 't:' .. trace)
  local noted = tonumber(known or '0')
  if not known and redis.call('HLEN', KEYS[1]) >= most then
    -- Without a place to note how far it was told, each notice would tell the trace anew from its beginning.
    redis.call('HINCRBY', KEYS[1], 'left_out', 1)
  else
    if last > noted then
      redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'trace', trace, 'first', string.format('%.0f', noted + 1), 'last', ARGV[i + 1])
      redis.call('HSET', KEYS[1], 't:' .. trace, ARGV[i + 1])
      noted = last
      written = written + 1
    end
    if not GOES_ON[status] and last == noted and tonumber(redis.call('HGET', KEYS[1], 'e:' .. trace) or '0') < last then
      redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'trace', trace, 'ended', status, 'last', ARGV[i + 1])
      redis.call('HSET', KEYS[1], 'e:' .. trace, ARGV[i + 1])
      rings = 1
    end
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('EXPIRE', KEYS[2], ARGV[2]) end
if written + rings > 0 then redis.pcall(ARGV[6], KEYS[2] .. ':bell', '') end
return written
