-- Notices of what was appended: always from where the last one ended, so a lost one is healed by the next and a doubled one does nothing. With them the labels by which lists find a trace.
-- `noted` holds of each trace "<seq> <label> ...": up to where it was noted, and which sorted sets it stands in, so that a removal knows. A label is the end of its set's key.
-- The status belongs to a seq: the greatest wins, and of one seq the one that is decided last (running, stalled, ended). So a notice that comes late does not open what was settled.
-- KEYS log, noted, traces, due, sessions
-- ARGV cap, now_ms, due_ms, by (what a label's key begins with), most labels of a trace, publish, then of each trace: trace, last seq, status or '', how many labels, the labels ('-' before one that it must not have)
-- -> how many notices were written
local RANK = {running = 1, stalled = 2}
local now, by, most = ARGV[2], ARGV[4], tonumber(ARGV[5])
local written, rings, i = 0, 0, 7
while i < #ARGV do
  local trace, last, status, count = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], tonumber(ARGV[i + 3])
  local value = redis.call('HGET', KEYS[2], trace) or '0'
  local noted, labels = string.match(value, '^(%d+)(.*)$')
  local seq = tonumber(noted)
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
  if moved then
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'trace', trace, 'first', string.format('%.0f', seq + 1), 'last', ARGV[i + 1])
    noted = ARGV[i + 1]
    written = written + 1
  end
  if moved or not was or status ~= '' and last == seq and (RANK[status] or 3) > (RANK[was] or 3) then
    local is = status ~= '' and status or 'running'
    if is ~= was then
      if was then take('status:' .. was) end
      put('status:' .. is)
      -- Told once for each end: what comes late opens the status again.
      if not RANK[is] then
        redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'trace', trace, 'ended', is, 'last', noted)
        rings = 1
      end
    end
  end
  local known = count > 0 and select(2, string.gsub(labels, ' ', '')) or 0
  for at = i + 4, i + 3 + count do
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
  local is = noted .. labels
  if is ~= value then redis.call('HSET', KEYS[2], trace, is) end
  i = i + 4 + count
end
-- Whoever follows the tenant waits on the log's own channel.
if written + rings > 0 then redis.pcall(ARGV[6], KEYS[1] .. ':bell', '') end
return written
