// What must a participant promise, so that a saga can stand on it? Each call can be repeated, each undoing comes to the same
// whether its action came before, comes later or never, and a refusal stays a refusal.
//
// In reading order: `once`, `first`, `reserve`, `undo`.

import * as edge from "../edge.mjs";

const { Problem } = edge;

export const SCHEMA = `
create table if not exists stock (
    sku text collate "C" primary key,
    available bigint not null check (available >= 0),
    reserved bigint not null default 0 check (reserved >= 0),
    sold bigint not null default 0
);
create table if not exists reservations (
    order_id uuid not null,
    sku text collate "C" not null references stock,
    quantity bigint not null,
    primary key (order_id, sku)
);
-- The answers, by participant and key.
create table if not exists answers (
    participant text not null,
    key text collate "C" not null,
    fingerprint bytea not null,
    refusal text,
    primary key (participant, key)
);
-- Which steps an order has had. An undoing writes the step as well, so that its action, if it comes later, is refused.
create table if not exists had (order_id uuid not null, step text not null, primary key (order_id, step));
create table if not exists effects (
    number bigint generated always as identity primary key,
    participant text not null,
    order_id uuid not null,
    kind text not null,
    request text not null,
    at timestamptz not null default now(),
    unique (order_id, kind)
);
`;

const SKU = "(?!\\.{1,2}$)[!-.0-~]{1,64}";
const whole = (minimum, maximum) => ({ type: "integer", minimum, maximum });
const line = { type: "string", minLength: 1, maxLength: 200, format: "line" };
const addressLine = { ...line, format: "address-line" };
const item = edge.object({ sku: { type: "string", pattern: `^${SKU}$` }, quantity: whole(1, 1_000_000) });
export const items = { type: "array", minItems: 1, maxItems: 100, items: item };
export const address = edge.object({
  name: addressLine, street: addressLine, city: addressLine, country: { type: "string", pattern: "^[A-Z]{2}$" },
});
export const amount_cents = whole(1, 10_000_000_000);
export const payment_method = line;
export const formats = { "address-line": (text) => edge.isLine(text) && /[\p{L}\p{N}]/u.test(text) };

/** JSON Schema has no words for this. */
export function eachOnce(items) {
  if (new Set(items.map(({ sku }) => sku)).size < items.length) {
    throw new Problem(422, "must have each sku once", { field: "items" });
  }
}

export function idempotencyKey({ raw }) {
  // A key may have commas here, so two must not be made one.
  const keys = raw.headersDistinct["idempotency-key"] ?? [];
  if (keys.length === 1 && /^[ -~]{1,128}$/.test(keys[0]) && keys[0].trim()) return keys[0];
  throw new Problem(400, "Send one `Idempotency-Key` of 1 to 128 printable ASCII characters.");
}

/** It is committed as the answer of its key, so it must not roll back. */
class Refused extends Error {}

