// What a Node application does with a Redis, through node-redis and ioredis.
// usage: node uses.js redis|ioredis standalone|cluster PORT...
// Prints one line for each use that works; any exception or wrong answer ends it with status 1.
"use strict";
const assert = require("node:assert/strict");

const [library, mode, ...ports] = process.argv.slice(2);
const seeds = ports.map((port) => ({ host: "127.0.0.1", port: Number(port) }));

async function connect() {
  if (library === "ioredis") {
    const { Redis, Cluster } = require("ioredis");
    return mode === "cluster" ? new Cluster(seeds) : new Redis(seeds[0].port, "127.0.0.1");
  }
  const { createClient, createCluster } = require("redis");
  const client = mode === "cluster"
    ? createCluster({ rootNodes: seeds.map((s) => ({ url: `redis://127.0.0.1:${s.port}` })) })
    : createClient({ url: `redis://127.0.0.1:${seeds[0].port}` });
  client.on("error", (error) => { throw error; });
  await client.connect();
  return client;
}

// One way to send anything, whatever the library.
function sender(client) {
  if (library === "ioredis") return (name, ...args) => client.call(name, ...args.map(String));
  if (mode === "cluster") {
    return (name, ...args) => {
      const key = /^(EVAL|EVALSHA)$/.test(name) ? args[2] : /^XREADGROUP$/.test(name) ? args[args.indexOf("STREAMS") + 1]
        : /^XGROUP$/.test(name) ? args[1] : args[0];
      return client.sendCommand(String(key), false, [name, ...args.map(String)]);
    };
  }
  return (name, ...args) => client.sendCommand([name, ...args.map(String)]);
}

const uses = {
  async session(client, ask) {
    assert.equal(await ask("SET", "js:session", JSON.stringify({ user: 7 }), "EX", 60), "OK");
    assert.deepEqual(JSON.parse(await ask("GET", "js:session")), { user: 7 });
    assert.equal(await ask("HSET", "js:profile", "name", "Ann", "visits", 1), 2);
    const all = library === "ioredis" ? await client.hgetall("js:profile") : await client.hGetAll("js:profile");
    assert.deepEqual({ ...all }, { name: "Ann", visits: "1" });
  },

  async "rate limiter"(client) {
    for (let n = 1; n <= 3; n += 1) {
      const got = library === "ioredis"
        ? (await client.multi().incr("js:rate").expire("js:rate", 10).exec()).map(([error, value]) => error || value)
        : await client.multi().incr("js:rate").expire("js:rate", 10).exec();
      assert.equal(Number(got[0]), n);
    }
  },

  async lock(client, ask) {
    const release = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";
    assert.equal(await ask("SET", "js:lock", "me", "NX", "PX", 5000), "OK");
    assert.equal(await ask("SET", "js:lock", "you", "NX", "PX", 5000), null);
    assert.equal(await ask("EVAL", release, 1, "js:lock", "you"), 0);
    assert.equal(await ask("EVAL", release, 1, "js:lock", "me"), 1);
  },

  async leaderboard(client, ask) {
    assert.equal(await ask("ZADD", "js:board", 10, "ann", 20, "bob", 15, "eve"), 3);
    assert.equal(await ask("ZINCRBY", "js:board", 10.5, "eve"), "25.5");
    assert.deepEqual(await ask("ZREVRANGE", "js:board", 0, 1), ["eve", "bob"]);
  },

  async queue(client, ask) {
    const worker = await connect();
    const popped = sender(worker)("BRPOP", "js:queue", 10);
    await new Promise((done) => setTimeout(done, 200));
    await ask("LPUSH", "js:queue", "job");
    assert.deepEqual(await popped, ["js:queue", "job"]);
    await worker.quit();
  },

  async stream(client, ask) {
    const id = await ask("XADD", "js:stream", "*", "event", "login");
    assert.equal(await ask("XGROUP", "CREATE", "js:stream", "g", "0"), "OK");
    assert.deepEqual(await ask("XREADGROUP", "GROUP", "g", "c", "COUNT", 5, "STREAMS", "js:stream", ">"),
      [["js:stream", [[id, ["event", "login"]]]]]);
    assert.equal(await ask("XACK", "js:stream", "g", id), 1);
  },

  async "pub/sub"(client) {
    let heard;
    const message = new Promise((done) => { heard = done; });
    if (library === "ioredis") {
      const listener = client.duplicate();
      listener.on("message", (channel, text) => heard(text));
      await listener.subscribe("js:channel");
      await client.publish("js:channel", "hello");
      assert.equal(await message, "hello");
      listener.disconnect();
    } else {
      const listener = client.duplicate();
      await listener.connect();
      await listener.subscribe("js:channel", heard);
      await client.publish("js:channel", "hello");
      assert.equal(await message, "hello");
      await listener.disconnect();
    }
  },

  async pipeline(client, ask) {
    await Promise.all(Array.from({ length: 500 }, (_, n) => ask("SET", `js:p:${n}`, n)));
    const got = await Promise.all(Array.from({ length: 500 }, (_, n) => ask("GET", `js:p:${n}`)));
    assert.deepEqual(got, Array.from({ length: 500 }, (_, n) => String(n)));
  },

  // BullMQ builds key names inside its scripts; a prefix with a hash tag keeps them in one slot.
  async bullmq() {
    if (library !== "ioredis") return;
    const { Queue, Worker, QueueEvents } = require("bullmq");
    const { Redis, Cluster } = require("ioredis");
    const open = () => (mode === "cluster" ? new Cluster(seeds, { redisOptions: { maxRetriesPerRequest: null } })
      : new Redis(seeds[0].port, "127.0.0.1", { maxRetriesPerRequest: null }));
    const options = { prefix: "{bull}" };
    const queue = new Queue("mail", { connection: open(), ...options });
    const events = new QueueEvents("mail", { connection: open(), ...options });
    let flaky = 0;
    const worker = new Worker("mail", async (job) => {
      if (job.name === "flaky" && (flaky += 1) < 3) throw new Error("not yet");
      return job.data.n * 2;
    }, { connection: open(), concurrency: 4, ...options });
    await events.waitUntilReady();
    queue.setMaxListeners(100);
    const jobs = await Promise.all(Array.from({ length: 40 }, (_, n) => queue.add("send", { n })));
    const late = await queue.add("send", { n: 100 }, { delay: 300, priority: 2 });
    const again = await queue.add("flaky", { n: 200 }, { attempts: 5, backoff: 50 });
    const results = await Promise.all([...jobs, late, again].map((job) => job.waitUntilFinished(events, 20000)));
    assert.deepEqual(results, [...Array.from({ length: 40 }, (_, n) => n * 2), 200, 400]);
    const counts = await queue.getJobCounts("completed", "failed", "waiting", "active", "delayed");
    assert.deepEqual(counts, { completed: 42, failed: 0, waiting: 0, active: 0, delayed: 0, paused: 0 });
    await worker.close();
    await events.close();
    await queue.obliterate({ force: true });
    await queue.close();
  },
};

async function main() {
  const client = await connect();
  for (const [name, use] of Object.entries(uses)) {
    await use(client, sender(client));
    console.log(`ok ${name}`);
  }
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
