// How is a notification delivered once, though the broker delivers at least once and the program may be killed? The job is in the
// database before it is promised; a relay publishes it; the worker writes it to the user's stream in the transaction that marks it
// as delivered.
//
//     cargo run -- example notification-worker --in node
//
// Fastify, pg, amqplib, ioredis and ws. In reading order: `accept`, `relay`, `consume`, `deliver`, `stream`. Redis only says that
// there is something new: the streams are in the database, and are read again every second if Redis is away. There is no provider
// of pushes, so a push ends as dead.

import amqp from "amqplib";
import { Redis } from "ioredis";
import { randomBytes, randomUUID } from "node:crypto";
import { EventEmitter, once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { WebSocketServer } from "ws";
import * as edge from "../edge.mjs";

const { Problem } = edge;

const SCHEMA = `
create table if not exists jobs (
    number bigint generated always as identity primary key,
    job_id text collate "C" not null unique,
    user_id text collate "C" not null,
    channel text not null,
    title text not null,
    body text not null,
    published boolean not null default false,
    status text not null default 'queued',
    attempts int not null default 0,
    last_error text
);
create index if not exists jobs_to_publish on jobs (number) where not published;
-- A row's lock makes the numbers of one user those of the commits.
create table if not exists users (user_id text collate "C" primary key, last_seq bigint not null);
create table if not exists frames (
    user_id text collate "C" not null,
    seq bigint not null,
    job_id text not null,
    title text not null,
    body text not null,
    primary key (user_id, seq)
);
create table if not exists devices (user_id text collate "C", token text collate "C", primary key (user_id, token));
`;

const QUEUE = process.env.QUEUE_PREFIX ?? "notifications";
const PREFIX = process.env.KEY_PREFIX ?? "notifications:";
const NAME = "(?!\\.{1,2}$)[A-Za-z0-9_.@-]{1,64}";
const [TICKET_SECONDS, MOST_ATTEMPTS] = [60, 10];
// Only whoever it is for uses it up, and only once.
const TAKE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0";

const pool = await edge.pool(SCHEMA);
const retryStrategy = (times) => Math.min(times * 100, 1_000);
const redis = new Redis(process.env.REDIS_URL, { commandTimeout: 2_000, maxRetriesPerRequest: 1, retryStrategy });
const news = new Redis(process.env.REDIS_URL, { maxRetriesPerRequest: null, retryStrategy });
for (const client of [redis, news]) client.on("error", () => {});
redis.defineCommand("take", { numberOfKeys: 1, lua: TAKE });
const ping = async () => {
  await Promise.all([pool.query("select 1"), redis.ping()]);
};
const atMost = (most) => (text) => Buffer.byteLength(text) <= most && !text.includes("\0") && text.isWellFormed();
const formats = { title: (text) => edge.isLine(text) && atMost(256)(text), body: atMost(3_000) };
// A device's token is longer than a part of a path usually is.
const app = edge.app({ formats, ready: ping, routerOptions: { maxParamLength: 4_096 } });

const stopped = new AbortController();
/** Waits for an event, but at most a second: whatever tells us may be away. */
const within = (events, name) =>
  once(events, name, { signal: AbortSignal.any([stopped.signal, AbortSignal.timeout(1_000)]) }).catch(() => {});
const outbox = new EventEmitter();
/** An event for each user, whose stream has something new. */
const streams = new EventEmitter().setMaxListeners(0);

/** After this, it will be delivered, whatever happens to this process and to the broker. */
async function accept({ body: { job_id, user_id, channel, title, body } }, reply) {
  const job = job_id ?? randomUUID();
  const { rowCount: inserted } = await pool.query(
    `
    insert into jobs (job_id, user_id, channel, title, body)
    values ($1, $2, $3, $4, $5)
    on conflict (job_id) do nothing
    `,
    [job, user_id, channel, title, body],
  );
  if (inserted) outbox.emit("job");
  else {
    const { rows: [known] } = await pool.query("select user_id from jobs where job_id = $1", [job]);
    if (known.user_id !== user_id) throw new Problem(409, "This job is another user's.");
  }
  return reply.code(inserted ? 202 : 200).header("location", `/notifications/${job}`).send({ job_id: job });
}

/** amqplib does not connect again. Everything that depends on the connection begins again with it. */
async function withBroker() {
  while (!stopped.signal.aborted) {
    let connection;
    try {
      connection = await amqp.connect(process.env.AMQP_URL, { timeout: 5_000 });
      connection.on("error", () => {});
      const closed = once(connection, "close").then(() => Promise.reject(new Error("the broker has gone")));
      await Promise.race([closed, consume(connection), relay(connection)]);
    } catch (error) {
      console.error("the broker is asked again:", error.message);
    }
    await connection?.close().catch(() => {});
    await sleep(stopped.signal.aborted ? 0 : 1_000);
  }
}

/** A quorum queue survives the loss of a node. What kills a worker again and again goes to the dead letters. */
async function declare(channel) {
  channel.on("error", () => {});
  await channel.assertQueue(`${QUEUE}.dead`);
  await channel.assertQueue(QUEUE, {
    arguments: { "x-queue-type": "quorum", "x-delivery-limit": 20 },
    deadLetterExchange: "",
    deadLetterRoutingKey: `${QUEUE}.dead`,
  });
}

/**
 * The only one that publishes, so that the order is that of the jobs. What was published and not marked, because this process died
 * in between, is published again: the worker knows what it has delivered.
 */
async function relay(connection) {
  const channel = await connection.createConfirmChannel();
  await declare(channel);
  while (!stopped.signal.aborted) {
    const { rows } = await pool.query("select job_id, user_id from jobs where not published order by number limit 100");
    if (rows.length === 0) {
      await within(outbox, "job");
      continue;
    }
    for (const row of rows) channel.sendToQueue(QUEUE, Buffer.from(JSON.stringify(row)), { persistent: true });
    await channel.waitForConfirms();
    await pool.query("update jobs set published = true where job_id = any($1)", [rows.map(({ job_id }) => job_id)]);
  }
}

async function consume(connection) {
  const channel = await connection.createChannel();
  // As many unacknowledged ones as this.
  await channel.prefetch(64);
  await declare(channel);
  // One user's jobs follow one another: each waits for the last one before it.
  const last = new Map();
  await new Promise((_, reject) => {
    channel.on("close", () => reject(new Error("the channel has gone")));
    channel.consume(QUEUE, (message) => {
      if (!message) return reject(new Error("the queue was deleted"));
      const { job_id, user_id } = JSON.parse(message.content);
      const done = (last.get(user_id) ?? Promise.resolve())
        .then(() => untilDelivered(job_id))
        // On a channel that has closed meanwhile it throws, and the broker delivers the message again.
        .then(() => channel.ack(message))
        .catch(() => {})
        .then(() => last.get(user_id) === done && last.delete(user_id));
      last.set(user_id, done);
    }).catch(reject);
  });
}

/** Not back into the queue: the user's next job would overtake it. */
async function untilDelivered(job) {
  for (let attempt = 1; ; attempt++) {
    try {
      const user = await deliver(job, attempt);
      // Streams look once a second anyway.
      if (user) await redis.publish(`${PREFIX}new`, user).catch(() => {});
      return;
    } catch (error) {
      if (attempt >= MOST_ATTEMPTS && error.severity) {
        const dead = "update jobs set status = 'dead', attempts = $2, last_error = $3 where job_id = $1 and status = 'queued'";
        return pool.query(dead, [job, attempt, error.message]);
      }
      await sleep(Math.min(5_000, 100 * 2 ** attempt));
    }
  }
}

/** Once, however often the broker brings it. Returns the user whose stream has something new. */
async function deliver(job, attempt) {
  return edge.transaction(pool, async (client) => {
    const { rows: [row] } = await client.query("select * from jobs where job_id = $1 and status = 'queued' for update", [job]);
    if (!row) return null;
    if (row.channel === "push") {
      const { rowCount: devices } = await client.query("select from devices where user_id = $1", [row.user_id]);
      const reason = devices ? "no provider of pushes is set up" : "the user has no device";
      const dead = "update jobs set status = 'dead', attempts = $2, last_error = $3 where job_id = $1";
      await client.query(dead, [job, attempt, reason]);
      return null;
    }
    const { rows: [{ last_seq: seq }] } = await client.query(
      `
      insert into users values ($1, 1)
      on conflict (user_id) do update set last_seq = users.last_seq + 1
      returning last_seq
      `,
      [row.user_id],
    );
    await client.query("insert into frames values ($1, $2, $3, $4, $5)", [row.user_id, seq, job, row.title, row.body]);
    await client.query("update jobs set status = 'delivered', attempts = $2 where job_id = $1", [job, attempt]);
    return row.user_id;
  });
}

async function progress({ params: { job } }) {
  const query = "select job_id, status, attempts, last_error from jobs where job_id = $1";
  const { rows: [row] } = await pool.query(query, [job]);
  if (!row) throw new Problem(404, "There is no such job.");
  return row;
}

async function ticket({ params: { user } }, reply) {
  const ticket = randomBytes(32).toString("base64url");
  await redis.set(`${PREFIX}ticket:${ticket}`, user, "EX", TICKET_SECONDS);
  return reply.code(201).send({ ticket });
}

/** The key of the ticket, which is not used up, and the number to go on from. */
async function admitted(user, query) {
  const [ticket, ...more] = query.getAll("ticket");
  const key = `${PREFIX}ticket:${ticket}`;
  if (more.length || !/^[A-Za-z0-9_-]{43}$/.test(ticket ?? "") || (await redis.get(key)) !== user) {
    throw new Problem(401, "Send a fresh ticket of this user.", { headers: { "www-authenticate": "Ticket" } });
  }
  const strange = [...query.keys()].some((name) => !["ticket", "after"].includes(name));
  const [after = "0", ...others] = query.getAll("after");
  if (strange || others.length || !/^\d{1,19}$/.test(after) || BigInt(after) >= 2n ** 63n) {
    throw new Problem(422, "is the only other parameter, and a whole number of 0 or more", { field: "after" });
  }
  return { key, after };
}

async function noStream({ params: { user }, url }) {
  await admitted(user, new URL(url, edge.OWN).searchParams);
  const headers = { upgrade: "websocket", connection: "Upgrade", "sec-websocket-version": "13" };
  throw new Problem(426, "Open it as a WebSocket.", { headers });
}

const sockets = new WebSocketServer({ noServer: true, maxPayload: 64 * 1024 });

/** What asks for an upgrade does not come to Fastify. */
app.server.on("upgrade", async (request, connection, head) => {
  connection.on("error", () => {});
  try {
    const { pathname, searchParams } = new URL(request.url, edge.OWN);
    const user = new RegExp(`^/users/(${NAME.replace("$", "/")})/stream$`).exec(pathname)?.[1];
    if (!user) throw new Problem(404, "There is nothing here.");
    const { key, after } = await admitted(user, searchParams);
    if (!(await redis.take(key, user))) {
      throw new Problem(401, "This ticket was used.", { headers: { "www-authenticate": "Ticket" } });
    }
    sockets.handleUpgrade(request, connection, head, (socket) => stream(socket, user, after));
  } catch (error) {
    const { status, headers, body } = edge.problem(error);
    const lines = Object.entries({ ...headers, "content-length": Buffer.byteLength(body), connection: "close" });
    connection.end(`HTTP/1.1 ${status} No\r\n${lines.map(([name, it]) => `${name}: ${it}\r\n`).join("")}\r\n${body}`);
  }
});

async function stream(socket, user, after) {
  socket.on("error", () => {});
  // The stream goes one way. ws itself answers pings and goodbyes, and closes with 1009 after too much.
  socket.on("message", () => socket.close(1003));
  // Before the first look: what comes while we look makes us look again.
  let isNew = false;
  const note = () => (isNew = true);
  streams.on(`of ${user}`, note);
  socket.once("close", () => streams.off(`of ${user}`, note));
  const query = "select seq, job_id, title, body from frames where user_id = $1 and seq > $2 order by seq limit 100";
  while (socket.readyState === socket.OPEN) {
    isNew = false;
    const { rows } = await pool.query(query, [user, after]).catch(() => ({ rows: [] }));
    for (const row of rows) {
      // A client that reads slowly makes us wait, and not our memory grow.
      await new Promise((resolve) => socket.send(JSON.stringify(row), resolve));
      after = row.seq;
    }
    if (rows.length === 0 && !isNew) await within(streams, `of ${user}`);
  }
}

const name = { type: "string", pattern: `^${NAME}$` };
const notification = edge.object(
  {
    job_id: { ...name, type: ["string", "null"] },
    user_id: name,
    channel: { type: "string", enum: ["websocket", "push"] },
    title: { type: "string", minLength: 1, format: "title" },
    body: { type: "string", format: "body" },
  },
  ["user_id", "channel", "title", "body"],
);
const [USER, DEVICE] = [`/users/:user(^${NAME}$)`, ":token(^[!-.0-~]{1,4096}$)"];
const device = (statement) => async ({ params: { user, token } }, reply) => {
  await pool.query(statement, [user, token]);
  return reply.code(204).send();
};
app.post("/notifications", { schema: { body: notification } }, accept);
app.get(`/notifications/:job(^${NAME}$)`, progress);
app.put(`${USER}/devices/${DEVICE}`, device("insert into devices values ($1, $2) on conflict do nothing"));
app.delete(`${USER}/devices/${DEVICE}`, device("delete from devices where user_id = $1 and token = $2"));
app.post(`${USER}/stream-tickets`, ticket);
app.get(`${USER}/stream`, noStream);

news.subscribe(`${PREFIX}new`).catch(() => {});
news.on("message", (_channel, user) => streams.emit(`of ${user}`));
const broker = withBroker();
await edge.serve(app, async () => {
  stopped.abort();
  sockets.clients.forEach((socket) => socket.close(1001));
  await broker;
  redis.disconnect();
  news.disconnect();
  await pool.end();
});
