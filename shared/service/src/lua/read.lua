-- A trace's state and some chunks, as of one moment.
-- KEYS trace, events   ARGV from (an XRANGE bound), count, max_bytes
-- -> {seq, mark, at, from, dead, base, settled, settled_seq, run, term, spans, settled_at, fold, life, reopened, compacted}, {{id, n, t, p, b, m, i} ...}
local state = redis.call('HMGET', KEYS[1], 'seq', 'mark', 'at', 'from', 'dead', 'base', 'settled', 'settled_seq', 'run', 'term', 'spans', 'settled_at', 'fold', 'life', 'reopened', 'compacted')
for i = 1, 16 do state[i] = state[i] or '' end
local chunks = {}
local limit, size = tonumber(ARGV[2]), 0
local from = ARGV[1]
while limit > 0 do
  -- One at a time where blocks are large: Lua copies what it reads.
  local entries = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', math.min(limit, 4))
  for _, entry in ipairs(entries) do
    local fields = {}
    for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
    chunks[#chunks + 1] = {entry[1], fields['n'], fields['t'], fields['p'], fields['b'], fields['m'] or '', fields['i'] or ''}
    size = size + #(fields['b'] or '')
    from = '(' .. entry[1]
    limit = limit - 1
    if size >= tonumber(ARGV[3]) then limit = 0 break end
  end
  if #entries < 4 then break end
end
return {state, chunks}
