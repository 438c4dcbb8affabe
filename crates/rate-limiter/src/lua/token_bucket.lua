-- Lua's numbers are doubles. They are exact up to limit * window = 2^53: ten million in 15 minutes. Above that the
-- last bits are rounded, which is a part in 10^16, and can tell a client one unit more or less.
-- ANCHOR: token_bucket
local function read(c, now)
  local state = redis.call('GET', c.key)
  c.missing, c.at = 0, now
  if state then
    local missing, at = string.match(state, '^(%d+) (%d+)$')
    c.missing = math.max(0, missing - math.max(0, now - at) * c.limit)
    c.at = math.max(at + 0, now)
  end
end

local function remaining(c)
  return math.floor((c.limit * c.window - c.missing) / c.window)
end

local function whole(c) return math.ceil(c.missing / c.limit) end

local function wait(c)
  local enough = (c.limit - c.cost) * c.window
  return math.ceil(math.max(0, c.missing - enough) / c.limit)
end

local function take(c)
  c.missing = math.min(c.missing + c.cost * c.window, c.limit * c.window)
  redis.call('SET', c.key, string.format('%.0f %.0f', c.missing, c.at),
    'PX', math.ceil(whole(c) / 1000) + 1)
end
-- ANCHOR_END: token_bucket
