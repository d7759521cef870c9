// Programs of Node written for one Redis, which a test runs through the proxy for a while.
// usage: node proxied.js bullmq PORT PREFIX | sessions PORT PREFIX HTTP_PORT
// Prints "ready" when it works, goes on until a line arrives on standard input, and ends with one line of JSON.
"use strict";
const http = require("node:http");

const [program, port, prefix, httpPort] = process.argv.slice(2);
const host = "127.0.0.1";
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
// The second: what BullMQ says when it repeats what was executed.
const UNKNOWN = /may or may not have been executed|(Missing lock|Lock mismatch|could not renew lock) for job/;

let stopped = false;
const result = { done: 0, unknown: 0, errors: [], wrong: [], longest: 0 };

function failed(error) {
  if (UNKNOWN.test(String(error))) result.unknown += 1;
  else if (result.errors.length < 50) result.errors.push(String(error));
}

function flows() {
  result.done += 1;
  if (result.done === 20) console.log("ready");
}

// Jobs are added under names of their own, so that one may be added again when its fate is not known.
async function bullmq() {
  const { Queue, Worker } = require("bullmq");
  const { Redis } = require("ioredis");
  const open = () => {
    const client = new Redis(Number(port), host, { maxRetriesPerRequest: null });
    client.on("close", () => { if (!stopped) result.errors.push("a connection was closed"); });
    return client;
  };
  const options = prefix ? { prefix } : {};
  const queue = new Queue("mail", { connection: open(), ...options });
  const completed = new Map();
  const worker = new Worker("mail", async (job) => job.data.n * 2, {
    connection: open(), concurrency: 4, lockDuration: 3000, stalledInterval: 1000, maxStalledCount: 5, ...options,
  });
  queue.on("error", failed);
  worker.on("error", failed);
  worker.on("completed", (job, value) => {
    completed.set(job.data.n, (completed.get(job.data.n) || 0) + 1);
    if (value !== job.data.n * 2) result.wrong.push(`job ${job.data.n}: ${value}`);
    flows();
  });
  worker.on("failed", (job, error) => failed(error));
  let added = 0;
  while (!stopped) {
    const began = Date.now();
    for (let tries = 0; tries < 50; tries += 1) {
      try {
        await queue.add("send", { n: added }, { jobId: `j${added}`, delay: added % 10 ? 0 : 30 });
        break;
      } catch (error) {
        failed(error);
        await pause(20);
      }
    }
    result.longest = Math.max(result.longest, Date.now() - began);
    added += 1;
    await pause(3);
  }
  // After an error that it does not know a worker takes a rest of 15 s.
  for (let waits = 0; waits < 250 && completed.size < added; waits += 1) await pause(100);
  for (let n = 0; n < added; n += 1) {
    if (completed.has(n)) continue;
    // When the reply to its end was lost, the worker does not tell of it.
    const job = await queue.getJob(`j${n}`);
    const state = job ? await job.getState() : "lost";
    if (state !== "completed" && !(state === "failed" && result.unknown)) result.wrong.push(`job ${n} is ${state}`);
  }
  await worker.close(true);
  await queue.close();
}

// A page that counts its visits in a session; the test asks for it.
async function sessions() {
  const session = require("express-session");
  const RedisStore = require("connect-redis").default;
  const { createClient } = require("redis");
  const client = createClient({ url: `redis://${host}:${port}` });
  client.on("error", failed);
  await client.connect();
  const handle = session({
    store: new RedisStore({ client, ...(prefix ? { prefix: `${prefix}sess:` } : {}) }),
    secret: "covey", resave: false, saveUninitialized: true,
  });
  const server = http.createServer((request, response) => handle(request, response, (error) => {
    const end = (problem) => {
      if (problem) response.statusCode = 500;
      response.end(problem ? String(problem) : String(request.session.visits));
    };
    if (error) return end(error);
    request.session.visits = (request.session.visits || 0) + 1;
    return request.session.save(end);
  }));
  await new Promise((done) => server.listen(Number(httpPort), host, done));
  console.log("ready");
  while (!stopped) await pause(20);
}

process.stdin.once("data", () => { stopped = true; });
({ bullmq, sessions })[program]().then(() => {
  console.log(JSON.stringify(result));
  process.exit(0);
}, (error) => {
  console.error(error);
  process.exit(1);
});
