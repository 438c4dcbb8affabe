// How does a cache never show an old value after a change was answered? Only the reader who holds the key's lease may fill it,
// and each change takes the lease away.
//
//     cargo run -- example cache-aside --in node
//
// Fastify, pg and ioredis. In reading order: `read`, `load`, `FILL`, `forget`, `forgetWhatIsLeft`. While Redis is away, reads go
// to the database, and what could not be deleted from the cache is not read from it. This process remembers that in memory, so
// run one process: a second would still trust the old value until its time to live ends. Ids are texts here: PostgreSQL's
// `bigint` has more digits than a number of JavaScript.

import { Redis } from "ioredis";
import { randomBytes } from "node:crypto";
import * as edge from "../edge.mjs";

const { Problem } = edge;

const SCHEMA = `
create table if not exists users (
    id bigint generated always as identity primary key,
    name text not null,
    email text not null,
    email_key text not null constraint users_email unique,
    version bigint not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
-- Users that may still be cached as they were. Written in the transaction of the change, so that a kill after its commit
-- loses nothing. Nearly always empty.
create table if not exists invalidations (id bigint generated always as identity primary key, user_id bigint not null);
-- A part of every key, so that the cache does not outlive this database.
create table if not exists origin (id uuid not null);
insert into origin select gen_random_uuid() where not exists (select from origin);
`;

const [SECONDS, SECONDS_FOR_NOBODY] = [3600, 10];
// Longer than a query may take. A reader whose lease has ended may not fill the cache any more.
const LEASE_SECONDS = 10;
const FILL = `
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('set', KEYS[2], ARGV[2], 'EX', ARGV[3])
redis.call('del', KEYS[1])
return 1
`;

const newUser = edge.object({
  name: { type: "string", minLength: 1, maxLength: 200, format: "line" },
  email: edge.email,
});

const pool = await edge.pool(SCHEMA);
const { rows: [origin] } = await pool.query("select id from origin");
const prefix = `${process.env.KEY_PREFIX ?? "cache-aside:"}${origin.id}:`;
const [valueKey, leaseKey] = [(id) => `${prefix}user:${id}`, (id) => `${prefix}lease:${id}`];
// A cache that answers later than the database is worse than none.
const redis = new Redis(process.env.REDIS_URL, {
  commandTimeout: 250, connectTimeout: 250, maxRetriesPerRequest: 0, enableOfflineQueue: false,
  retryStrategy: (times) => Math.min(times * 50, 1_000),
});
redis.on("error", () => {});
redis.defineCommand("fill", { numberOfKeys: 2, lua: FILL });

/** A promise for each user that is being read from the database. */
const loading = new Map();
/** Users whose cached value may be older than an answered change, and the number of that change. */
const distrusted = new Map();

/** For each of the users: `user`, which is null if there is none, and what `Cache-Status` says. */
async function read(ids) {
  const trusted = ids.filter((id) => !distrusted.has(id));
  const cached = trusted.length ? await redis.mget(trusted.map(valueKey)).catch(() => null) : [];
  const cacheable = new Set(cached ? trusted : []);
  const found = new Map();
  cached?.forEach((text, index) => {
    if (!text) return;
    const { user, until } = JSON.parse(text);
    const left = Math.max(0, Math.floor((until - Date.now()) / 1000));
    found.set(trusted[index], { user, left, status: `hit; ttl=${left}` });
  });
  // Of many who miss the same user, one asks the database, and the others wait for what it gets. A change takes the promise out
  // of `loading` before it is answered, so nobody who comes later waits for a value from before.
  const own = new Set(ids.filter((id) => !found.has(id) && !loading.has(id)));
  if (own.size) {
    const promise = load([...own], [...own].filter((id) => cacheable.has(id)));
    own.forEach((id) => loading.set(id, promise));
    const over = () => own.forEach((id) => loading.get(id) === promise && loading.delete(id));
    promise.then(over, over);
  }
  const waiting = ids.filter((id) => !found.has(id)).map((id) => [id, loading.get(id)]);
  for (const [id, promise] of waiting) {
    const { users, stored } = await promise;
    const reason = cacheable.has(id) ? "fwd=miss" : "fwd=bypass";
    const what = !own.has(id) ? "; collapsed" : stored.has(id) ? "; stored" : "";
    found.set(id, { user: users.get(id) ?? null, status: reason + what });
  }
  return found;
}

