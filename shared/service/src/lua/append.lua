-- Appends one chunk to a trace: all of it, or nothing and why.
-- KEYS events, trace, seen, blobs
-- ARGV now_ms, mark, count, block, ttl_seconds, may_create, may_end ('-': an aside), publish, bell, spans, identities, pieces, level (0-3: how much is recorded), most spans of the trace (0: any number), then the identities, then id and bytes of each piece
-- -> {'stored', first, last, bytes of the trace} | {'known', seq, mark, 0|1 ...} | {'unarmed', 0|1 was settled} | {'deleted'} | {'lower', level} | {'spans', seq, mark, how many more it may have}
local state = redis.call('HMGET', KEYS[2], 'seq', 'mark', 'dead', 'armed', 'settled', 'kept_until', 'reopened', 'base', 'level', 'settled_seq', 'spans', 'pieces')
-- An aside says something about a trace and is no part of its run: it begins none, ends none, and leaves an ended one ended.
local aside = ARGV[7] == '-'
if state[3] or aside and (not state[1] or state[1] == state[8]) then return {'deleted'} end
-- What was asked of one batch holds for all that follow, whoever sends them.
if state[9] and tonumber(ARGV[13]) > tonumber(state[9]) then return {'lower', state[9]} end
-- A trace that is new, or was settled, needs its index row and deadline first.
if state[4] ~= '1' and ARGV[6] ~= '1' and not aside then return {'unarmed', state[5] and 1 or 0} end

local now, count = tonumber(ARGV[1]), tonumber(ARGV[3])
local identities, pieces = tonumber(ARGV[11]), tonumber(ARGV[12])
local ids = {}
for i = 1, identities do ids[i] = ARGV[14 + i] end
-- A trace's first chunk, when it is small, has its identities in its entry, for which Redis has set memory aside anyway; the set of all begins with the second chunk.
local begins = state[1] and state[1] == state[8] or not state[1] and redis.call('EXISTS', KEYS[1]) == 0
local held, of_first = {}, {}
if not begins and redis.call('EXISTS', KEYS[3]) == 0 then
  local entry = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  for i = 1, entry and #entry[2] or 0, 2 do
    if entry[2][i] == 'i' then
      for id in string.gmatch(entry[2][i + 1], '%S+') do
        held[#held + 1] = id
        of_first[id] = true
      end
    end
  end
end
if identities > 0 and not begins then
  local known = redis.call('SMISMEMBER', KEYS[3], unpack(ids))
  local any = false
  for i = 1, identities do
    if of_first[ids[i]] then known[i] = 1 end
    any = any or known[i] == 1
  end
  if any then return {'known', state[1] or '0', state[2] or '0', unpack(known)} end
end

local spans, most = tonumber(state[11] or '0'), tonumber(ARGV[14])
if most > 0 and not aside and ARGV[10] ~= '0' and spans + tonumber(ARGV[10]) > most then
  return {'spans', state[1] or '0', state[2] or '0', math.max(0, most - spans)}
end

local seq, previous = tonumber(state[1]), state[2]
if not seq then
  -- The hash is gone and the log is not (an eviction): the log is the truth.
  local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  local s, m = string.match(last and last[1] or '0-0', '^(%d+)-(%d+)$')
  seq, previous = tonumber(s), m
end
local first, last = seq + 1, seq + count
local last_text = string.format('%.0f', last)
local id = last_text .. '-' .. ARGV[2]
local with_entry = begins and identities > 0 and identities <= 16
if with_entry then
  redis.call('XADD', KEYS[1], id, 'n', ARGV[3], 't', ARGV[1], 'p', previous or '0', 'b', ARGV[4], 'i', table.concat(ids, ' '))
else
  redis.call('XADD', KEYS[1], id, 'n', ARGV[3], 't', ARGV[1], 'p', previous or '0', 'b', ARGV[4])
end
-- On Redis's own clock: silence is told by it, and not by that of whoever wrote last.
local time = redis.call('TIME')
local at_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[2], 'seq', last_text, 'mark', ARGV[2])
if aside then
  if state[5] and state[10] == state[1] then redis.call('HSET', KEYS[2], 'settled_seq', last_text) end
else
  redis.call('HSET', KEYS[2], 'at', at_ms, 'armed', '1')
  redis.call('HSETNX', KEYS[2], 'from', ARGV[1])
end
if ARGV[13] ~= '3' and ARGV[13] ~= state[9] then redis.call('HSET', KEYS[2], 'level', ARGV[13]) end
if ARGV[10] ~= '0' then redis.call('HINCRBY', KEYS[2], 'spans', ARGV[10]) end
-- What is late for a settled run leaves it ended: followers look again.
if not aside and (ARGV[7] == '1' or state[5]) then redis.call('HSET', KEYS[2], 'term', ARGV[1]) end
if not aside and state[5] then redis.call('HDEL', KEYS[2], 'settled', 'settling') end
-- What comes after a settlement is late for the run that ended, until another root's end says that it is of the next one.
if not aside and (state[5] or state[7]) then
  if ARGV[7] == '1' then
    redis.call('HINCRBY', KEYS[2], 'run', 1)
    redis.call('HDEL', KEYS[2], 'reopened')
  elseif state[5] then
    redis.call('HSET', KEYS[2], 'reopened', '1')
  end
end
if #held > 0 then redis.call('SADD', KEYS[3], unpack(held)) end
if identities > 0 and not with_entry then redis.call('SADD', KEYS[3], unpack(ids)) end
local at = 14 + identities
local new, held = 0, tonumber(state[12] or '0')
for i = 1, pieces do
  if redis.call('HSETNX', KEYS[4], ARGV[at + 2 * i - 1], ARGV[at + 2 * i]) == 1 then new = new + #ARGV[at + 2 * i] end
end
if new > 0 then held = redis.call('HINCRBY', KEYS[2], 'pieces', new) end
local bytes = held + redis.call('HINCRBY', KEYS[2], 'bytes', #ARGV[4])

-- The net under the sweep. Renewed each hour, not with each append.
local ttl = tonumber(ARGV[5])
local kept_until = tonumber(state[6] or '0')
if kept_until < now + ttl * 1000 - 3600000 or first == 1 or pieces > 0 and redis.call('TTL', KEYS[4]) < 0 or identities > 0 and redis.call('TTL', KEYS[3]) == -1 then
  for i = 1, 4 do redis.call('EXPIRE', KEYS[i], ttl) end
  redis.call('HSET', KEYS[2], 'kept_until', string.format('%.0f', now + ttl * 1000))
end
redis.pcall(ARGV[8], ARGV[9], last_text)
return {'stored', string.format('%.0f', first), last_text, bytes}
