-- KEYS: whole, replicas. ARGV: the replica, its heartbeat, after how many milliseconds a heartbeat is forgotten; or
-- nothing, to read only. Returns the time, since when all is whole, and all heartbeats, each behind its time.
local replicas = KEYS[2]

write_whatever_memory_there_is()
if #ARGV > 0 then
  redis.call('HSET', replicas, ARGV[1], now .. ' ' .. ARGV[2])
  local seen = redis.call('HGETALL', replicas)
  for index = 1, #seen, 2 do
    local at = tonumber(string.match(seen[index + 1], '^(%d+) ') or 0)
    if tonumber(now) - at >= tonumber(ARGV[3]) then
      redis.call('HDEL', replicas, seen[index])
    end
  end
end
return {now, since, redis.call('HVALS', replicas)}
