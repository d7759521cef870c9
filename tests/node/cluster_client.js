// Writes c:0, c:1, ... through ioredis in cluster mode until a line arrives on standard input, then reads everything back.
// usage: node cluster_client.js PORT...   prints "ready" once writes flow, at the end one line of JSON
"use strict";
const { Cluster } = require("ioredis");

const cluster = new Cluster(
  process.argv.slice(2).map((port) => ({ host: "127.0.0.1", port: Number(port) })),
  { redisOptions: { connectTimeout: 2000, maxRetriesPerRequest: 5 }, slotsRefreshTimeout: 3000 },
);
cluster.on("error", () => {});

const acked = new Map(); // number -> time
let stopped = false;
let errors = 0;
let lastError = "";

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function write(first, step) {
  for (let n = first; !stopped; n += step) {
    try {
      if (n % 10 === 0) {
        const tag = `{c:${n}}`;
        const replies = await cluster.multi().set(`c:${n}`, n).set(`${tag}b`, n).exec();
        if (replies.some(([error]) => error)) throw replies.find(([error]) => error)[0];
      } else {
        await cluster.set(`c:${n}`, n);
      }
      acked.set(n, Date.now());
      if (acked.size === 200) console.log("ready");
    } catch (error) {
      errors += 1;
      lastError = String(error);
    }
    await pause(4);
  }
}

async function verify() {
  const missing = [];
  for (const [n, at] of acked) {
    if ((await cluster.get(`c:${n}`)) !== String(n)) missing.push([n, at]);
  }
  return missing;
}

async function main() {
  process.stdin.once("data", () => (stopped = true));
  const lanes = 8;
  await Promise.all(Array.from({ length: lanes }, (_, lane) => write(lane, lanes)));
  const times = [...acked.values()].sort((a, b) => a - b);
  console.log(JSON.stringify({
    acked: acked.size, errors, lastError, missing: await verify(), last: times[times.length - 1],
    longestGapMs: Math.max(...times.slice(1).map((t, i) => t - times[i])),
  }));
  cluster.disconnect();
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
