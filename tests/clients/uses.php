<?php
// What web pages do with a Redis, through php-redis.  usage: php uses.php standalone|cluster PORT...
// Prints one line for each use that works; any exception or wrong answer ends it with status 1.
ob_start(); // sessions cannot begin once output has been sent
[$mode, $ports] = [$argv[1], array_slice($argv, 2)];
$seeds = array_map(fn($port) => "127.0.0.1:$port", $ports);

function connect()
{
    global $mode, $ports, $seeds;
    if ($mode === "cluster") return new RedisCluster(null, $seeds, 5, 10);
    $r = new Redis();
    $r->connect("127.0.0.1", (int)$ports[0], 5, null, 0, 10);
    return $r;
}

function same($wanted, $got, $what)
{
    if ($wanted === $got) return;
    fwrite(STDERR, "$what: wanted " . json_encode($wanted) . ", got " . json_encode($got) . "\n");
    exit(1);
}

$r = connect();
$uses = [];

$uses["session"] = function () use ($r) {
    same(true, $r->setex("php:session:1", 60, serialize(["user" => 7])), "setex");
    same(["user" => 7], unserialize($r->get("php:session:1")), "get");
    same(true, $r->ttl("php:session:1") > 50, "ttl");
    same(1, $r->del("php:session:1"), "del");
    same(false, $r->get("php:session:1"), "get after del");
    same(true, $r->hMSet("php:profile", ["name" => "Ann", "visits" => "1"]), "hmset");
    same(2, $r->hIncrBy("php:profile", "visits", 1), "hincrby");
    same(["name" => "Ann", "visits" => "2"], $r->hGetAll("php:profile"), "hgetall");
    same(true, $r->expire("php:profile", 100), "expire");
};

$uses["session handler"] = function () use ($mode, $ports, $seeds) {
    ini_set("session.use_cookies", "0");
    ini_set("session.cache_limiter", "");
    ini_set("session.save_handler", $mode === "cluster" ? "rediscluster" : "redis");
    ini_set("session.save_path", $mode === "cluster"
        ? implode("&", array_map(fn($s) => "seed[]=$s", $seeds)) . "&timeout=5&read_timeout=5"
        : "tcp://127.0.0.1:{$ports[0]}?timeout=5");
    ini_set("redis.session.locking_enabled", $mode === "cluster" ? "0" : "1"); // the lock is a SET NX PX and a script
    session_id("covey0000000000000000000001");
    session_start();
    $_SESSION["basket"] = [1, 2, 3];
    session_write_close();
    $_SESSION = [];
    session_id("covey0000000000000000000001");
    session_start();
    same([1, 2, 3], $_SESSION["basket"] ?? null, "basket");
    session_destroy();
};

$uses["rate limiter"] = function () use ($r) {
    for ($n = 1; $n <= 3; $n++) {
        $got = $r->multi()->incr("php:rate:{u1}")->expire("php:rate:{u1}", 10)->exec();
        same([$n, true], $got, "multi");
    }
    $script = "local n = redis.call('INCR', KEYS[1]) if n == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end return n";
    same(1, $r->eval($script, ["php:rate2:{u1}", 5000], 1), "eval");
    same(2, $r->evalSha(sha1($script), ["php:rate2:{u1}", 5000], 1), "evalsha");
};

$uses["lock"] = function () use ($r) {
    same(true, $r->set("php:lock", "me", ["nx", "px" => 5000]), "take");
    same(false, $r->set("php:lock", "you", ["nx", "px" => 5000]), "taken");
    $release = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";
    same(0, $r->eval($release, ["php:lock", "you"], 1), "not yours");
    same(1, $r->eval($release, ["php:lock", "me"], 1), "release");
};

$uses["leaderboard"] = function () use ($r) {
    $r->zAdd("php:board", 10, "ann", 20, "bob", 15, "eve");
    same(25.0, $r->zIncrBy("php:board", 10, "eve"), "zincrby");
    same(["eve" => 25.0, "bob" => 20.0], $r->zRevRange("php:board", 0, 1, true), "zrevrange");
    same(2, $r->zRevRank("php:board", "ann"), "zrevrank");
};

$uses["queue"] = function () use ($r) {
    same(2, $r->lPush("php:queue", "job1", "job2"), "lpush");
    same(["php:queue", "job1"], $r->brPop(["php:queue"], 2), "brpop");
    same("job2", $r->brpoplpush("php:queue", "php:queue", 2), "brpoplpush");
    same(1, $r->lLen("php:queue"), "llen");
};

$uses["stream"] = function () use ($r) {
    $id = $r->xAdd("php:stream", "*", ["event" => "login"]);
    same(true, $r->xGroup("CREATE", "php:stream", "g", "0"), "group");
    same(["php:stream" => [$id => ["event" => "login"]]], $r->xReadGroup("g", "c1", ["php:stream" => ">"], 10), "readgroup");
    same(1, $r->xAck("php:stream", "g", [$id]), "ack");
    same(0, $r->xPending("php:stream", "g")[0], "pending");
};

$uses["many keys"] = function () use ($r) {
    $values = [];
    for ($n = 0; $n < 200; $n++) $values["php:many:$n"] = (string)$n;
    same(true, $r->mSet($values), "mset"); // a cluster client splits it by slot
    same(array_values($values), $r->mGet(array_keys($values)), "mget");
    $seen = [];
    if ($r instanceof RedisCluster) {
        foreach ($r->_masters() as $node) {
            $it = null;
            do foreach ($r->scan($it, $node, "php:many:*", 50) ?: [] as $key) $seen[$key] = 1; while ($it > 0);
        }
    } else {
        $it = null;
        do foreach ($r->scan($it, "php:many:*", 50) ?: [] as $key) $seen[$key] = 1; while ($it > 0);
    }
    same(200, count($seen), "scan");
};

$uses["publish"] = function () use ($r) {
    $got = $r->publish("php:channel", "hello");
    same(true, $got === 0 || $got === false, "publish"); // the cluster class answers false for 0
};

foreach ($uses as $name => $use) {
    $use();
    echo "ok $name\n";
}
