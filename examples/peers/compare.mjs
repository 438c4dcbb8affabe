// How many requests a second does each limiter let through, with 32 connections from one client machine?
//
// Each program greets, limits by address, and counts in its own memory or in the same Redis. The limit is never reached,
// so what is measured is a decision that allows. The programs are measured in turns, and the median of the rounds counts.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const LIMIT = 1_000_000_000;
const WINDOW_SECONDS = 900;
const CONNECTIONS = 32;
const SECONDS = Number(process.env.SECONDS ?? 3);
const ROUNDS = Number(process.env.ROUNDS ?? 3);

const [role] = process.argv.slice(2);
if (role) await serve(role);
else await compare();

// One of the two peers, as its documentation has it.
async function serve(role) {
  const { default: express } = await import("express");
  const app = express();
  if (role === "express-rate-limit") {
    const { rateLimit } = await import("express-rate-limit");
    app.use(rateLimit({
      windowMs: WINDOW_SECONDS * 1000,
      limit: LIMIT,
      standardHeaders: "draft-8",
      legacyHeaders: false,
    }));
  } else {
    const { Redis } = await import("ioredis");
    const { RateLimiterRedis } = await import("rate-limiter-flexible");
    const limiter = new RateLimiterRedis({
      storeClient: new Redis(process.env.REDIS_URL),
      keyPrefix: `worked-answers:peers:${process.pid}`,
      points: LIMIT,
      duration: WINDOW_SECONDS,
    });
    app.use((request, response, next) => {
      limiter.consume(request.ip).then(() => next(), () => response.status(429).end());
    });
  }
  app.get("/api/hello", (_, response) => response.json({ hello: "world" }));
  const server = app.listen(0, "127.0.0.1", () => {
    console.log(`listening on http://127.0.0.1:${server.address().port}`);
  });
}

// Starts a program and waits for the line with its address.
async function start(command, args) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "ignore"] });
  for await (const line of createInterface({ input: child.stdout })) {
    const url = line.match(/listening on (http:\S+)/)?.[1];
    if (url) return { child, url };
  }
  throw new Error(`${command} ${args.join(" ")} ended before it listened`);
}

async function compare() {
  const { default: autocannon } = await import("autocannon");
  const version = (name) => JSON.parse(
    readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version;
  const peer = (role) => [process.execPath, [fileURLToPath(import.meta.url), role]];
  const ours = (store) => [process.env.RATE_LIMITER, [
    "serve", "--port", "0", "--store", store, "--limit", String(LIMIT), "--window", `${WINDOW_SECONDS}s`,
    "--prefix", `worked-answers:peers:${process.pid}:`,
  ]];
  const programs = [
    { name: "rate-limiter, memory", command: ours("memory") },
    { name: `express-rate-limit ${version("express-rate-limit")}, memory`, command: peer("express-rate-limit") },
    { name: "rate-limiter, Redis", command: ours("redis") },
    { name: `rate-limiter-flexible ${version("rate-limiter-flexible")}, Redis`, command: peer("rate-limiter-flexible") },
  ];
  console.log(`Node ${process.versions.node}, Express ${version("express")}; ` +
    `${CONNECTIONS} connections, median of ${ROUNDS} rounds of ${SECONDS} s`);
  const running = [];
  try {
    for (const program of programs) {
      running.push({ ...program, ...(await start(...program.command)), rates: [] });
    }
    for (let round = 0; round < ROUNDS; round++) {
      for (const program of running) {
        const result = await autocannon({
          url: new URL("/api/hello", program.url).href, connections: CONNECTIONS, duration: SECONDS,
        });
        if (result["2xx"] === 0 || result.non2xx > 0 || result.errors > 0) {
          const seen = JSON.stringify(result.statusCodeStats);
          throw new Error(`${program.name}: expected 200 for each request, got ${seen}, ${result.errors} errors`);
        }
        program.rates.push(result.requests.average);
      }
    }
  } finally {
    for (const { child } of running) {
      child.kill("SIGTERM");
      await once(child, "exit");
    }
  }
  const median = (rates) => rates.sort((a, b) => a - b)[Math.floor(rates.length / 2)];
  for (let pair = 0; pair < running.length; pair += 2) {
    const [us, them] = running.slice(pair, pair + 2).map(({ name, rates }) => ({ name, rate: median(rates) }));
    for (const { name, rate } of [us, them]) {
      console.log(`${name.padEnd(36)} ${Math.round(rate).toLocaleString("en").padStart(8)} requests/s`);
    }
    console.log(`  ${(us.rate / them.rate).toFixed(1)} times as many`);
  }
}