// ANCHOR: load
/**
 * From the database; and which of them are in the cache now. The lease is taken before the query: a change that the query does
 * not see then comes after the lease, and takes it away.
 */
async function load(ids, cacheable) {
  const tokens = await lease(cacheable);
  const { rows } = await pool.query("select *, id::text from users where id = any($1::bigint[])", [ids]);
  const users = new Map(rows.map((row) => [row.id, shown(row)]));
  const fills = [...tokens].map(([id, token]) => fill(id, token, users.get(id) ?? null));
  const stored = await Promise.all(fills);
  return { users, stored: new Set([...tokens.keys()].filter((_, index) => stored[index])) };
}

async function lease(ids) {
  const tokens = new Map(ids.map((id) => [id, randomBytes(8).toString("hex")]));
  const take = ([id, token]) => redis.set(leaseKey(id), token, "EX", LEASE_SECONDS, "NX").catch(() => null);
  const got = await Promise.all([...tokens].map(take));
  return new Map([...tokens].filter((_, index) => got[index] === "OK"));
}

async function fill(id, token, user) {
  const seconds = user ? SECONDS : SECONDS_FOR_NOBODY;
  const entry = JSON.stringify({ user, until: Date.now() + seconds * 1000 });
  return redis.fill(leaseKey(id), valueKey(id), token, entry, seconds).catch(() => 0);
}
// ANCHOR_END: load

/** After the commit and before the answer. If the cache cannot forget, it is not believed until it has. */
async function forget(id, invalidation) {
  loading.delete(id);
  distrusted.set(id, Math.max(invalidation, distrusted.get(id) ?? 0));
  try {
    await redis.del(leaseKey(id), valueKey(id));
  } catch {
    return;
  }
  await finished([[id, invalidation]]);
}

async function finished(forgotten) {
  for (const [id, invalidation] of forgotten) {
    // A later change may be waiting for its own deletion.
    if (distrusted.get(id) <= invalidation) distrusted.delete(id);
  }
  await pool.query(
    `
    delete from invalidations using unnest($1::bigint[], $2::bigint[]) as done (user_id, id)
    where invalidations.user_id = done.user_id and invalidations.id <= done.id
    `,
    [forgotten.map(([id]) => id), forgotten.map(([, invalidation]) => invalidation)],
  );
}

/** What a process that was killed, or a Redis that was away, has left in the cache. */
async function forgetWhatIsLeft() {
  const left = [...distrusted];
  if (left.length === 0) return;
  try {
    await redis.del(...left.flatMap(([id]) => [leaseKey(id), valueKey(id)]));
    await finished(left);
  } catch {
    // The next time.
  }
}

const shown = ({ id, name, email, version, created_at, updated_at }) => ({ id, name, email, created_at, updated_at, version });

