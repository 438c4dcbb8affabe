// What makes an API one that can be used without reading its source? Status codes that say who has to do what, conditions instead of
// locks, keys that make a POST repeatable, and links.
//
//     cargo run -- example rest-api --in node
//
// Fastify, pg, fast-json-patch and graphql. In reading order: `create`, `page`, `put`, `patch`, and then `parts.mjs`.

import { randomUUID } from "node:crypto";
import * as edge from "../edge.mjs";
import * as parts from "./parts.mjs";

const { Problem } = edge;

const SCHEMA = `
-- From a sequence, so that a user who is created again under an old id has none of the old versions.
create sequence if not exists versions;
create table if not exists users (
    id uuid primary key,
    name text not null,
    email text not null,
    mailbox text collate "C" not null constraint users_mailbox unique,
    tags text[] not null,
    version bigint not null default nextval('versions'),
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp()
);
create index if not exists users_by_creation on users (created_at, id);
create index if not exists users_by_name on users (name collate "C", id);
create table if not exists orders (
    id uuid primary key,
    number bigint generated always as identity,
    user_id uuid not null constraint orders_user_id_fkey references users on delete cascade,
    item text not null,
    quantity int not null,
    state text not null default 'open'
);
create index if not exists orders_of_user on orders (user_id, number);
create table if not exists idempotency_keys (
    key text collate "C" primary key,
    fingerprint bytea not null,
    status int,
    headers text,
    body text
);
`;

const OLD = { deprecation: "@1767225600", sunset: "Fri, 31 Dec 2027 23:59:59 GMT" };
// PostgreSQL's times are finer than a Date of JavaScript. In a cursor, the difference would repeat a user or leave one out.
const SORTS = { created_at: ["created_at", "timestamptz"], name: ['name collate "C"', "text"] };
const USER = "*, created_at::text as place";

const pool = await edge.pool(SCHEMA);
const areTags = (tags) => tags.length <= 10 && tags.every((tag) => tag.length >= 1 && [...tag].length <= 50 && edge.isLine(tag));
const app = edge.app({ ready: () => pool.query("select 1") });
const newUser = edge.object(
  {
    name: { type: "string", minLength: 1, maxLength: 200, format: "line" },
    email: edge.email,
    tags: { type: "array", items: { type: "string" } },
  },
  ["name", "email"],
);
const isUser = edge.validator(newUser);

/** The user in a body. The rules for tags are ours, so that the error names the field and not one of its items. */
function userIn(body) {
  const { name, email, tags = [] } = body;
  const bad = isUser(body);
  if (!Array.isArray(tags) || !tags.every((tag) => typeof tag === "string") || !areTags(tags)) {
    bad.push({ field: "tags", message: "must be at most ten texts of 1 to 50 characters on one line" });
  }
  if (bad.length) throw new Problem(422, "Some fields are invalid.", { errors: bad });
  return { name, email, tags };
}

function shown({ id, name, email, tags, created_at, updated_at }) {
  const path = `/users/${id}`;
  return { id, name, email, tags, created_at, updated_at, _links: { self: { href: path }, orders: { href: `${path}/orders` } } };
}
const asCustomer = ({ id, name, email }) => ({ id, full_name: name, email });
const tag = ({ version }) => `"${version}"`;

function answer(reply, row, status = 200) {
  if (status === 201) reply.header("location", `/users/${row.id}`);
  return reply.code(status).header("etag", tag(row)).send(shown(row));
}

const taken = (error) => {
  throw error.constraint === "users_mailbox" ? new Problem(409, "Somebody has this address.") : error;
};

/** Nothing if there is such an id already. The index decides who has an address. */
async function inserted(client, id, { name, email, tags }) {
  const insert = `
    insert into users (id, name, email, mailbox, tags) values ($1, $2, $3, $4, $5)
    on conflict (id) do nothing
    returning ${USER}
  `;
  const { rows: [row] } = await client.query(insert, [id, name, email, edge.mailbox(email), tags]).catch(taken);
  return row;
}

async function create(request, reply) {
  const user = userIn(request.body);
  if (request.headers["idempotency-key"] === undefined) return answer(reply, await inserted(pool, randomUUID(), user), 201);
  const [key, fingerprint] = [edge.idempotencyKey(request), edge.fingerprint(request.body)];
  const { status, headers, body } = await edge.transaction(pool, async (client) => {
    const claim = "insert into idempotency_keys (key, fingerprint) values ($1, $2) on conflict do nothing";
    const { rowCount: claimed } = await client.query(claim, [key, fingerprint]);
    if (!claimed) {
      const { rows: [known] } = await client.query("select * from idempotency_keys where key = $1", [key]);
      if (!known.fingerprint.equals(fingerprint)) throw new Problem(422, "This key was sent with another body before.");
      return { ...known, headers: JSON.parse(known.headers) };
    }
    await client.query("savepoint made");
    const made = await inserted(client, randomUUID(), user).then(
      (row) => ({
        status: 201,
        headers: { location: `/users/${row.id}`, etag: tag(row), "content-type": "application/json; charset=utf-8" },
        body: JSON.stringify(shown(row)),
      }),
      async (error) => {
        if (!(error instanceof Problem)) throw error;
        await client.query("rollback to savepoint made");
        // A refusal is an answer too, and stays the answer of its key.
        return edge.problem(error);
      },
    );
    const update = "update idempotency_keys set status = $2, headers = $3, body = $4 where key = $1";
    await client.query(update, [key, made.status, JSON.stringify(made.headers), made.body]);
    return made;
  });
  return reply.code(status).headers(headers).send(body);
}

