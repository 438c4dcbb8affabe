-- ANCHOR: decide
-- The same for every algorithm: asks every policy before any takes, so all or none.
-- KEYS: one for each policy. ARGV: cost, whether a refused request counts, then limit and window of each.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local cost, count_refused = tonumber(ARGV[1]), ARGV[2] == '1'
local counters, allowed = {}, true
for i = 1, #KEYS do
  local limit, window = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2])
  local c = { key = KEYS[i], limit = limit, window = window, cost = math.min(cost, limit) }
  read(c, now)
  c.wait = wait(c, now)
  allowed = allowed and c.wait == 0
  counters[i] = c
end
local answer = { now, allowed and 1 or 0 }
for i = 1, #counters do
  local c = counters[i]
  if allowed or count_refused then take(c, now) end
  answer[#answer + 1] = math.max(0, remaining(c, now))
  answer[#answer + 1] = allowed and 0 or c.wait
  answer[#answer + 1] = whole(c, now)
end
return answer
-- ANCHOR_END: decide
