# What a Ruby application does with a Redis, through redis-rb.  usage: ruby uses.rb standalone|cluster PORT...
# Prints one line for each use that works; any exception or wrong answer ends it with status 1.
require "redis"

MODE, *PORTS = ARGV
URLS = PORTS.map { |port| "redis://127.0.0.1:#{port}" }

def connect
  MODE == "cluster" ? Redis.new(cluster: URLS, timeout: 10) : Redis.new(url: URLS.first, timeout: 10)
end

def same(wanted, got, what)
  raise "#{what}: wanted #{wanted.inspect}, got #{got.inspect}" unless wanted == got
end

r = connect
uses = {}

uses["session"] = lambda do
  same "OK", r.setex("rb:session", 60, Marshal.dump(user: 7)), "setex"
  same({ user: 7 }, Marshal.load(r.get("rb:session")), "get")
  same true, r.ttl("rb:session") > 50, "ttl"
  same 2, r.hset("rb:profile", "name", "Ann", "visits", 1), "hset"
  same({ "name" => "Ann", "visits" => "1" }, r.hgetall("rb:profile"), "hgetall")
end

uses["rate limiter"] = lambda do
  (1..3).each do |n|
    got = r.multi do |t|
      t.incr("rb:rate:{u}")
      t.expire("rb:rate:{u}", 10)
    end
    same n, got[0], "incr"
  end
end

uses["lock"] = lambda do
  same true, r.set("rb:lock", "me", nx: true, px: 5000), "take"
  same false, r.set("rb:lock", "you", nx: true, px: 5000), "taken"
  release = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end"
  same 0, r.eval(release, keys: ["rb:lock"], argv: ["you"]), "not yours"
  same 1, r.eval(release, keys: ["rb:lock"], argv: ["me"]), "release"
end

uses["leaderboard"] = lambda do
  r.zadd("rb:board", [[10, "ann"], [20, "bob"], [15.5, "eve"]])
  same 25.5, r.zincrby("rb:board", 10, "eve"), "zincrby"
  same [["eve", 25.5], ["bob", 20.0]], r.zrevrange("rb:board", 0, 1, with_scores: true), "zrevrange"
  same %w[ann bob eve], r.zrangebyscore("rb:board", "-inf", "+inf"), "zrangebyscore"
end

uses["queue"] = lambda do
  worker = Thread.new { connect.brpop("rb:queue", timeout: 10) }
  sleep 0.2
  r.lpush("rb:queue", "job")
  same %w[rb:queue job], worker.value, "brpop"
end

uses["stream"] = lambda do
  id = r.xadd("rb:stream", { "event" => "login" })
  same "OK", r.xgroup(:create, "rb:stream", "g", "0"), "xgroup"
  same({ "rb:stream" => [[id, { "event" => "login" }]] }, r.xreadgroup("g", "c1", "rb:stream", ">"), "xreadgroup")
  same 1, r.xack("rb:stream", "g", id), "xack"
  same 0, r.xpending("rb:stream", "g")["size"], "xpending"
end

uses["pub/sub"] = lambda do
  heard = Queue.new
  listener = Thread.new do
    connect.subscribe("rb:channel") do |on|
      on.subscribe { heard << :ready }
      on.message do |_, message|
        heard << message
        Thread.exit
      end
    end
  end
  same :ready, heard.pop, "subscribe"
  r.publish("rb:channel", "hello")
  same "hello", heard.pop, "message"
  listener.join(5)
end

uses["pipeline"] = lambda do
  got = r.pipelined { |p| 100.times { |n| p.set("rb:p:{t}#{n}", n) } }
  same ["OK"] * 100, got, "set"
  same (0...100).map(&:to_s), r.mget(*(0...100).map { |n| "rb:p:{t}#{n}" }), "mget"
end

uses.each do |name, use|
  use.call
  puts "ok #{name}"
end