/**
 * The rows of a page, and the path of the next one. From the last place, and not by a number of rows to leave out: a user who comes
 * or goes meanwhile moves nobody to another page.
 */
async function page({ query, url }) {
  for (const [name, value] of Object.entries(query)) {
    if (!["limit", "sort", "email", "include", "cursor"].includes(name) || typeof value !== "string") {
      throw new Problem(422, "is no parameter of this call, or is there twice", { field: name });
    }
  }
  const { sort = "created_at", include = "orders", email, cursor } = query;
  const limit = edge.oneNumber(query, "limit", 1, 200, 50);
  const known = Object.entries(SORTS).find(([name]) => [name, `-${name}`].includes(sort));
  if (!known) throw new Problem(422, "must be name or created_at, perhaps with -", { field: "sort" });
  if (include !== "orders") throw new Problem(422, "must be orders", { field: "include" });
  const mailbox = email === undefined ? null : edge.mailbox(userIn({ name: "x", email }).email);
  const of = [sort, mailbox];
  const place = cursor === undefined ? [null, null] : parts.placeOf(cursor, of);
  const [column, kind] = known[1];
  if (place[0] && kind === "timestamptz" && Number.isNaN(Date.parse(place[0]))) parts.placeOf("", of);
  const [sign, order] = sort.startsWith("-") ? ["<", "desc"] : [">", "asc"];
  const { rows } = await pool.query(
    `
    select ${USER} from users
    where ($1::text is null or mailbox = $1)
        and ($2::${kind} is null or (${column}, id) ${sign} ($2, $3::uuid))
    order by ${column} ${order}, id ${order}
    limit $4
    `,
    [mailbox, ...place, limit + 1],
  );
  if (rows.length <= limit) return { rows };
  const last = rows[limit - 1];
  const next = new URLSearchParams({ ...query, cursor: parts.cursorOf(of, kind === "text" ? last.name : last.place, last.id) });
  return { rows: rows.slice(0, limit), next: `${url.split("?")[0]}?${next}` };
}

async function listUsers(request, reply) {
  const { rows, next } = await page(request);
  let items = rows.map(shown);
  if (request.query.include) {
    const orders = await parts.ordersOf(pool, rows.map(({ id }) => id));
    items = items.map((item) => ({ ...item, orders: orders.get(item.id) }));
  }
  if (next) reply.header("link", `<${next}>; rel="next"`);
  return { items, _links: next ? { next: { href: next } } : {} };
}

async function found(id) {
  const { rows: [row] } = await pool.query(`select ${USER} from users where id = $1`, [id]);
  if (!row) throw new Problem(404, "There is no such user.");
  return row;
}

const tagsIn = (header = "") => header.split(",").map((tag) => tag.trim());

