-- ANCHOR: gcra
local function read(c, now)
  c.interval = math.ceil(c.window / c.limit)
  c.due = redis.call('GET', c.key)
  c.due = math.max(c.due and c.due + 0 or now, now)
end

local function remaining(c, now)
  return math.floor((now + c.limit * c.interval - c.due) / c.interval)
end

local function whole(c, now) return c.due - now end

local function wait(c, now)
  return math.max(0, c.due - now - (c.limit - c.cost) * c.interval)
end

local function take(c, now)
  local latest = math.max(now + c.limit * c.interval, c.due)
  c.due = math.min(c.due + c.cost * c.interval, latest)
  redis.call('SET', c.key, string.format('%.0f', c.due), 'PX', math.ceil((c.due - now) / 1000) + 1)
end
-- ANCHOR_END: gcra