export function serve(app, pool) {
  async function once(request, act) {
    const { body, routeOptions } = request;
    const [, participant, action] = routeOptions.url.split("/");
    const key = idempotencyKey(request);
    // The same body for another action is another request.
    const fingerprint = edge.fingerprint({ ...body, action });
    const refusal = await edge.transaction(pool, async (client) => {
      const { rowCount: claimed } = await client.query(
        "insert into answers values ($1, $2, $3) on conflict do nothing",
        [participant, key, fingerprint],
      );
      if (!claimed) {
        const query = "select * from answers where participant = $1 and key = $2";
        const { rows: [known] } = await client.query(query, [participant, key]);
        if (!known.fingerprint.equals(fingerprint)) throw new Problem(422, "This key was sent with another request before.");
        return known.refusal;
      }
      await client.query("savepoint act");
      try {
        await act(client, body);
        return null;
      } catch (refused) {
        if (!(refused instanceof Refused)) throw refused;
        // What it has done before it refused is undone.
        await client.query("rollback to savepoint act");
        const update = "update answers set refusal = $3 where participant = $1 and key = $2";
        await client.query(update, [participant, key, refused.message]);
        return refused.message;
      }
    });
    if (refusal) throw new Problem(409, refusal, { order_id: body.order_id });
    return { order_id: body.order_id, outcome: "done" };
  }

  /** Whether the order has not had this step. The index decides; whoever comes second waits until the first is committed. */
  async function first(client, order, step) {
    const { rowCount } = await client.query("insert into had values ($1, $2) on conflict do nothing", [order, step]);
    return rowCount > 0;
  }

  async function act(client, order, step) {
    if (!(await first(client, order, step))) throw new Refused(`The order has had its ${step}, or it was undone before.`);
  }

  const happened = (client, participant, order, kind, request) =>
    client.query(
      "insert into effects (participant, order_id, kind, request) values ($1, $2, $3, $4)",
      [participant, order, kind, JSON.stringify(request)],
    );

  /** Undoes a step once, if there was one, and keeps it from happening later. */
  const undo = (participant, step, undoing) => async (client, { order_id }) => {
    await first(client, order_id, step);
    const query = "select request from effects where order_id = $1 and kind = $2";
    const { rows: [done] } = await client.query(query, [order_id, step]);
    if (done && (await first(client, order_id, undoing))) {
      await happened(client, participant, order_id, undoing, JSON.parse(done.request));
    }
  };

  async function reserve(client, { order_id, items }) {
    await act(client, order_id, "reserve");
    // In one order, whatever the order of the items: two reservations would wait for each other.
    for (const { sku, quantity } of items.toSorted((one, other) => (one.sku < other.sku ? -1 : 1))) {
      const { rowCount: taken } = await client.query(
        "update stock set available = available - $2, reserved = reserved + $2 where sku = $1 and available >= $2",
        [sku, quantity],
      );
      if (!taken) throw new Refused(`There is not so much of ${sku}.`);
      await client.query("insert into reservations values ($1, $2, $3)", [order_id, sku, quantity]);
    }
  }

  /** Moves what is reserved for the order to this column of the stock. */
  async function endReservation(client, order, column) {
    const deleted = "delete from reservations where order_id = $1 returning sku, quantity";
    const { rows } = await client.query(deleted, [order]);
    for (const { sku, quantity } of rows.toSorted((one, other) => (one.sku < other.sku ? -1 : 1))) {
      const update = `update stock set reserved = reserved - $2, ${column} = ${column} + $2 where sku = $1`;
      await client.query(update, [sku, quantity]);
    }
    return rows.length;
  }

  async function release(client, { order_id }) {
    await first(client, order_id, "reserve");
    await endReservation(client, order_id, "available");
  }

  async function sell(client, { order_id }) {
    if (!(await endReservation(client, order_id, "sold"))) throw new Refused("Nothing is reserved for this order.");
  }

  async function charge(client, { order_id, amount_cents, payment_method }) {
    await act(client, order_id, "charge");
    if (payment_method !== "pm_card_visa") throw new Refused("The card is declined.");
    await happened(client, "payment", order_id, "charge", { amount_cents });
  }

  async function book(client, { order_id, address }) {
    await act(client, order_id, "book");
    if (address.country === "XX") throw new Refused("Nothing is shipped there.");
    await happened(client, "shipping", order_id, "book", { address });
  }

  async function showStock({ params: { sku } }) {
    const { rows: [row] } = await pool.query("select * from stock where sku = $1", [sku]);
    if (!row) throw new Problem(404, "This was never put in.");
    return row;
  }

  async function putStock({ params: { sku }, body: { quantity } }) {
    const { rows: [row] } = await pool.query(
      "insert into stock values ($1, $2) on conflict (sku) do update set available = $2 returning *",
      [sku, quantity],
    );
    return row;
  }

  const effects = (participant) => async ({ params: { id } }) => {
    const query = "select kind, request, at from effects where participant = $1 and order_id = $2 order by number";
    const { rows } = await pool.query(query, [participant, id]);
    return { order_id: id, effects: rows.map((row) => ({ ...row, request: JSON.parse(row.request) })) };
  };

  const order_id = { type: "string", pattern: `^${edge.UUID}$` };
  const call = (path, fields, does) =>
    app.post(path, { schema: { body: edge.object({ order_id, ...fields }) } }, async (request) => {
      if (request.body.items) eachOnce(request.body.items);
      return once(request, does);
    });
  call("/inventory/reserve", { items }, reserve);
  call("/inventory/release", {}, release);
  call("/inventory/sell", {}, sell);
  call("/payment/charge", { amount_cents, payment_method }, charge);
  call("/payment/refund", {}, undo("payment", "charge", "refund"));
  call("/shipping/book", { address }, book);
  call("/shipping/cancel", {}, undo("shipping", "book", "cancel"));
  const stock = `/inventory/stock/:sku(^${SKU}$)`;
  app.put(stock, { schema: { body: edge.object({ quantity: whole(0, 1_000_000) }) } }, putStock);
  app.get(stock, showStock);
  app.get(`/payment/effects/:id(^${edge.UUID}$)`, effects("payment"));
  app.get(`/shipping/effects/:id(^${edge.UUID}$)`, effects("shipping"));
}
