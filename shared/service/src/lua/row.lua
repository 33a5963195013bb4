-- What a list shows of a run: of an ended one "<through> <run> <row>", a later end of the same trace wins and the same end twice does nothing; of one that goes on the row alone changes.
-- KEYS rows, traces   ARGV trace, through, run ('-': it goes on), base, row   -> 1 another run ended, 2 the same run ended again (something came late), 0 known, going on, or the trace is gone
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then return 0 end
local known = redis.call('HGET', KEYS[1], ARGV[1])
local through, run = string.match(known or '', '^(%d+) (%d+) ')
if through and tonumber(through) >= tonumber(ARGV[2]) then return 0 end
if ARGV[3] == '-' then
  redis.call('HSET', KEYS[1], ARGV[1], (through and through .. ' ' .. run or '0 -') .. ' ' .. ARGV[5])
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. ARGV[5])
-- What ended at or before the base was of a life that was replaced.
return run == ARGV[3] and tonumber(through) > tonumber(ARGV[4]) and 2 or 1
