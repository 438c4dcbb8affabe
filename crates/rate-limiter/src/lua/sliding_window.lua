-- ANCHOR: sliding_window
local function read(c, now)
  local state = redis.call('GET', c.key)
  c.opened, c.current, c.previous = 0, 0, 0
  if state then
    local opened, current, previous = string.match(state, '^(%d+) (%d+) (%d+)$')
    c.opened, c.current, c.previous = opened + 0, current + 0, previous + 0
  end
  local windows = math.floor(math.max(0, now - c.opened) / c.window)
  if windows == 1 then
    c.opened, c.current, c.previous = c.opened + c.window, 0, c.current
  elseif windows > 1 then
    c.opened, c.current, c.previous = now, 0, 0
  end
  c.left = math.min(c.window, c.opened + c.window - now)
end

local function remaining(c)
  return c.limit - c.current - math.ceil(c.previous * c.left / c.window)
end

local function whole(c)
  if c.current > 0 then return c.left + c.window end
  return c.previous > 0 and c.left or 0
end

-- How long until a counter, `left` before the end of the window in which it fades, has faded to `target`.
local function fading(c, counter, target, left)
  if counter == 0 then return 0 end
  return math.max(0, left - math.floor(target * c.window / counter))
end

local function wait(c)
  local room = c.limit - c.cost
  if c.current <= room then return fading(c, c.previous, room - c.current, c.left) end
  return c.left + fading(c, c.current, room, c.window)
end

local function take(c, now)
  if c.current + c.previous == 0 then c.opened, c.left = now, c.window end
  c.current = math.min(c.current + c.cost, c.limit)
  redis.call('SET', c.key, string.format('%.0f %.0f %.0f', c.opened, c.current, c.previous),
    'PX', math.ceil(whole(c) / 1000) + 1)
end
-- ANCHOR_END: sliding_window
