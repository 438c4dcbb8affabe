// How does an order that needs three services end, though any of them may be away and the program may be killed? Each step is
// written down before and after it; whoever takes the order over reads the steps and goes on.
//
//     cargo run -- example saga-orchestrator --in node
//
// Fastify, pg, and `fetch`. In reading order: `following`, `carryOn`, `call`, `claim`, `place`. The three participants are in
// `participants.mjs`, at the same address, and are asked over HTTP as if they were elsewhere.

import { randomUUID } from "node:crypto";
import { EventEmitter, once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import * as edge from "../edge.mjs";
import * as participants from "./participants.mjs";

const { Problem } = edge;

const SCHEMA = `
create table if not exists orders (
    id uuid primary key,
    number bigint generated always as identity,
    key text collate "C" not null unique,
    fingerprint bytea not null,
    request text not null,
    status text not null default 'pending',
    reason text,
    steps text not null default '[]',
    -- Whoever has the lease goes on with the order. If it dies, another does, after this time.
    lease uuid,
    leased_until timestamptz not null default '-infinity'
);
create index if not exists orders_number on orders (status, number);
`;

const STATUSES = ["pending", "confirmed", "cancelled", "stuck"];
// The step and how it is undone. What comes after the last one that can be refused needs no undoing.
const FORWARD = { reserve: "release", charge: "refund", book: "cancel", sell: null };
const PARTICIPANTS = {
  reserve: "inventory", release: "inventory", sell: "inventory", charge: "payment", refund: "payment", book: "shipping",
  cancel: "shipping",
};
const SENT = { reserve: ["items"], charge: ["amount_cents", "payment_method"], book: ["address"] };
const [LEASE_SECONDS, TIMEOUT_MS] = [10, 3_000];
const WORKERS = 16;
// With these waits, a participant may be away for some thirty seconds. Then somebody has to look.
const [MOST_ATTEMPTS, LONGEST_PAUSE_MS] = [12, 4_000];

const pool = await edge.pool(participants.SCHEMA + SCHEMA, 20);
const app = edge.app({ formats: participants.formats, ready: () => pool.query("select 1") });
participants.serve(app, pool);

/** Which step comes now? Nothing but the steps decides, so that whoever reads them goes on in the same way. */
function following(steps) {
  const status = Object.fromEntries(steps.map(({ name, status }) => [name, status]));
  if (!Object.values(status).includes("refused")) {
    return Object.keys(FORWARD).find((name) => (status[name] ?? "pending") === "pending");
  }
  const undone = Object.entries(FORWARD).toReversed().find(([name, undo]) => undo && status[name] === "done");
  return undone?.[1];
}

/** Somebody else has the order by now. */
class Fenced extends Error {}

async function carryOn(order) {
  for (let name = following(order.steps); name; name = following(order.steps)) {
    let step = order.steps.find((it) => it.name === name);
    if (!step) order.steps.push((step = { name, status: "pending", attempts: 0, at: null, last_error: null }));
    step.attempts += 1;
    step.at = new Date().toISOString();
    // Before the call: after a kill, we know that it may have been made.
    await save(order);
    const [outcome, error] = await call(order, name);
    step.last_error = error;
    if (outcome === "done") {
      step.status = "done";
      const forward = order.steps.find((it) => FORWARD[it.name] === name);
      if (forward) forward.status = "compensated";
    } else if (outcome === "refused" && name in FORWARD) {
      [step.status, order.reason] = ["refused", error];
      const left = Object.keys(FORWARD).filter((it) => !order.steps.some(({ name }) => name === it));
      order.steps.push(...left.map((name) => ({ name, status: "skipped", attempts: 0, at: step.at, last_error: null })));
    } else if (outcome === "broken" || step.attempts >= MOST_ATTEMPTS) {
      [order.status, order.reason] = ["stuck", `${name}: ${error}`];
      return save(order);
    } else {
      await save(order);
      await sleep(Math.min(LONGEST_PAUSE_MS, 100 * 2 ** step.attempts));
    }
  }
  order.status = order.steps.some(({ status }) => status === "refused") ? "cancelled" : "confirmed";
  await save(order);
}

/** Asks a participant. The key is the step's own, so it can be asked again when no answer was heard. */
async function call(order, name) {
  const fields = (SENT[name] ?? []).map((field) => [field, order.request[field]]);
  const participant = PARTICIPANTS[name];
  const url = process.env[`${participant.toUpperCase()}_URL`] ?? edge.OWN;
  let [status, detail] = [0, null];
  try {
    const answer = await fetch(`${url}/${participant}/${name}`, {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": `${order.id}.${name}` },
      body: JSON.stringify({ order_id: order.id, ...Object.fromEntries(fields) }),
      // `fetch` itself waits for minutes.
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    status = answer.status;
    detail = (await answer.json()).detail ?? answer.statusText;
  } catch (error) {
    return ["unknown", `no answer: ${error.message}`];
  }
  if (status === 200) return ["done", null];
  if (status === 409) return ["refused", detail];
  // What we have sent is wrong, and will be as wrong the next time.
  return [status >= 500 || status === 429 ? "unknown" : "broken", detail];
}

/** Only for whoever has the lease. One that was asleep for too long must not write over the work of the next. */
async function save({ id, lease, status, reason, steps }) {
  const { rowCount: ours } = await pool.query(
    `
    update orders
    set status = $3, reason = $4, steps = $5, leased_until = clock_timestamp() + make_interval(secs => $6)
    where id = $1 and lease = $2
    `,
    [id, lease, status, reason, JSON.stringify(steps), LEASE_SECONDS],
  );
  if (!ours) throw new Fenced();
}

async function claim() {
  const { rows: [row] } = await pool.query(
    `
    update orders
    set lease = $1, leased_until = clock_timestamp() + make_interval(secs => $2)
    where id = (
        select id from orders
        where status = 'pending' and leased_until < clock_timestamp()
        order by number
        limit 1
        for update skip locked
    )
    returning *
    `,
    [randomUUID(), LEASE_SECONDS],
  );
  return row && { ...row, request: JSON.parse(row.request), steps: JSON.parse(row.steps) };
}

const placed = new EventEmitter().setMaxListeners(WORKERS);

async function work(stopped) {
  while (!stopped.aborted) {
    try {
      const order = await claim();
      if (order) {
        await carryOn(order);
        continue;
      }
    } catch (error) {
      if (error instanceof Fenced) continue;
      console.error("an order waits:", error.message);
    }
    // Also without a call: a lease may have ended.
    await once(placed, "order", { signal: AbortSignal.any([stopped, AbortSignal.timeout(500)]) }).catch(() => {});
  }
}

const shown = ({ id, status, reason, steps }) => ({ id, status, reason, steps: JSON.parse(steps) });

async function place(request, reply) {
  const { body } = request;
  participants.eachOnce(body.items);
  const [key, fingerprint] = [participants.idempotencyKey(request), edge.fingerprint(body)];
  // After this, the order will end, whatever happens to this process.
  await pool.query(
    "insert into orders (id, key, fingerprint, request) values ($1, $2, $3, $4) on conflict (key) do nothing",
    [randomUUID(), key, fingerprint, JSON.stringify(body)],
  );
  const { rows: [row] } = await pool.query("select * from orders where key = $1", [key]);
  if (!row.fingerprint.equals(fingerprint)) throw new Problem(422, "This key was sent with another order before.");
  placed.emit("order");
  return reply.code(202).header("location", `/orders/${row.id}`).send(shown(row));
}

async function newest({ query }) {
  const { status = null, ...others } = query;
  if (Object.keys(others).length || (status !== null && !STATUSES.includes(status))) {
    throw new Problem(422, `is the only parameter, and one of ${STATUSES.join(", ")}`, { field: "status" });
  }
  const { rows } = await pool.query(
    "select * from orders where $1::text is null or status = $1 order by number desc limit 100",
    [status],
  );
  return { orders: rows.map(shown) };
}

async function lookAt({ params: { id } }) {
  const { rows: [row] } = await pool.query("select * from orders where id = $1", [id]);
  if (!row) throw new Problem(404, "There is no such order.");
  return shown(row);
}

async function retry({ params: { id } }, reply) {
  await edge.transaction(pool, async (client) => {
    const { rows: [row] } = await client.query("select * from orders where id = $1 for update", [id]);
    if (!row) throw new Problem(404, "There is no such order.");
    if (row.status !== "stuck") throw new Problem(409, "This order is not stuck.");
    const steps = JSON.parse(row.steps).map((step) => (step.status === "pending" ? { ...step, attempts: 0 } : step));
    await client.query(
      "update orders set status = 'pending', reason = null, steps = $2, leased_until = '-infinity' where id = $1",
      [id, JSON.stringify(steps)],
    );
  });
  placed.emit("order");
  return reply.code(202).header("location", `/orders/${id}`).send({ id, status: "pending" });
}

const { items, amount_cents, payment_method, address } = participants;
const customer_id = { type: "string", minLength: 1, maxLength: 64, format: "line" };
const order = edge.object({ customer_id, items, amount_cents, payment_method, address });
app.post("/orders", { schema: { body: order } }, place);
app.get("/orders", newest);
app.get(`/orders/:id(^${edge.UUID}$)`, lookAt);
app.post(`/orders/:id(^${edge.UUID}$)/retry`, retry);

const stopped = new AbortController();
const workers = Array.from({ length: WORKERS }, () => work(stopped.signal));
await edge.serve(app, async () => {
  stopped.abort();
  await Promise.all(workers);
  await pool.end();
});
