-- Live sessions: what the scripts of a tenant's slot share that change any; put before each of them.
-- A session is a hash: name, trace (as its client calls it), into (the trace of its frames), eval_set, meta, source, started (µs; tells the lives of a name apart), complete, completed (µs), spans, logs,
-- and of its traces: n and open (how many), place (the last that was given), "t:<trace>" "o <place>" while it is open, "e <place>" when it ended.
-- `live` is where all lies: all (sorted set), of (what a session's key begins with), log, noted, cap (notices kept), now (µs), told (whether a notice was written).
local LIVE_TRACES = 10000
local function live_tell(live, what, session, name, trace, life, by)
  live.told = true
  if by then
    redis.call('XADD', live.log, 'MAXLEN', '~', live.cap, '*', 'live', what, 'session', session, 'name', name, 'trace', trace, 'life', life, 'by', by)
  else
    redis.call('XADD', live.log, 'MAXLEN', '~', live.cap, '*', 'live', what, 'session', session, 'name', name, 'trace', trace, 'life', life)
  end
end
-- A trace for frames that never came is noted by nothing but its session.
local function live_let_go(live, into)
  local noted = into and redis.call('HGET', live.noted, into)
  if noted and string.sub(noted, 1, 2) == '0 ' then redis.call('HDEL', live.noted, into) end
end
-- Takes a session away; its traces stay in the log. -> whether it was there
local function live_remove(live, session, by)
  local key = live.of .. session
  local is = redis.call('HMGET', key, 'name', 'into', 'trace', 'started')
  redis.call('ZREM', live.all, session)
  if not is[1] then return false end
  redis.call('UNLINK', key)
  live_let_go(live, is[2])
  live_tell(live, 'removed', session, is[1], is[2] or is[3], is[4], by)
  return true
end
-- The oldest complete sessions make room for a new one; far beyond the limit, those that are open too.
local function live_make_room(live, most)
  local over = redis.call('ZCOUNT', live.all, '-inf', '+inf') - most + 1
  if over <= 0 then return end
  for _, session in ipairs(redis.call('ZRANGE', live.all, 0, 7)) do
    if over > 0 and (redis.call('HGET', live.of .. session, 'complete') ~= '0' or over > 9 * most) then
      live_remove(live, session)
      over = over - 1
    end
  end
end
local function live_complete(live, session, trace)
  local key = live.of .. session
  local is = redis.call('HMGET', key, 'name', 'started')
  redis.call('HSET', key, 'complete', '1', 'completed', live.now)
  live_tell(live, 'complete', session, is[1], trace, is[2])
end
-- Puts a trace into a session, open. -> false: it has as many as it may have
local function live_join(live, session, trace)
  local key = live.of .. session
  if tonumber(redis.call('HGET', key, 'n') or '0') >= LIVE_TRACES then return false end
  redis.call('HSET', key, 't:' .. trace, 'o ' .. redis.call('HINCRBY', key, 'place', 1), 'complete', '0')
  redis.call('HINCRBY', key, 'n', 1)
  redis.call('HINCRBY', key, 'open', 1)
  return true
end
-- A trace ended: without an open one its session is complete.
local function live_settle(live, session, trace)
  local key = live.of .. session
  local is = redis.call('HGET', key, 't:' .. trace)
  if not is or string.sub(is, 1, 1) ~= 'o' then return end
  redis.call('HSET', key, 't:' .. trace, 'e' .. string.sub(is, 2))
  if redis.call('HINCRBY', key, 'open', -1) <= 0 then live_complete(live, session, trace) end
end
-- Something came for a trace that had ended.
local function live_reopen(live, session, trace)
  local key = live.of .. session
  local is = redis.call('HGET', key, 't:' .. trace)
  if is and string.sub(is, 1, 1) == 'e' then
    redis.call('HSET', key, 't:' .. trace, 'o' .. string.sub(is, 2), 'complete', '0')
    redis.call('HINCRBY', key, 'open', 1)
  end
end
-- A trace goes; a session that is left without one is no session any more.
local function live_leave(live, session, trace, by)
  local key = live.of .. session
  local is = redis.call('HGET', key, 't:' .. trace)
  if not is then return end
  redis.call('HDEL', key, 't:' .. trace)
  if redis.call('HINCRBY', key, 'n', -1) <= 0 then
    live_remove(live, session, by)
  elseif string.sub(is, 1, 1) == 'o' and redis.call('HINCRBY', key, 'open', -1) <= 0 and redis.call('HGET', key, 'complete') == '0' then
    live_complete(live, session, trace)
  end
end