/** The user as JSON. An id with more digits than a number can hold is written digit by digit. */
const json = ({ version, ...user }) => JSON.stringify(user).replace(/^{"id":"(\d+)"/, '{"id":$1');

function answer(reply, user, status = 200) {
  return reply.code(status).header("etag", `"${user.version}"`).type("application/json").send(json(user));
}

const taken = (error) => {
  throw error.constraint === "users_email" ? new Problem(409, "Somebody has this address.") : error;
};

async function create({ body: { name, email } }, reply) {
  const { rows: [row] } = await pool
    .query(
      `
      with made as (
          insert into users (name, email, email_key) values ($1, $2, $3) returning *
      ), noted as (
          insert into invalidations (user_id) select id from made returning id
      )
      select made.*, made.id::text, noted.id as invalidation from made, noted
      `,
      [name, email, edge.mailbox(email)],
    )
    .catch(taken);
  // That there is nobody of this id may be cached.
  await forget(row.id, row.invalidation);
  reply.header("location", `/users/${row.id}`);
  return answer(reply, shown(row), 201);
}

async function readOne({ params }, reply) {
  const id = edge.number(params.id);
  const { user, status } = (await read([id])).get(id);
  reply.header("cache-status", `redis; ${status}`);
  if (!user) throw new Problem(404, "There is no such user.");
  return answer(reply, user);
}

async function readMany({ query }, reply) {
  // Of a parameter that is there twice, Node makes a list.
  const ids = typeof query.ids === "string" ? [...new Set(query.ids.split(","))] : [];
  if (ids.length < 1 || query.ids.split(",").length > 100 || !ids.every(edge.isNumber)) {
    throw new Problem(422, "must be 1 to 100 ids with commas between them, once", { field: "ids" });
  }
  const found = await read(ids);
  const all = [...found.values()];
  const hits = all.every(({ left }) => left !== undefined);
  reply.header("cache-status", `redis; ${hits ? `hit; ttl=${Math.min(...all.map(({ left }) => left))}` : "fwd=partial"}`);
  const users = ids.map((id) => found.get(id).user).filter(Boolean).map(json);
  const missing = ids.filter((id) => !found.get(id).user);
  return reply.type("application/json").send(`{"users":[${users}],"missing":[${missing}]}`);
}

async function change({ params, body: { name, email }, headers }, reply) {
  const [id, tags] = [edge.number(params.id), headers["if-match"]];
  if (tags === undefined) throw new Problem(428, "Send `If-Match` with the ETag that you have read.");
  // A weak tag begins with W/, and never matches.
  const versions = tags.split(",").flatMap((tag) => /^"(\d{1,18})"$/.exec(tag.trim())?.[1] ?? []);
  // PostgreSQL looks at the version again once it has the lock of the row, so of many changes one is made.
  const { rows: [row] } = await pool
    .query(
      `
      with changed as (
          update users
          set name = $2, email = $3, email_key = $4, version = version + 1, updated_at = greatest(now(), created_at)
          where id = $1 and ($5 or version = any($6::bigint[]))
          returning *
      ), noted as (
          insert into invalidations (user_id) select id from changed returning id
      )
      select changed.*, changed.id::text, noted.id as invalidation from changed, noted
      `,
      [id, name, email, edge.mailbox(email), tags.trim() === "*", versions],
    )
    .catch(taken);
  if (!row) {
    const { rowCount } = await pool.query("select from users where id = $1", [id]);
    throw rowCount ? new Problem(412, "The user has been changed since.") : new Problem(404, "There is no such user.");
  }
  await forget(id, row.invalidation);
  return answer(reply, shown(row));
}

async function remove({ params }, reply) {
  const id = edge.number(params.id);
  const { rows: [noted] } = await pool.query(
    `
    with deleted as (delete from users where id = $1 returning id)
    insert into invalidations (user_id) select id from deleted returning id
    `,
    [id],
  );
  if (!noted) throw new Problem(404, "There is no such user.");
  await forget(id, noted.id);
  return reply.code(204).send();
}

const { rows: unfinished } = await pool.query("select user_id::text, max(id) as id from invalidations group by user_id");
unfinished.forEach(({ user_id, id }) => distrusted.set(user_id, id));
await new Promise((resolve) => redis.once("ready", resolve).once("close", resolve));
await forgetWhatIsLeft();
const forgetting = setInterval(forgetWhatIsLeft, 500);

const ID = `:id(^${edge.NUMBER}$)`;
const app = edge.app({ ready: () => pool.query("select 1") });
app.post("/users", { schema: { body: newUser } }, create);
app.get("/users", readMany);
app.get(`/users/${ID}`, readOne);
app.put(`/users/${ID}`, { schema: { body: newUser } }, change);
app.delete(`/users/${ID}`, remove);

await edge.serve(app, async () => {
  clearInterval(forgetting);
  redis.disconnect();
  await pool.end();
});
