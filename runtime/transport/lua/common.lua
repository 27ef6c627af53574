-- In front of every script. KEYS[1] is a hash that remembers since when nothing that lies beside it can have been
-- wiped, and the next entry id of a partition's queues.

local clock = redis.call('TIME')
-- Epoch milliseconds, as text: Lua would write a number of this size with an exponent.
local now = clock[1] .. string.format('%03d', math.floor(tonumber(clock[2]) / 1000))

-- Deletes nothing. A server that only follows another refuses it, so that nobody is told of the past; and once a script
-- has written, the memory limit does not stop it any more. What frees memory in the end must not wait for memory.
local function write_whatever_memory_there_is()
  redis.call('HDEL', KEYS[1], '')
end

local since = redis.call('HGET', KEYS[1], 'since')
if not since then
  write_whatever_memory_there_is()
  redis.call('HSET', KEYS[1], 'since', now)
  since = now
end

-- Calls `command key ...` with the arguments, as many at a time as Lua takes.
local function call_with_many(command, key, arguments)
  for first = 1, #arguments, 1000 do
    redis.call(command, key, unpack(arguments, first, math.min(first + 999, #arguments)))
  end
end

-- Reserves the ids of `count` entries, later than all before in any queue of the partition: milliseconds and the first
-- number within them.
local function reserve_ids(count)
  local next_id = redis.call('HMGET', KEYS[1], 'milliseconds', 'number')
  local milliseconds, number = tonumber(next_id[1] or ''), tonumber(next_id[2] or '')
  if not milliseconds or not number then
    -- Perhaps wiped within this very millisecond: its microseconds keep the ids apart from those before.
    milliseconds, number = tonumber(now), tonumber(clock[2]) % 1000 * 1000000
  elseif milliseconds < tonumber(now) then
    milliseconds, number = tonumber(now), 0
  end
  redis.call('HSET', KEYS[1],
    'milliseconds', string.format('%.0f', milliseconds), 'number', string.format('%.0f', number + count))
  return string.format('%.0f', milliseconds), number
end

-- What `out` has of an attempt: entry id, when it was taken (empty while it is queued), by whom, handler.
local function read(known)
  return string.match(known, '^(%d+%-%d+)\n(%d*)\n([^\n]*)\n(.+)$')
end

-- What `out` knows of an attempt, or nothing.
local function find(out, attempt)
  local known = redis.call('HGET', out, attempt)
  if known then
    return read(known)
  end
end

-- Takes an attempt out of its queue, if it still waits there.
local function leave_queue(queues, entry_id, taken_at, handler)
  if taken_at == '' then
    -- An id that is no number of Redis' was written by nobody of ours: there is no such entry.
    redis.pcall('XDEL', queues .. handler, entry_id)
  end
end

local function enter_queue(out, queues, entry_id, attempt, handler, definition)
  redis.call('XADD', queues .. handler, entry_id, 'v', '1', 'k', attempt, 'd', definition)
  redis.call('HSET', out, attempt, entry_id .. '\n\n\n' .. handler)
end

-- The bucket of a rate key (`full` high at most, `count` higher with each microsecond): how high it is, and for how many
-- microseconds more it is closed. Nothing is kept of a bucket that is full and open.
local function read_bucket(key, count, period)
  local now_microseconds = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
  local level, at, closed_until = string.match(redis.call('GET', key) or '', '^(%d+) (%d+) (%d+)$')
  if not level then
    return {level = count * period, closed = 0}
  end
  local elapsed = math.min(math.max(now_microseconds - tonumber(at), 0), period)
  return {
    level = math.min(count * period, tonumber(level) + elapsed * count),
    closed = math.max(tonumber(closed_until) - now_microseconds, 0),
    has_changed = tonumber(at) > now_microseconds,  -- the clock was set back: it fills from here on
  }
end

local function write_bucket(key, bucket, count, period)
  local now_microseconds = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
  local last = math.max((count * period - bucket.level) / count, bucket.closed)
  redis.call('SET', key,
    string.format('%.0f %.0f %.0f', bucket.level, now_microseconds, now_microseconds + bucket.closed),
    'PX', string.format('%.0f', math.ceil(last / 1000) + 1))
end