async function read({ params: { id }, headers }, reply) {
  const mediaType = parts.chosen(headers.accept);
  const row = await found(id);
  const old = mediaType === parts.V1;
  // Other bytes have another tag.
  const etag = old ? `"${row.version}-v1"` : tag(row);
  reply.headers({ etag, vary: "Accept", "last-modified": row.updated_at.toUTCString() });
  const known = tagsIn(headers["if-none-match"]);
  // For a read, a weak tag is as good as a strong one.
  if (known.includes("*") || known.map((it) => it.replace(/^W\//, "")).includes(etag)) return reply.code(304).send();
  return reply.type(mediaType).send(JSON.stringify(old ? asCustomer(row) : shown(row)));
}

function mustMatch(row, ifMatch) {
  if (ifMatch === undefined) throw new Problem(428, "Send `If-Match` with the ETag that you have read.");
  // A weak tag never matches: two that are weakly the same may differ.
  if (ifMatch.trim() !== "*" && !tagsIn(ifMatch).includes(tag(row))) throw new Problem(412, "The user has been changed since.");
}

async function replaced(client, row, user) {
  const { name, email, tags } = user;
  if (JSON.stringify([row.name, row.email, row.tags]) === JSON.stringify([name, email, tags])) return row;
  const update = `
    update users
    set name = $2, email = $3, mailbox = $4, tags = $5, version = nextval('versions'), updated_at = clock_timestamp()
    where id = $1
    returning ${USER}
  `;
  return (await client.query(update, [row.id, name, email, edge.mailbox(email), tags]).catch(taken)).rows[0];
}

const locked = async (client, id) => (await client.query(`select ${USER} from users where id = $1 for update`, [id])).rows[0];

async function put({ params: { id }, headers, body }, reply) {
  const user = userIn(body);
  const { row, status } = await edge.transaction(pool, async (client) => {
    let row = await locked(client, id);
    if (!row) {
      if (headers["if-match"] !== undefined) throw new Problem(412, "There is no such user any more.");
      row = await inserted(client, id, user);
      if (row) return { row, status: 201 };
      row = await locked(client, id);
    }
    if (tagsIn(headers["if-none-match"]).includes("*")) throw new Problem(412, "There is such a user.");
    mustMatch(row, headers["if-match"]);
    return { row: await replaced(client, row, user), status: 200 };
  });
  return answer(reply, row, status);
}

async function patch({ params: { id }, headers, body }, reply) {
  const mediaType = headers["content-type"].split(";")[0].trim().toLowerCase();
  const row = await edge.transaction(pool, async (client) => {
    const row = await locked(client, id);
    if (!row) throw new Problem(404, "There is no such user.");
    mustMatch(row, headers["if-match"]);
    const { name, email, tags } = row;
    const { id: after, ...user } = parts.patched({ id, name, email, tags }, mediaType, body);
    if (after !== id) throw new Problem(422, "cannot be changed", { field: "id" });
    return replaced(client, row, userIn(user));
  });
  return answer(reply, row);
}

async function remove({ params: { id }, headers }, reply) {
  await edge.transaction(pool, async (client) => {
    const row = await locked(client, id);
    if (row && headers["if-match"] !== undefined) mustMatch(row, headers["if-match"]);
    // An order needs a lock on its user, so none comes between this look and the deletion.
    const { rowCount: open } = await client.query("select from orders where user_id = $1 and state = 'open'", [id]);
    if (open) throw new Problem(409, "This user has an open order.");
    await client.query("delete from users where id = $1", [id]);
  });
  return reply.code(204).send();
}

async function customers(request, reply) {
  const { rows, next } = await page(request);
  reply.headers({ ...OLD, ...(next && { link: `<${next}>; rel="next"` }) });
  return { items: rows.map(asCustomer) };
}

const paths = {};
app.addHook("onRoute", ({ url, method, path }) => {
  const name = url.replace(/:(\w+)\(\^.*?\$\)(?=\/|$)/g, "{$1}");
  if (["/docs", "/openapi.json", "*"].includes(path)) return;
  for (const it of [method].flat()) {
    if (it !== "HEAD") (paths[name] ??= {})[it.toLowerCase()] = { responses: { default: { description: "See the table of calls." } } };
  }
});
const ID = `:id(^${edge.UUID}$)`;
app.post("/users", { schema: { body: { type: "object" } } }, create);
app.get("/users", listUsers);
app.get(`/users/${ID}`, read);
app.put(`/users/${ID}`, { schema: { body: { type: "object" } } }, put);
app.delete(`/users/${ID}`, remove);
app.register(async (patches) => {
  // A patch has types of its own.
  patches.removeAllContentTypeParsers();
  const types = [parts.MERGE_PATCH, parts.JSON_PATCH];
  patches.addContentTypeParser(types, { parseAs: "string" }, async (_request, text) => edge.parse(text));
  patches.setErrorHandler((error, _request, reply) => {
    const isType = error.code === "FST_ERR_CTP_INVALID_MEDIA_TYPE";
    return edge.send(isType ? reply.header("accept-patch", types.join(", ")) : reply, error);
  });
  patches.patch(`/users/${ID}`, patch);
});
parts.serveOrders(app, pool);
app.get("/v1/customers", customers);
app.get(`/v1/customers/${ID}`, async ({ params }, reply) => {
  reply.headers(OLD);
  return asCustomer(await found(params.id));
});
const graph = parts.schema((most) => parts.usersWithOrders(pool, most));
const query = { query: { type: "string" }, variables: { type: ["object", "null"] }, operationName: { type: ["string", "null"] } };
app.post("/graphql", { schema: { body: edge.object(query, ["query"]) } }, ({ body }) =>
  parts.answered(graph, body.query, body.variables ?? {}),
);
app.get("/openapi.json", async () => ({ openapi: "3.1.0", info: { title: "Users", version: "2" }, paths }));
app.get("/docs", async (_request, reply) => {
  const calls = Object.entries(paths).flatMap(([path, it]) => Object.keys(it).map((method) => `${method.toUpperCase()} ${path}`));
  const list = calls.map((call) => `<li><code>${call}</code></li>`).join("");
  const page = `<!doctype html><meta charset="utf-8"><title>Users</title><h1>The calls</h1><ul>${list}</ul>`;
  return reply.type("text/html; charset=utf-8").send(`${page}<a href="/openapi.json">openapi.json</a>`);
});

await edge.serve(app, () => pool.end());
