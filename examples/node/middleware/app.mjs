// What belongs around every handler, and in which order? Seven layers, from the outside in.
//
//     cargo run -- example middleware --in node
//
// Fastify and pg. In reading order: `LAYERS`, and the loop below it. Fastify has no layers that call the next one, but hooks:
// `onRequest` in the order in which they were added, and `onSend` before an answer goes, here the other way around. A handler
// that throws is an answer of 500. One that throws in a callback of its own, such as a timer's, ends the process.

import { randomUUID, timingSafeEqual } from "node:crypto";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import * as edge from "../edge.mjs";

const { Problem } = edge;

const SCHEMA = `
create table if not exists notes (
    number bigint generated always as identity primary key,
    id uuid not null unique,
    owner text not null,
    text text not null,
    created_at timestamptz not null default now()
);
`;

const USERS = { "let-ada-in": "ada" };
const LIMIT_MS = 2_000;
const LARGEST_BODY = 1_000_000;
const ID = "[A-Za-z0-9_.-]{1,64}";

const answers = new Map();
/** The events of the last thousand requests, by their ids. */
const ways = new Map();

/** Outermost, so that every answer has one, those of other layers too. */
function requestId(request, reply) {
  const given = request.headers["x-request-id"] ?? "";
  // It goes into log lines and headers of other services, so it is one word. Of two, Node makes one with a comma.
  request.name = new RegExp(`^${ID}$`).test(given) ? given : randomUUID();
  reply.header("x-request-id", request.name);
  ways.delete(request.name);
  ways.set(request.name, request.way);
  if (ways.size > 1000) ways.delete(ways.keys().next().value);
}

/** Outside of everything that can refuse, so that refusals are counted. */
function count(_request, { statusCode }) {
  answers.set(statusCode, (answers.get(statusCode) ?? 0) + 1);
}

/** Outside of the errors: a page of another origin may read them too. A preflight has no key, so it ends here. */
function cors({ method, headers }, reply) {
  if (!headers.origin) return;
  reply.header("access-control-allow-origin", "*");
  if (method !== "OPTIONS" || !headers["access-control-request-method"]) return;
  reply.headers({ "access-control-allow-methods": "GET, POST, DELETE", "access-control-max-age": "600" });
  const asked = headers["access-control-request-headers"];
  if (asked) reply.header("access-control-allow-headers", asked);
  return reply.code(204).send();
}

// ANCHOR: timeout
/** Nobody can stop a promise. The answer goes, and a handler that looks at `request.gone` ends its work. */
function timeout(request, reply) {
  const gone = new AbortController();
  request.gone = gone.signal;
  request.timer = setTimeout(() => {
    // Not before the answer has gone, or the handler's own error would be a second one.
    reply.raw.once("finish", () => gone.abort());
    if (!reply.sent) edge.send(reply, edge.busy("This took too long."));
  }, LIMIT_MS);
}
// ANCHOR_END: timeout

/** Before anybody reads the body. */
function limit({ headers }) {
  const tooLong = new Problem(413, `The body is longer than ${LARGEST_BODY} bytes.`, { headers: { connection: "close" } });
  if (Number(headers["content-length"] ?? 0) > LARGEST_BODY) throw tooLong;
}

/** It asks which route was found, and reads no path itself. Two that read paths differently leave a gap between them. */
function auth(request) {
  const guarded = /^\/notes($|\/)/.test(request.routeOptions.url ?? request.url);
  if (!guarded) return;
  const keys = request.raw.headersDistinct.authorization ?? [];
  const key = Buffer.from(/^bearer +(\S+)\s*$/i.exec(keys.length === 1 ? keys[0] : "")?.[1] ?? "");
  const fits = (secret) => secret.length === key.length && timingSafeEqual(Buffer.from(secret), key);
  const known = Object.keys(USERS).find(fits);
  if (!known) throw new Problem(401, "Send your key.", { headers: { "www-authenticate": "Bearer" } });
  request.user = USERS[known];
}

/** From the outside in. */
const LAYERS = [
  { name: "request-id", enter: requestId },
  { name: "trace", leave: count },
  { name: "cors", enter: cors },
  // Fastify itself makes an answer of what a handler throws.
  { name: "panic" },
  { name: "timeout", enter: timeout, leave: (request) => clearTimeout(request.timer) },
  { name: "limit", enter: limit },
  { name: "auth", enter: auth },
];

