// How is a payment made once, though it is sent twice and many pay at once? The key is claimed in the transaction that moves
// the money, and the rows of both accounts are locked in one order.
//
//     cargo run -- example transaction-demo --in node
//
// Fastify and pg. In reading order: `once`, `move`, `entries`. Amounts are whole cents, and below 2^53: a number of JavaScript
// is a float, which holds no larger whole number exactly. `JSON.parse` cannot tell 1 from 1.0, so both are one cent here.

import * as edge from "../edge.mjs";

const { Problem } = edge;

const SCHEMA = `
create table if not exists accounts (
    id bigint generated always as identity primary key,
    owner text not null,
    -- The sum of the account's entries.
    balance_cents bigint not null,
    created_at timestamptz not null default now(),
    -- Whatever the code forgets, nobody is ever overdrawn. Below 2^53, so that every reader of JSON reads it exactly.
    constraint accounts_balance check (balance_cents between 0 and 9007199254740991)
);
create table if not exists transfers (
    id bigint generated always as identity primary key,
    from_account bigint not null references accounts,
    to_account bigint not null references accounts,
    amount_cents bigint not null check (amount_cents > 0)
);
create table if not exists entries (
    -- Drawn while the account's row is locked, so an account's entries have ids in the order of their commits.
    id bigint generated always as identity primary key,
    account_id bigint not null references accounts,
    -- None for the opening.
    transfer_id bigint references transfers,
    amount_cents bigint not null
);
create index if not exists entries_of_account on entries (account_id, id);
create table if not exists idempotency_keys (
    scope text collate "C" not null,
    key text collate "C" not null,
    fingerprint bytea not null,
    status int,
    location text,
    body text,
    -- This index decides which request acts. A second insert of the key waits here until the first is committed.
    primary key (scope, key)
);
`;

const MOST = Number.MAX_SAFE_INTEGER;
const cents = (minimum) => ({ type: "integer", minimum, maximum: MOST });
const newAccount = edge.object({
  owner: { type: "string", minLength: 1, maxLength: 200, format: "line" },
  balance_cents: cents(0),
});
// Account 0 is nobody's.
const newTransfer = edge.object({ from: cents(1), to: cents(1), amount_cents: cents(1) });

const pool = await edge.pool(SCHEMA);
const app = edge.app({ ready: () => pool.query("select 1") });

// ANCHOR: once
/**
 * Answers as `act` says: with a status, a path and a body. The same key again gets the same answer. Both are committed together
 * with what `act` does, so no kill comes between them.
 */
async function once(scope, request, reply, act) {
  const [key, fingerprint] = [edge.idempotencyKey(request), edge.fingerprint(request.body)];
  const { status, location, body } = await edge.transaction(pool, async (client) => {
    const { rowCount: claimed } = await client.query(
      "insert into idempotency_keys (scope, key, fingerprint) values ($1, $2, $3) on conflict do nothing",
      [scope, key, fingerprint],
    );
    if (claimed) {
      const [status, location, answer] = await act(client, request.body);
      const body = JSON.stringify(answer);
      await client.query(
        "update idempotency_keys set status = $3, location = $4, body = $5 where scope = $1 and key = $2",
        [scope, key, status, location, body],
      );
      return { status, location, body };
    }
    const { rows: [known] } = await client.query("select * from idempotency_keys where scope = $1 and key = $2", [scope, key]);
    if (!known.fingerprint.equals(fingerprint)) throw new Problem(422, "This key was sent with another body before.");
    return known;
  });
  if (status >= 400) {
    const { detail, field } = JSON.parse(body);
    throw new Problem(status, detail, { field });
  }
  return reply.code(status).header("location", location).type("application/json").send(body);
}
// ANCHOR_END: once

/** A refusal is an answer too, and stays the answer of its key: it is committed, and not thrown. */
const refused = (status, detail, field) => [status, null, { detail, field }];

async function open(client, { owner, balance_cents }) {
  const inserted = "insert into accounts (owner, balance_cents) values ($1, $2) returning *";
  const { rows: [account] } = await client.query(inserted, [owner, balance_cents]);
  if (balance_cents > 0) {
    await client.query("insert into entries (account_id, amount_cents) values ($1, $2)", [account.id, balance_cents]);
  }
  return [201, `/accounts/${account.id}`, account];
}

