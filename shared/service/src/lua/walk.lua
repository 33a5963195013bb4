-- One step down an index, newest first: its traces that stand, or do not stand, in other indexes too.
-- KEYS walked, rows, others
-- ARGV from (greatest start), to (least start), the place to begin after (start and trace, or two empty texts), offset, entries to look at, traces wanted, 1 with their rows, then '+' or '-' for each other index
-- -> how many entries were looked at, 1 when the index goes on, start and trace of the last entry, then start, trace and row of each that is one of the wanted
local function before(one, other)
  -- By bytes, as Redis orders members of one score; Lua's own order is the locale's.
  for i = 1, math.min(#one, #other) do
    local a, b = string.byte(one, i), string.byte(other, i)
    if a ~= b then return a < b end
  end
  return #one < #other
end
local offset, step, wanted, others = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), #KEYS - 2
local traces, starts = {}, {}
local last_start, last_trace, more = '', '', 0
local from, after = ARGV[1], tonumber(ARGV[3])
if after then from = ARGV[3] end
for _ = 1, 1000 do
  local entries = redis.call('ZRANGE', KEYS[1], from, ARGV[2], 'BYSCORE', 'REV', 'LIMIT', offset, step, 'WITHSCORES')
  for i = 1, #entries, 2 do
    if #traces == step then break end
    -- Traces of the place's own moment that were shown.
    if not after or tonumber(entries[i + 1]) < after or before(entries[i], ARGV[4]) then
      traces[#traces + 1] = entries[i]
      starts[#starts + 1] = entries[i + 1]
    end
  end
  offset = offset + #entries / 2
  more = #entries / 2 == step and 1 or 0
  -- Only when what came is of the place's own moment there may be too few.
  if more == 0 or #traces > 0 then break end
end
local found, looked = {}, #traces
if looked > 0 then
  local scores = {}
  for k = 1, others do scores[k] = redis.call('ZMSCORE', KEYS[2 + k], unpack(traces)) end
  local names, at = {}, {}
  for i = 1, #traces do
    local fits = true
    for k = 1, others do
      if (scores[k][i] and '+' or '-') ~= ARGV[8 + k] then fits = false break end
    end
    if fits then
      if #names == wanted then
        looked = i - 1
        more = 1
        break
      end
      names[#names + 1] = traces[i]
      at[#at + 1] = i
    end
  end
  local rows = ARGV[8] == '1' and #names > 0 and redis.call('HMGET', KEYS[2], unpack(names)) or {}
  for n, name in ipairs(names) do
    found[#found + 1] = starts[at[n]]
    found[#found + 1] = name
    found[#found + 1] = rows[n] or ''
  end
  if looked > 0 then last_start, last_trace = starts[looked], traces[looked] end
end
return {looked, more, last_start, last_trace, unpack(found)}
