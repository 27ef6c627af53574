-- KEYS: whole, bucket. ARGV: how many tokens the bucket holds, in how many microseconds as many come, for how many
-- microseconds nobody gets one.
local count, period = tonumber(ARGV[1]), tonumber(ARGV[2])
local bucket = read_bucket(KEYS[2], count, period)
bucket.closed = math.max(bucket.closed, tonumber(ARGV[3]))
write_bucket(KEYS[2], bucket, count, period)
