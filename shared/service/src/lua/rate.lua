-- Takes events out of a tenant's bucket. It is kept as the time at which it is full again, in microseconds of Redis's clock, so what is owed is in it too; one that is full has no key.
-- Whoever finds an event in it may take more than there are: how many a request has is known when it is read, and what it owes is waited for by those who come after it.
-- KEYS rate   ARGV us_per_event, burst, events, back (of an earlier lease), lease (events to take beyond these, if there are), forced ('1': whether there are any or not)
-- -> {1 taken or 0, events leased, events left, us until there is one again}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local each, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0') - tonumber(ARGV[4]) * each)
local left = burst - (full - now) / each
-- All but: fractions of a microsecond are lost on the way.
local taken = (ARGV[6] == '1' or left > 0.9999) and 1 or 0
local lease = 0
if taken == 1 then
  left = left - tonumber(ARGV[3])
  lease = math.max(0, math.min(tonumber(ARGV[5]), math.floor(left)))
  left = left - lease
end
if taken == 1 or ARGV[4] ~= '0' then
  full = now + math.max(0, burst - left) * each
  redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', string.format('%.0f', (full - now) / 1000 + 1000))
end
return {taken, lease, math.max(0, math.floor(left)), left > 0.9999 and 0 or math.ceil((1 - left) * each)}
