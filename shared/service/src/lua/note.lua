-- Notices of what was appended: always from where the last one ended, so a lost one is healed by the next and a doubled one does nothing. With them the labels by which lists find a trace.
-- `noted` holds of each trace "<seq> <label> ...": up to where it was noted, and which sorted sets it stands in, so that a removal knows. A label is the end of its set's key.
-- The status belongs to a seq: the greatest wins, and of one seq the one that is decided last (running, stalled, ended). So a notice that comes late does not open what was settled.
-- A status of '=' is no status: what came says something about the trace and is no part of its run, so it opens, joins and begins nothing.
-- Before the labels stands the live session of the trace: " @", how good its name is (0-9), o (the trace is open in it), e (it ended) or w (it is of frames, and neither moved nor ended here), the session's key. So a trace that has one costs no further look.
-- KEYS log, noted, traces, due, sessions, live, forward (who else gets the tenant's traces: target and until when; the key of a target's queue begins with it)
-- ARGV cap, now_us, due_ms, by (what a label's key begins with), most labels of a trace, publish, live_of (what a live session's key begins with), most live sessions,
-- then of each trace: trace, last seq, status or '', its live session by this batch (how good the name is, key, name), eval set and metadata of that session ("<length of the first> <first><second>") or '', how many labels, the labels ('-' before one that it must not have)
-- -> how many notices were written
local RANK = {running = 1, stalled = 2}
local now, by, most = string.format('%.0f', math.floor(tonumber(ARGV[2]) / 1000)), ARGV[4], tonumber(ARGV[5])
local live = {all = KEYS[6], log = KEYS[1], noted = KEYS[2], of = ARGV[7], cap = ARGV[1], now = ARGV[2]}
-- Puts a trace into the session that a batch named, which is begun where there is none. -> false: it is full
local function enter(session, name, details, trace, i)
  local key = live.of .. session
  if redis.call('EXISTS', key) == 0 then
    live_make_room(live, tonumber(ARGV[8]))
    -- Sessions that begin in one batch keep its order.
    local started = string.format('%.0f', tonumber(live.now) + i)
    redis.call('HSET', key, 'name', name, 'trace', trace, 'source', 'otlp', 'started', started, 'complete', '0')
    local length, rest = string.match(details, '^(%d+) (.*)$')
    if length then
      if length ~= '0' then redis.call('HSET', key, 'eval_set', string.sub(rest, 1, tonumber(length))) end
      redis.call('HSET', key, 'meta', string.sub(rest, tonumber(length) + 1))
    end
    redis.call('ZADD', live.all, started, session)
    live_join(live, session, trace)
    live_tell(live, 'started', session, name, trace, started)
    return true
  end
  return live_join(live, session, trace)
end
local wanted = redis.call('HGETALL', KEYS[7])
-- What moved goes into the queue of each target, and stays where it is when it is there.
local function forward(trace)
  for at = 1, #wanted, 2 do
    if tonumber(wanted[at + 1]) > tonumber(now) then redis.call('ZADD', KEYS[7] .. ':todo:' .. wanted[at], 'NX', now, trace) end
  end
end
local written, rings, i = 0, 0, 9
while i < #ARGV do
  local trace, last, status, named, count = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 5])
  local value = redis.call('HGET', KEYS[2], trace) or '0'
  local aside = status == '='
  if aside then status = '' end
  local noted, labels = string.match(value, '^(%d+)(.*)$')
  local seq = tonumber(noted)
  local rank, state, session, others = string.match(labels, '^ @(%d)(%a)(%w+)(.*)$')
  if rank then labels = others end
  -- Armed before it was appended to, and its row taken in between by a sweep or a delete of its earlier life.
  if redis.call('ZADD', KEYS[3], 'NX', now, trace) == 1 then redis.call('ZADD', KEYS[4], 'LT', ARGV[3], trace) end
  local start
  local function put(label)
    start = start or redis.call('ZSCORE', KEYS[3], trace)
    redis.call('ZADD', by .. label, start, trace)
    labels = labels .. ' ' .. label
  end
  local function take(label)
    local from, to = string.find(labels, ' ' .. label, 1, true)
    if from then
      redis.call('ZREM', by .. label, trace)
      labels = string.sub(labels, 1, from - 1) .. string.sub(labels, to + 1)
    end
  end
  local was = string.match(labels, ' status:(%a+)')
  local moved = last > seq
  -- A session may be removed before its traces.
  if moved and not aside and state == 'e' and redis.call('HEXISTS', live.of .. session, 't:' .. trace) == 0 then rank, state, session = nil, nil, nil end
  local better = string.sub(named, 1, 1)
  if better ~= '' and not aside and state ~= 'w' and (rank and better > rank or not rank and moved) then
    local wanted, name = string.sub(named, 2, 27), string.sub(named, 28)
    if wanted == session then
      rank = better
    elseif enter(wanted, name, ARGV[i + 4], trace, i) then
      if session then live_leave(live, session, trace, name) end
      if state == 'e' and not moved then live_settle(live, wanted, trace) else state = 'o' end
      rank, session = better, wanted
    end
  end
  if moved and not aside and state == 'e' then
    live_reopen(live, session, trace)
    state = 'o'
  end
  if moved then
    if session then
      redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'trace', trace, 'first', string.format('%.0f', seq + 1), 'last', ARGV[i + 1], 'session', session)
    else
      redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'trace', trace, 'first', string.format('%.0f', seq + 1), 'last', ARGV[i + 1])
    end
    noted = ARGV[i + 1]
    written = written + 1
    forward(trace)
  end
  local stands = was
  if moved and not aside or not was or status ~= '' and last == seq and (RANK[status] or 3) > (RANK[was] or 3) then
    local is = status ~= '' and status or 'running'
    stands = is
    if is ~= was then
      if was then take('status:' .. was) end
      put('status:' .. is)
      -- What is stalled is looked at again when it would be lost; one that goes on may be silent again before that.
      if was == 'stalled' and is == 'running' then redis.call('ZADD', KEYS[4], 'LT', ARGV[3], trace) end
      -- Told once for each end: what comes late opens the status again.
      if not RANK[is] then
        redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'trace', trace, 'ended', is, 'last', noted)
        rings = 1
      end
    end
  end
  -- After the end was told: who reads on from there has seen all that the session holds. A trace that is stalled holds its session open no longer: one whose root is elsewhere never ends.
  if state == 'o' and stands ~= 'running' then
    live_settle(live, session, trace)
    state = 'e'
  end
  local known = count > 0 and select(2, string.gsub(labels, ' ', '')) or 0
  for at = i + 6, i + 5 + count do
    local label = ARGV[at]
    if string.sub(label, 1, 1) == '-' then
      take(string.sub(label, 2))
    elseif not string.find(labels, ' ' .. label, 1, true) then
      if known < most then
        put(label)
        known = known + 1
      elseif not string.find(labels, ' more', 1, true) then
        put('more')
      end
    end
    local session = string.match(label, '^session:(.+)$')
    if session then redis.call('ZADD', KEYS[5], now, session) end
  end
  local is = noted .. (rank and ' @' .. rank .. state .. session or '') .. labels
  if is ~= value then redis.call('HSET', KEYS[2], trace, is) end
  i = i + 6 + count
end
-- Whoever follows the tenant waits on the log's own channel.
if written + rings > 0 or live.told then redis.pcall(ARGV[6], KEYS[1] .. ':bell', '') end
return written
