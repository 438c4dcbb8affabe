-- ANCHOR: fixed_window
local function read(c, now)
  local state = redis.call('GET', c.key)
  c.opened, c.used = 0, 0
  if state then
    local opened, used = string.match(state, '^(%d+) (%d+)$')
    c.opened, c.used = opened + 0, used + 0
  end
  if now >= c.opened + c.window then c.used = 0 end
end

local function remaining(c) return c.limit - c.used end

local function whole(c, now)
  return c.used == 0 and 0 or math.max(0, c.opened + c.window - now)
end

local function wait(c, now)
  return c.used + c.cost <= c.limit and 0 or whole(c, now)
end

local function take(c, now)
  if c.used == 0 then c.opened = now end
  c.used = math.min(c.used + c.cost, c.limit)
  redis.call('SET', c.key, string.format('%.0f %.0f', c.opened, c.used),
    'PX', math.ceil(whole(c, now) / 1000) + 1)
end
-- ANCHOR_END: fixed_window
