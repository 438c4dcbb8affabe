-- ANCHOR: sliding_log
-- A list of times, the oldest first. Textbooks take a sorted set, which is ten times as large, and which takes two
-- requests of the same microsecond for one unless each is made unique.
local function at(c, index) return tonumber(redis.call('LINDEX', c.key, index)) end

local function read(c, now)
  c.length = redis.call('LLEN', c.key)
  -- How many are too old? By halves, since they are in order: thousands may go at once.
  local old, high = 0, c.length
  if high > 0 and at(c, 0) + c.window > now then high = 0 end
  while old < high do
    local middle = math.floor((old + high) / 2)
    if at(c, middle) + c.window <= now then old = middle + 1 else high = middle end
  end
  if old > 0 then
    redis.call('LTRIM', c.key, old, -1)
    c.length = c.length - old
  end
end

local function remaining(c) return c.limit - c.length end

local function whole(c, now)
  return c.length == 0 and 0 or math.max(0, at(c, -1) + c.window - now)
end

local function wait(c, now)
  local missing = c.cost - remaining(c)
  return missing <= 0 and 0 or math.max(0, at(c, missing - 1) + c.window - now)
end

local function take(c, now)
  for _ = 1, c.cost do
    redis.call('RPUSH', c.key, string.format('%.0f', now))
  end
  c.length = c.length + c.cost
  if c.length > c.limit then
    redis.call('LTRIM', c.key, -c.limit, -1)
    c.length = c.limit
  end
  redis.call('PEXPIRE', c.key, math.ceil(c.window / 1000) + 1)
end
-- ANCHOR_END: sliding_log
