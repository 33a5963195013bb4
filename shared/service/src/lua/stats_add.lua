-- Changes what one trace adds to its tenant's statistics, and what is kept of that, in one: done twice it is done once.
-- KEYS of, traces, then the hashes of buckets
-- ARGV trace, token (of what was kept when the caller looked; '' nothing), what to keep, most names, the name of all others, slot before which a name may be forgotten, number of buckets,
--   the seconds each bucket is kept, then for each cell: its bucket's place, name, delta   -> 1 done, 0 kept was something else, -1 there is no such trace (any more)
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then return -1 end
local known = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if string.sub(known, 1, 16) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
local most, other, buckets = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[7])
for i = 8 + buckets, #ARGV, 3 do
  local key, name = KEYS[2 + tonumber(ARGV[i])], ARGV[i + 1]
  local text = redis.call('HGET', key, name)
  if not text and name ~= other and redis.call('HLEN', key) >= most then
    -- Of a few by chance, those that nothing ended under for long make room.
    local some = redis.call('HRANDFIELD', key, 4, 'WITHVALUES')
    local room = false
    for at = 1, #some, 2 do
      local slot = tonumber(string.match(some[at + 1], '^%[(%d+)'))
      if some[at] ~= other and slot and slot < tonumber(ARGV[6]) then
        redis.call('HDEL', key, some[at])
        room = true
      end
    end
    if not room then
      name = other
      text = redis.call('HGET', key, name)
    end
  end
  local row, delta = text and cjson.decode(text) or {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {}}, cjson.decode(ARGV[i + 2])
  row[1] = math.max(row[1], delta[1])
  -- What was counted in a bucket that expired since is not taken from it again.
  for at = 2, 9 do row[at] = math.max(0, row[at] + delta[at]) end
  row[10] = math.max(row[10], delta[10])
  for duration, more in pairs(delta[11]) do
    local count = (row[11][duration] or 0) + more
    row[11][duration] = count > 0 and count or nil
  end
  local any = next(row[11]) ~= nil
  for at = 2, 9 do any = any or row[at] > 0 end
  -- A name under which nothing is counted any more goes: it may have been taken out of its trace.
  if any then redis.call('HSET', key, name, cjson.encode(row)) else redis.call('HDEL', key, name) end
end
for at = 1, buckets do redis.call('EXPIRE', KEYS[2 + at], ARGV[7 + at]) end
return 1
