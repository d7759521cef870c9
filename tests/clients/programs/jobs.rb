# A Ruby program with one Redis, through redis-rb: counters in transactions, a queue with a blocking worker, locks, a cache.
# usage: ruby jobs.rb PORT PREFIX.  Prints "ready" when it works, goes on until a line arrives, and ends with one line of JSON.
require "redis"
require "json"

PORT, PREFIX = ARGV
UNKNOWN = /may or may not have been executed/
RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end"

$stdout.sync = true
$result = { done: 0, unknown: 0, errors: [], wrong: [], longest: 0 }
stopped = false
Thread.new { $stdin.gets; stopped = true }

def connect
  Redis.new(url: "redis://127.0.0.1:#{PORT}", timeout: 30, reconnect_attempts: 0)
end

# True when it was done, false when that is not known.
def try_it
  began = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  yield
  true
rescue Redis::CommandError => e
  e.message.match?(UNKNOWN) ? $result[:unknown] += 1 : $result[:errors] << e.message
  false
rescue Redis::BaseError => e
  $result[:errors] << e.inspect
  false
ensure
  $result[:longest] = [$result[:longest], ((Process.clock_gettime(Process::CLOCK_MONOTONIC) - began) * 1000).round].max
end

r = connect
taken = []
worker = Thread.new do
  mine = connect
  until stopped && taken.length >= $pushed.to_i
    got = nil
    try_it { got = mine.brpop("#{PREFIX}queue", timeout: 1) }
    taken << got[1].to_i if got
    break if stopped && got.nil?
  end
end

counted = 0
maybe = 0
kept = {}
$pushed = 0
until stopped
  n = counted + maybe
  ok = try_it { r.multi { |t| t.incr("#{PREFIX}count"); t.rpush("#{PREFIX}log", n) } }
  ok ? counted += 1 : maybe += 1
  $pushed += 1 if try_it { r.lpush("#{PREFIX}queue", n) }
  kept[n] = true if try_it { r.set("cache:#{n % 500}", n) } && n % 500 == n
  try_it { $result[:wrong] << "lock" if r.set("#{PREFIX}lock", n, nx: true, px: 60_000) && r.eval(RELEASE, keys: ["#{PREFIX}lock"], argv: [n]) != 1 }
  $result[:done] += 1
  puts "ready" if $result[:done] == 20
  sleep 0.003
end
worker.join(20)
count = r.get("#{PREFIX}count").to_i
log = r.lrange("#{PREFIX}log", 0, -1).map(&:to_i)
$result[:wrong] << "count #{count}, #{counted} acknowledged, #{maybe} unknown" unless (counted..counted + maybe).cover?(count)
$result[:wrong] << "the log has #{log.length} entries, the counter says #{count}" unless log.length == count
$result[:wrong] << "entries twice" unless log.uniq.length == log.length && taken.uniq.length == taken.length
$result[:wrong] << "taken #{taken.length} of #{$pushed}" if taken.length < $pushed - $result[:unknown]
$result[:wrong] << "cache" unless kept.keys.first(200).all? { |n| r.exists?("cache:#{n}") }
$result[:errors] = $result[:errors].first(50)
puts JSON.generate($result)