async function move(client, { from, to, amount_cents }) {
  // In the order of their numbers, whoever pays whom: two transfers in opposite directions would wait for each other.
  // The lock is the one that an update takes. `for update` would also hold up foreign keys that refer to these rows.
  const { rows: locked } = await client.query(
    "select id, balance_cents from accounts where id = any($1) order by id for no key update",
    [[from, to]],
  );
  const balances = new Map(locked.map(({ id, balance_cents }) => [id, balance_cents]));
  for (const [account, field] of [[from, "from"], [to, "to"]]) {
    if (!balances.has(account)) return refused(422, "There is no such account.", field);
  }
  if (balances.get(from) < amount_cents) return refused(409, "There is not enough money.");
  // Not a sum, which may be beyond what a number can hold.
  if (balances.get(to) > MOST - amount_cents) return refused(409, "That is more than an account can hold.");
  const { rows: [{ transfer_id: id }] } = await client.query(
    `
    with made as (
        insert into transfers (from_account, to_account, amount_cents) values ($1, $2, $3) returning id
    ), moved as (
        update accounts
        set balance_cents = balance_cents + case when id = $1 then -$3::bigint else $3 end
        where id in ($1, $2)
    )
    insert into entries (account_id, transfer_id, amount_cents)
    select account, made.id, amount from made, (values ($1, -$3::bigint), ($2, $3)) as both_sides (account, amount)
    returning transfer_id
    `,
    [from, to, amount_cents],
  );
  return [201, `/transfers/${id}`, { id, from, to, amount_cents }];
}

async function found(query, number) {
  const { rows: [row] } = await pool.query(query, [edge.number(number)]);
  if (!row) throw new Problem(404, "There is nothing of this number.");
  return row;
}

async function receipt({ params }) {
  const row = await found("select * from transfers where id = $1", params.number);
  return { id: row.id, from: row.from_account, to: row.to_account, amount_cents: row.amount_cents };
}

async function entries({ params: { number: account }, query }) {
  const known = Object.entries(query).every(([name, it]) => ["limit", "after"].includes(name) && /^\d{1,19}$/.test(it));
  if (!known) throw new Problem(400, "The parameters are `limit` and `after`, which are numbers.");
  const [limit, after] = [Number(query.limit ?? 50), BigInt(query.after ?? 0)];
  if (limit < 1 || limit > 200) throw new Problem(422, "must be 1 to 200", { field: "limit" });
  await found("select id from accounts where id = $1", account);
  const largest = 2n ** 63n - 1n;
  // From the last one seen, and not by a number of rows to leave out, which costs more on each page.
  const { rows } = await pool.query(
    `
    select id, transfer_id as transfer, amount_cents
    from entries
    where account_id = $1 and id > $2
    order by id
    limit $3
    `,
    [account, after < largest ? after : largest, limit + 1],
  );
  const page = rows.slice(0, limit);
  const next = rows.length > limit ? `/accounts/${account}/entries?limit=${limit}&after=${page.at(-1).id}` : null;
  return { entries: page.map(({ transfer, amount_cents }) => ({ transfer, amount_cents })), next };
}

app.post("/accounts", { schema: { body: newAccount } }, (request, reply) => once("accounts", request, reply, open));
app.post("/transfers", { schema: { body: newTransfer } }, async (request, reply) => {
  edge.idempotencyKey(request);
  // That body is never good, so the key is not used up.
  if (request.body.from === request.body.to) throw new Problem(422, "must be another account", { field: "to" });
  return once("transfers", request, reply, move);
});
const NUMBER = `:number(^${edge.NUMBER}$)`;
app.get(`/accounts/${NUMBER}`, ({ params }) => found("select * from accounts where id = $1", params.number));
app.get(`/accounts/${NUMBER}/entries`, entries);
app.get(`/transfers/${NUMBER}`, receipt);

await edge.serve(app, () => pool.end());
