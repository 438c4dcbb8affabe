// How do many processes share one limit? The bucket of each client is in Redis, and one script there takes from it.
//
//     cargo run -- example rate-limiter --in node
//
// Fastify and ioredis. In reading order: `TAKE`, `limit`, `clientOf`. The hook runs for every request, so that a 404 costs as
// well. While Redis is away, everybody passes: an outage of the limiter must not be an outage of the API.

import { Redis } from "ioredis";
import { isIPv4, isIPv6 } from "node:net";
import * as edge from "../edge.mjs";

const [LIMIT, WINDOW] = [100, 300];
const COSTS = { "/api/report": 10 };
const PREFIX = process.env.KEY_PREFIX ?? "rate-limiter:";
// Only these may say in X-Forwarded-For who their client is.
const TRUSTED_PROXIES = (process.env.TRUSTED_PROXIES ?? "127.0.0.1").split(",");

// A token bucket. Redis runs one script at a time, so nobody comes between the look and the change. The clock is Redis's:
// those of the processes differ. Answers whether it was taken, what is left, and seconds until there is enough or it is full.
const TAKE = `
local limit, window, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('time')
local now = time[1] + time[2] / 1000000
local bucket = redis.call('hmget', KEYS[1], 'units', 'at')
local units = limit
if bucket[1] then
    units = math.min(limit, bucket[1] + (now - bucket[2]) * limit / window)
end
local taken = units >= cost
if taken then
    units = units - cost
    redis.call('hset', KEYS[1], 'units', string.format('%.9f', units), 'at', string.format('%.6f', now))
    redis.call('expire', KEYS[1], math.ceil(window))
end
local wanted = taken and limit or cost
return {taken and 1 or 0, math.floor(units), math.ceil((wanted - units) * window / limit)}
`;

// One connection for all requests: ioredis sends them one after another without waiting. A limiter that answers later than the
// API is worse than none.
const redis = new Redis(process.env.REDIS_URL, {
  commandTimeout: 500, connectTimeout: 500, maxRetriesPerRequest: 0, enableOfflineQueue: false,
  retryStrategy: (times) => Math.min(times * 50, 1_000),
});
redis.on("error", () => {});
redis.defineCommand("take", { numberOfKeys: 1, lua: TAKE });
// Or the first attempt fails: then everybody passes until Redis is there.
await new Promise((resolve) => redis.once("ready", resolve).once("close", resolve));

/** The first half of an IPv6 address, in one spelling. */
function network(address) {
  // `URL` writes an address with eight groups in the shortest way, and an IPv4 address at the end as two groups.
  const [head, tail = ""] = new URL(`http://[${address}]`).hostname.slice(1, -1).split("::");
  const [first, last] = [head, tail].map((half) => half.split(":").filter(Boolean));
  const groups = [...first, ...Array(8 - first.length - last.length).fill("0"), ...last];
  return `${groups.slice(0, 4).join(":")}::/64`;
}

/** Who pays. One network of 64 bits is one client: whoever has one IPv6 address has 2⁶⁴ of them. */
function clientOf(request) {
  const peer = request.socket.remoteAddress;
  if (!TRUSTED_PROXIES.includes(peer)) return peer;
  // The proxy appends the last one. What stands before it, the client has written.
  const address = (request.headers["x-forwarded-for"] ?? "").split(",").at(-1).trim();
  const mapped = /^::ffff:([0-9.]+)$/i.exec(address)?.[1] ?? address;
  if (isIPv4(mapped)) return mapped;
  return isIPv6(address) ? network(address) : peer;
}

// ANCHOR: limit
/** Everything below /api costs, and every answer says where its client stands. */
async function limit(request, reply) {
  const path = request.url.split("?")[0];
  if (path !== "/api" && !path.startsWith("/api/")) return;
  let answer;
  try {
    answer = await redis.take(PREFIX + clientOf(request), LIMIT, WINDOW, COSTS[path] ?? 1);
  } catch (error) {
    return console.warn("nobody is limited:", error.message);
  }
  const [taken, left, seconds] = answer;
  reply.headers({ "ratelimit-policy": `"api";q=${LIMIT};w=${WINDOW}`, ratelimit: `"api";r=${left};t=${seconds}` });
  if (taken) return;
  throw new edge.Problem(429, "Wait, and ask again.", {
    headers: { "retry-after": String(Math.max(1, seconds)) },
    type: "https://iana.org/assignments/http-problem-types#quota-exceeded",
    title: "Quota exceeded",
    "violated-policies": ["api"],
  });
}
// ANCHOR_END: limit

const visible = (name) => name.trim() !== "" && Buffer.byteLength(name) <= 200 && name.isWellFormed();
const app = edge.app({ formats: { visible }, ready: () => redis.ping() });
app.addHook("onRequest", limit);
app.get("/api/hello", async () => ({ hello: "world" }));
const greeting = edge.object({ name: { type: "string", format: "visible" } });
app.post("/api/hello", { schema: { body: greeting } }, async ({ body }) => ({ hello: body.name }));
app.get("/api/report", async () => ({ report: "It costs ten units, because it is as much work as ten greetings." }));

await edge.serve(app, () => redis.quit());
