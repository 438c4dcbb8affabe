// What does a server do with more requests than it can serve? It lets some work, some wait, and refuses the rest at once.
//
//     cargo run -- example concurrent-requests --in node
//
// Fastify and pg. In reading order: `enter` and `leave`, `order`, `Prices`, `work`. One loop serves all requests, so prices are
// computed in threads, each with a loop and a heap of its own. A request whose time is over is answered, but nobody can stop
// what it has begun: its query ends by itself. The gate counts the requests of this process only.

import { randomUUID } from "node:crypto";
import { EventEmitter, once } from "node:events";
import { Worker } from "node:worker_threads";
import * as edge from "../edge.mjs";

const { Problem } = edge;

const SCHEMA = `
create table if not exists products (
    id bigint primary key,
    name text not null,
    cents bigint not null,
    stock int not null check (stock >= 0)
);
create table if not exists orders (
    id uuid primary key,
    -- This index decides which of two requests with one key acts.
    key text collate "C" not null unique,
    fingerprint bytea not null,
    product bigint not null references products,
    quantity int not null,
    created_at timestamptz not null default now()
);
create index if not exists orders_created_at on orders (created_at);
create table if not exists jobs (
    id uuid primary key,
    number bigint generated always as identity,
    day date not null,
    state text not null default 'queued',
    report text
);
create index if not exists jobs_queued on jobs (number) where state = 'queued';
`;

// As many as the pool has connections, and two that need none. Browsing may use half of the places to wait, so that it is
// refused before anybody who wants to buy.
const [IN_FLIGHT, WAITING, WAITING_TO_BROWSE] = [12, 64, 32];
const LONGEST_MS = 10_000;
const [MOST_JOBS, WORKERS] = [100, 2];
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/i;

const pool = await edge.pool(SCHEMA);
const app = edge.app({ ready: () => pool.query("select 1") });

let inFlight = 0;
const queue = [];
const shed = { checkout: 0, browsing: 0 };

// ANCHOR: gate
/** Those who wait are let in from the front. Little's law: a longer queue makes nobody faster. */
function enter(kind, signal) {
  if (inFlight < IN_FLIGHT) return void (inFlight += 1);
  if (queue.length >= (kind === "checkout" ? WAITING : WAITING_TO_BROWSE)) {
    shed[kind] += 1;
    throw edge.busy("Too many requests wait already.");
  }
  return new Promise((resolve, reject) => {
    queue.push(resolve);
    signal.addEventListener("abort", () => {
      const place = queue.indexOf(resolve);
      if (place >= 0) queue.splice(place, 1) && reject(edge.busy("The client has stopped waiting."));
    });
  });
}

function leave() {
  // The place goes on, so the number stays.
  if (queue.length) queue.shift()();
  else inFlight -= 1;
}
// ANCHOR_END: gate

function millisecondsLeft(given) {
  if (given === undefined) return LONGEST_MS;
  // Of two, Node makes one with a comma.
  if (!TIME.test(given) || Number.isNaN(Date.parse(given))) {
    throw new Problem(400, "`X-Request-Deadline` is a time in RFC 3339, once.");
  }
  const left = Date.parse(given) - Date.now();
  if (left <= 0) throw edge.busy("The deadline of this request has passed.");
  return Math.min(left, LONGEST_MS);
}

// Before the body is read: who is refused costs next to nothing.
app.addHook("onRequest", async (request, reply) => {
  if (!/^\/(products|orders|reports)/.test(request.url)) return;
  const milliseconds = millisecondsLeft(request.headers["x-request-deadline"]);
  const over = new AbortController();
  const timer = setTimeout(() => {
    over.abort();
    if (request.entered && !reply.sent) edge.send(reply, edge.busy("The client has stopped waiting."));
  }, milliseconds);
  // Also if the client has gone before its answer.
  reply.raw.once("close", () => {
    clearTimeout(timer);
    over.abort();
    if (request.entered) leave();
  });
  await enter(request.url.startsWith("/orders") ? "checkout" : "browsing", over.signal);
  request.entered = true;
  if (reply.raw.closed) leave();
});