const pool = await edge.pool(SCHEMA);
const app = edge.app({ bodyLimit: LARGEST_BODY, ready: () => pool.query("select 1") });
const since = (request) => Math.round((performance.now() - request.began) * 1000);
for (const { name, enter } of LAYERS) {
  app.addHook("onRequest", async (request, reply) => {
    request.began ??= performance.now();
    request.way ??= [];
    request.way.push({ layer: name, event: "in", at: since(request) });
    // One that answers itself returns the answer, and Fastify goes no further.
    return enter?.(request, reply);
  });
}
for (const { name, leave } of LAYERS.toReversed()) {
  app.addHook("onSend", async (request, reply, payload) => {
    if (!request.way?.some(({ layer }) => layer === name)) return payload;
    leave?.(request, reply);
    request.way.push({ layer: name, event: "out", at: since(request) });
    return payload;
  });
}
// Node would send `100 Continue` for every request that waits for it. Here, it waits until somebody wants the body.
app.addHook("preParsing", async (request, reply, payload) => {
  if (/^100-continue$/i.test(request.headers.expect ?? "")) reply.raw.writeContinue();
  return payload;
});
app.server.on("checkContinue", (request, response) => app.routing(request, response));

const note = edge.object({ text: { type: "string", minLength: 1, maxLength: 1000, format: "line" } });
app.post("/notes", { bodyLimit: 64 * 1024, schema: { body: note } }, async ({ body, user }, reply) => {
  const { rows: [row] } = await pool.query(
    "insert into notes (id, owner, text) values ($1, $2, $3) returning id, owner, text, created_at",
    [randomUUID(), user, body.text],
  );
  return reply.code(201).header("location", `/notes/${row.id}`).send(row);
});
app.get("/notes", async ({ user }) => {
  const query = "select id, owner, text, created_at from notes where owner = $1 order by number desc limit 100";
  return { items: (await pool.query(query, [user])).rows };
});
app.get(`/notes/:id(^${edge.UUID}$)`, async ({ params: { id }, user }) => {
  const query = "select id, owner, text, created_at from notes where id = $1 and owner = $2";
  const { rows: [row] } = await pool.query(query, [id, user]);
  if (!row) throw new Problem(404, "There is no such note.");
  return row;
});
app.delete(`/notes/:id(^${edge.UUID}$)`, async ({ params: { id }, user }, reply) => {
  await pool.query("delete from notes where id = $1 and owner = $2", [id, user]);
  return reply.code(204).send();
});

app.get("/slow", async ({ query, gone }) => {
  const milliseconds = edge.oneNumber(query, "ms", 0, 60_000);
  await sleep(milliseconds, undefined, { signal: gone });
  return { slept_ms: milliseconds };
});
app.post("/panic", async () => {
  throw new Error("this handler always crashes");
});
app.register(async (raw) => {
  // Here, a body is bytes, whatever it says that it is.
  raw.removeAllContentTypeParsers();
  raw.addContentTypeParser("*", { parseAs: "buffer" }, async (_request, bytes) => bytes);
  raw.post("/echo", async ({ body }, reply) => reply.type("application/octet-stream").send(body ?? Buffer.alloc(0)));
});
app.get("/stream", async (_request, reply) => {
  async function* lines() {
    for (let number = 1; number <= 10; number++) {
      yield `line ${number} of 10\n`;
      await sleep(10);
    }
  }
  return reply.type("text/plain").send(Readable.from(lines()));
});

const names = LAYERS.map(({ name }) => name);
function picture(reply, texts) {
  const lines = texts.map((text, row) => `<text x="8" y="${24 * (row + 1)}">${text}</text>`).join("");
  const size = `width="360" height="${24 * texts.length + 12}"`;
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" ${size} font-family="monospace">${lines}</svg>`;
  return reply.type("image/svg+xml").send(svg);
}
function wayOf(id) {
  if (!ways.has(id)) throw new Problem(404, "None of the last thousand requests has this id.");
  return ways.get(id);
}
app.get("/stack", async () => ({ layers: names, form: "by-hand", warnings: [] }));
app.get("/stack.svg", async (_request, reply) => picture(reply, names));
app.get(`/stack/:id(^${ID}$)`, async ({ params: { id } }, reply) => {
  if (!id.endsWith(".svg")) return { request_id: id, events: wayOf(id) };
  const events = wayOf(id.slice(0, -".svg".length));
  return picture(reply, events.map(({ at, event, layer }) => `${at} µs ${event} ${layer}`));
});
app.get("/metrics", async (_request, reply) => {
  const lines = [...answers].map(([status, count]) => `http_requests_total{status="${status}"} ${count}\n`);
  return reply.type("text/plain").send(`# TYPE http_requests_total counter\n${lines.join("")}`);
});

await edge.serve(app, () => pool.end());
