-- KEYS: whole, slots, then buckets. ARGV: how many run at once (0: no limit), for how many milliseconds a permit holds,
-- how many tokens a bucket holds (0: no limit), in how many microseconds as many come; then for each permit its name and
-- the position of its bucket in KEYS. Returns how many slots are taken; then for each permit whether it is given (0) or
-- lacks a slot (1) or a token (2), and after how many microseconds that may be there.
local slots = KEYS[2]
local most, lease, count, period = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local taken = 0
if most > 0 then
  redis.call('ZREMRANGEBYSCORE', slots, '-inf', now)
  taken = redis.call('ZCARD', slots)
end

local answer, buckets, wanted = {0}, {}, false
for index = 5, #ARGV, 2 do
  local permit, position = ARGV[index], tonumber(ARGV[index + 1])
  local lacks, wait = 0, 0
  if most > 0 and taken >= most then
    lacks, wait, wanted = 1, (tonumber(redis.call('ZRANGE', slots, 0, 0, 'WITHSCORES')[2]) - tonumber(now)) * 1000, true
  elseif count > 0 then
    local bucket = buckets[position] or read_bucket(KEYS[position], count, period)
    buckets[position] = bucket
    wait = math.max(math.ceil((period - bucket.level) / count), bucket.closed)
    if wait > 0 then
      lacks = 2
    else
      wait, bucket.level, bucket.has_changed = 0, bucket.level - period, true
    end
  end
  if lacks == 0 and most > 0 then
    redis.call('ZADD', slots, string.format('%.0f', tonumber(now) + lease), permit)
    taken = taken + 1
  end
  answer[#answer + 1] = lacks
  answer[#answer + 1] = wait
end
for position, bucket in pairs(buckets) do
  if bucket.has_changed then
    write_bucket(KEYS[position], bucket, count, period)
  end
end
if wanted then
  redis.call('HSET', KEYS[1], 'wanted', '1')
end
answer[1] = taken
return answer