/** Threads that compute prices, each asked in turn. */
class Prices {
  #answers = new Map();
  #threads;
  #asked = 0;

  constructor(threads) {
    this.#threads = Array.from({ length: threads }, () => new Worker(new URL("price.mjs", import.meta.url)));
    for (const thread of this.#threads) {
      thread.on("message", ({ id, price }) => {
        this.#answers.get(id)(price);
        this.#answers.delete(id);
      });
    }
  }

  of(product, cents) {
    const id = this.#asked++;
    this.#threads[id % this.#threads.length].postMessage({ id, product, cents });
    return new Promise((resolve) => this.#answers.set(id, resolve));
  }

  end = () => Promise.all(this.#threads.map((thread) => thread.terminate()));
}

const prices = new Prices(2);

async function putUp({ params, body: { name, cents, stock } }) {
  const id = edge.number(params.id);
  const { rows: [row] } = await pool.query(
    `
    insert into products (id, name, cents, stock) values ($1, $2, $3, $4)
    on conflict (id) do update set name = excluded.name, cents = excluded.cents, stock = excluded.stock
    returning *
    `,
    [id, name, cents, stock],
  );
  return row;
}

async function found({ params }) {
  const { rows: [row] } = await pool.query("select * from products where id = $1", [edge.number(params.id)]);
  if (!row) throw new Problem(404, "There is no such product.");
  return row;
}

async function order(request, reply) {
  const { product, quantity } = request.body;
  const [key, fingerprint] = [edge.idempotencyKey(request), edge.fingerprint(request.body)];
  const row = await edge.transaction(pool, async (client) => {
    const { rows: [made] } = await client.query(
      `
      insert into orders (id, key, fingerprint, product, quantity)
      select $1, $2, $3, $4, $5 where exists (select from products where id = $4)
      on conflict (key) do nothing
      returning *
      `,
      [randomUUID(), key, fingerprint, product, quantity],
    );
    if (!made) {
      const { rows: [before] } = await client.query("select * from orders where key = $1", [key]);
      if (!before) throw new Problem(404, "There is no such product.");
      if (!before.fingerprint.equals(fingerprint)) throw new Problem(422, "This key was sent with another body before.");
      return before;
    }
    // Whether it is left is asked by the statement that takes it. A look before it would sell the last one twice.
    const { rowCount: taken } = await client.query(
      "update products set stock = stock - $2 where id = $1 and stock >= $2",
      [product, quantity],
    );
    // It rolls back, and the key is free again.
    if (!taken) throw new Problem(409, "There is not so much left.");
    return made;
  });
  return reply.code(201).header("location", `/orders/${row.id}`).send(shown(row));
}

const shown = ({ id, product, quantity, created_at }) => ({ id, product, quantity, created_at });

async function lookAtOrder({ params: { id } }) {
  const { rows: [row] } = await pool.query("select * from orders where id = $1", [id]);
  if (!row) throw new Problem(404, "There is no such order.");
  return shown(row);
}

/** 2026-02-29 is no day, and neither is any in the year 0. */
function dayIn({ day }) {
  const at = new Date(`${day}T00:00:00Z`);
  const is = !Number.isNaN(at.getTime()) && at.toISOString().startsWith(day) && day > "0001";
  if (!is) throw new Problem(404, "There is no such day.");
  return day;
}

async function report(database, day) {
  const { rows: hours } = await database.query(
    `
    select
        extract(hour from created_at at time zone 'utc')::int as hour,
        count(*)::bigint as orders,
        sum(quantity)::bigint as items
    from orders
    where created_at >= $1::date::timestamp at time zone 'utc'
        and created_at < ($1::date + 1)::timestamp at time zone 'utc'
    group by 1
    order by 1
    `,
    [day],
  );
  const sum = (name) => hours.reduce((all, hour) => all + hour[name], 0);
  return { day, orders: sum("orders"), items: sum("items"), hours };
}

const jobs = new EventEmitter();

async function orderReport({ params }, reply) {
  const { rows: [job] } = await pool.query(
    `
    insert into jobs (id, day)
    select $1, $2 where (select count(*) from jobs where state = 'queued') < $3
    returning id, state
    `,
    [randomUUID(), dayIn(params), MOST_JOBS],
  );
  if (!job) throw edge.busy("Too many jobs wait already.");
  jobs.emit("queued");
  return reply.code(202).header("location", `/jobs/${job.id}`).send(job);
}

async function job({ params: { id } }) {
  const { rows: [row] } = await pool.query("select id, state, report from jobs where id = $1", [id]);
  if (!row) throw new Problem(404, "There is no such job.");
  return { ...row, report: row.report ? JSON.parse(row.report) : undefined };
}

/**
 * Returns the job that it did, if there was one. Its row stays locked until it is done, so no other worker takes it. If this
 * process is killed, PostgreSQL unlocks the row.
 */
async function workOnce(client) {
  const { rows: [job] } = await client.query(
    "select id, day::text from jobs where state = 'queued' order by number limit 1 for update skip locked",
  );
  if (!job) return;
  const done = JSON.stringify(await report(client, job.day));
  await client.query("update jobs set state = 'done', report = $2 where id = $1", [job.id, done]);
  return job;
}

async function work(stopped) {
  while (!stopped.aborted) {
    try {
      if (await edge.transaction(pool, workOnce)) continue;
    } catch (error) {
      console.error("a job waits:", error.message);
    }
    // Also without a call: the database may have been away.
    await once(jobs, "queued", { signal: AbortSignal.any([stopped, AbortSignal.timeout(1_000)]) }).catch(() => {});
  }
}

async function pressure() {
  const { rows: [{ jobs }] } = await pool.query("select count(*)::bigint as jobs from jobs where state = 'queued'");
  return { in_flight: inFlight, waiting: queue.length, shed, limits: { in_flight: IN_FLIGHT, waiting: WAITING }, jobs };
}

async function metrics(_request, reply) {
  const { in_flight, waiting, jobs } = await pressure();
  const lines = [`requests_in_flight ${in_flight}`, `requests_waiting ${waiting}`, `jobs_waiting ${jobs}`];
  const refused = Object.entries(shed).map(([kind, count]) => `requests_shed_total{kind="${kind}"} ${count}`);
  return reply.type("text/plain").send(`${[...lines, ...refused].join("\n")}\n`);
}

const [ID, UUID, DAY] = [`:id(^${edge.NUMBER}$)`, `:id(^${edge.UUID}$)`, ":day(^[0-9]{4}-[0-9]{2}-[0-9]{2}$)"];
const whole = (minimum, maximum = Number.MAX_SAFE_INTEGER) => ({ type: "integer", minimum, maximum });
const name = { type: "string", minLength: 1, maxLength: 200, format: "line" };
const product = edge.object({ name, cents: whole(0), stock: whole(0, 1_000_000) });
app.put(`/products/${ID}`, { schema: { body: product } }, putUp);
app.get(`/products/${ID}`, found);
app.get(`/products/${ID}/price`, async (request) => {
  const { id, cents } = await found(request);
  return { product: id, cents: await prices.of(id, cents) };
});
app.post("/orders", { schema: { body: edge.object({ product: whole(1), quantity: whole(1, 10) }) } }, order);
app.get(`/orders/${UUID}`, lookAtOrder);
app.get(`/reports/${DAY}`, ({ params }) => report(pool, dayIn(params)));
app.post(`/reports/${DAY}`, orderReport);
app.get(`/jobs/${UUID}`, job);
app.get("/pressure", pressure);
app.get("/metrics", metrics);

const stopped = new AbortController();
const workers = Array.from({ length: WORKERS }, () => work(stopped.signal));
await edge.serve(app, async () => {
  stopped.abort();
  await Promise.all([...workers, prices.end()]);
  await pool.end();
});
