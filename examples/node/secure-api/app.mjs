// How is an API secured? Every query names the customer of whoever asks, every call names who may, and what a client sends is never
// more than it may be.
//
//     cargo run -- example secure-api --in node
//
// Fastify, pg, jose and argon2. In reading order: `login`, `find`, `page`, `upload`, and then `guard.mjs`. It limits no logins:
// `jwt-auth` shows how. It lets webhooks through to http://127.0.0.1:9/, as the table of calls asks.

import argon2 from "argon2";
import { randomUUID } from "node:crypto";
import * as edge from "../edge.mjs";
import * as guard from "./guard.mjs";

const { Problem } = edge;

const SCHEMA = `
create table if not exists customers (id uuid primary key, name text not null unique);
create table if not exists users (
    id uuid primary key,
    email text not null unique,
    role text not null check (role in ('clerk', 'viewer', 'admin')),
    customer_id uuid references customers,
    password_hash text not null
);
create table if not exists invoices (
    id uuid primary key,
    number bigint generated always as identity unique,
    customer_id uuid not null references customers,
    title text not null,
    note text not null,
    amount_cents bigint not null check (amount_cents > 0),
    corrects uuid,
    paid boolean not null default false,
    created_at timestamptz not null default now(),
    unique (id, customer_id),
    -- Whatever the code forgets, an invoice corrects none of another customer's.
    foreign key (corrects, customer_id) references invoices (id, customer_id) on delete set null (corrects)
);
create index if not exists invoices_of_customer on invoices (customer_id, number);
create table if not exists attachments (
    id uuid primary key,
    customer_id uuid not null references customers,
    invoice_id uuid not null references invoices on delete cascade,
    name text not null,
    media_type text not null,
    data bytea not null
);
create table if not exists webhooks (id uuid primary key, customer_id uuid not null references customers, url text not null);
create table if not exists audit (
    seq bigint generated always as identity primary key,
    actor text not null,
    action text not null,
    object text not null,
    request_id text not null,
    hash text not null
);
`;

const PASSWORD = "seven quiet otters at noon";
const ACCOUNTS = [
  ["ada@acme.example", "clerk", "Acme"], ["vic@acme.example", "viewer", "Acme"], ["gil@globex.example", "clerk", "Globex"],
  ["olga@operator.example", "admin", null],
];
const LARGEST_FILE = 2 * 1024 * 1024;
const COST = { type: argon2.argon2id, memoryCost: 19 * 1024, timeCost: 2, parallelism: 1 };
// What a client sees of an invoice. A column that is added one day is not among them.
const COLUMNS = "id, title, note, amount_cents, corrects, paid, created_at";
const UUID = new RegExp(`^${edge.UUID}$`);

const pool = await edge.pool(SCHEMA);
const hash = await argon2.hash(PASSWORD, COST);
for (const [email, role, customer] of ACCOUNTS) {
  if (customer) await pool.query("insert into customers values ($1, $2) on conflict do nothing", [randomUUID(), customer]);
  await pool.query(
    "insert into users select $1, $2, $3, (select id from customers where name = $4), $5 on conflict do nothing",
    [randomUUID(), email, role, customer, hash],
  );
}

async function login({ body: { email, password }, name }) {
  const { rows: [user] } = await pool.query("select * from users where email = lower($1)", [email.replaceAll("\0", "")]);
  // Verified for an address that nobody has, so that it takes as long.
  const right = await argon2.verify(user?.password_hash ?? hash, password);
  if (!user || !right) {
    throw new Problem(401, "The address or the password is wrong.", { headers: { "www-authenticate": "Bearer" } });
  }
  const claims = { sub: user.id, role: user.role, customer: user.customer_id };
  await edge.transaction(pool, (client) => guard.audit(client, { ...claims, request: name }, "logged in", "login"));
  return { access_token: await guard.sign(claims), token_type: "Bearer", expires_in: guard.LIFE_SECONDS };
}

/** Another customer's is as if it were not there: 403 would say that it is. */
async function find(user, id, table = "invoices", columns = COLUMNS) {
  const query = `select ${columns} from ${table} where id = $1 and customer_id = $2`;
  const { rows: [row] } = await pool.query(query, [id, user.customer]);
  if (!row) throw new Problem(404, "There is nothing here.");
  return row;
}

/** The row that the statement returns, if it has changed one. It and the entry in the log are written both or not at all. */
async function done(user, action, object, statement, values) {
  return edge.transaction(pool, async (client) => {
    const { rows: [row] } = await client.query(statement, values);
    if (!row) throw new Problem(404, "There is nothing here.");
    await guard.audit(client, user, action, object);
    return row;
  });
}

async function create({ user, body: { title, note = "", amount_cents, corrects } }, reply) {
  if (corrects) {
    const query = "select from invoices where id = $1 and customer_id = $2";
    const { rowCount } = await pool.query(query, [corrects, user.customer]);
    if (!rowCount) throw new Problem(422, "must be an earlier invoice of yours", { field: "corrects" });
  }
  const id = randomUUID();
  const row = await done(
    user, "invoice created", id,
    `
    insert into invoices (id, customer_id, title, note, amount_cents, corrects)
    values ($1, $2, $3, $4, $5, $6)
    returning ${COLUMNS}
    `,
    [id, user.customer, title, note, amount_cents, corrects],
  );
  return reply.code(201).header("location", `/invoices/${id}`).send(row);
}

const change = ({ user, params: { id }, body: { title, note } }) =>
  done(
    user, "invoice changed", id,
    `
    update invoices set title = coalesce($3, title), note = coalesce($4, note)
    where id = $1 and customer_id = $2
    returning ${COLUMNS}
    `,
    [id, user.customer, title, note],
  );

async function remove({ user, params: { id } }, reply) {
  const statement = "delete from invoices where id = $1 and customer_id = $2 returning id";
  await done(user, "invoice deleted", id, statement, [id, user.customer]);
  return reply.code(204).send();
}

/** The rows of one page, and the id of its last if there are more. */
async function page({ user, query }, most) {
  for (const [name, value] of Object.entries(query)) {
    if (!["search", "sort", "limit", "after"].includes(name) || typeof value !== "string") {
      throw new Problem(422, "is no parameter of this call, or is there twice", { field: name });
    }
  }
  const { search = "", sort = "created_at", after = null } = query;
  const limit = edge.oneNumber(query, "limit", 1, most, 50);
  // A column's name cannot be a placeholder, so it is one of ours, and never the client's text.
  const column = new Map([["created_at", "number"], ["amount_cents", "amount_cents"]]).get(sort.replace(/^-/, ""));
  if (!column) throw new Problem(422, "must be created_at or amount_cents, perhaps with -", { field: "sort" });
  if (search.includes("\0") || search.length > 200) {
    throw new Problem(422, "must have at most 200 characters, and no NUL", { field: "search" });
  }
  if (after !== null && !UUID.test(after)) throw new Problem(422, "must be the `next` of the page before", { field: "after" });
  const [sign, order] = sort.startsWith("-") ? ["<", "desc"] : [">", "asc"];
  const { rows } = await pool.query(
    `
    select ${COLUMNS}
    from invoices
    where customer_id = $1
        and strpos(lower(title), lower($2)) > 0
        and ($3::uuid is null or (${column}, number) ${sign} (
            select ${column}, number from invoices where id = $3 and customer_id = $1
        ))
    order by ${column} ${order}, number ${order}
    limit $4
    `,
    [user.customer, search, after, limit + 1],
  );
  return { items: rows.slice(0, limit), next: rows.length > limit ? rows[limit - 1].id : null };
}

async function exported(request, reply) {
  const { items, next } = await page(request, 1000);
  // A spreadsheet runs what begins like a formula.
  const safe = (text) => (/^\s*[=+\-@]/.test(text) ? `'${text}` : text);
  const cell = (value) => `"${String(value).replaceAll('"', '""')}"`;
  const line = ({ id, title, note, amount_cents, created_at }) =>
    [id, safe(title), safe(note), amount_cents, created_at.toISOString()].map(cell).join(",");
  if (next) reply.header("link", `</exports?after=${next}>; rel="next"`);
  const head = ["id", "title", "note", "amount_cents", "created_at"].map(cell).join(",");
  return reply.type("text/csv").send(`${[head, ...items.map(line)].join("\r\n")}\r\n`);
}

async function pdf({ user, params: { id } }, reply) {
  const { title, amount_cents } = await find(user, id);
  return reply.type("application/pdf").send(guard.pdfOf(`${title}: ${(amount_cents / 100).toFixed(2)}`));
}

async function upload({ user, params: { id }, query: { name }, body }, reply) {
  await find(user, id);
  const made = randomUUID();
  const bytes = body ?? Buffer.alloc(0);
  const media_type = guard.kindOf(bytes, name);
  const insert = "insert into attachments values ($1, $2, $3, $4, $5, $6) returning id";
  await done(user, "file attached", made, insert, [made, user.customer, id, name, media_type, bytes]);
  return reply.code(201).header("location", `/attachments/${made}`).send({ id: made, name, media_type });
}

async function download({ user, params: { id } }, reply) {
  const { name, media_type, data } = await find(user, id, "attachments", "name, media_type, data");
  // Saved, and not shown: whatever it is, it is no page of ours.
  return reply.type(media_type).header("content-disposition", `attachment; filename="${name}"`).send(data);
}

async function addWebhook({ user, body: { url } }, reply) {
  const id = randomUUID();
  const insert = "insert into webhooks values ($1, $2, $3) returning id";
  await done(user, "webhook added", id, insert, [id, user.customer, url]);
  return reply.code(201).send({ id, url });
}

async function testWebhook({ user, params: { id } }) {
  const { url } = await find(user, id, "webhooks", "url");
  const status = await guard.deliver(url);
  return { delivered: status !== null && status < 300, status };
}

async function log({ query }) {
  const after = edge.oneNumber(query, "after", 0, Number.MAX_SAFE_INTEGER, 0);
  const { rows } = await pool.query("select * from audit where seq > $1 order by seq limit 200", [after]);
  const { rows: [last] } = await pool.query("select hash from audit where seq <= $1 order by seq desc limit 1", [after]);
  return { items: rows, broken_at: guard.brokenAt(last?.hash ?? "", rows) };
}

const [CLERK, READER, ADMIN] = [guard.may("clerk"), guard.may("clerk", "viewer"), guard.may("admin")];
const isNote = (text) => text === "" || edge.isLine(text);
const app = edge.app({ formats: { public: guard.publicUrl, note: isNote }, ready: () => pool.query("select 1") });
app.addHook("onRequest", guard.headers);
const title = { type: "string", minLength: 1, maxLength: 200, format: "line" };
const note = { type: "string", maxLength: 2000, format: "note" };
const amount_cents = { type: "integer", minimum: 1, maximum: 1_000_000_000_000 };
const corrects = { type: ["string", "null"], pattern: `^${edge.UUID}$` };
const password = { type: "string", maxLength: 128 };
const body = {
  login: edge.object({ email: { type: "string", maxLength: 254 }, password }),
  create: edge.object({ title, note, amount_cents, corrects }, ["title", "amount_cents"]),
  change: edge.object({ title, note }, []),
  webhook: edge.object({ url: { type: "string", format: "public" } }),
};
const ID = `:id(^${edge.UUID}$)`;

/** What each call is, who may, and what it takes. The document for clients is made of the same list. */
const CALLS = [
  ["post", "/login", null, login, body.login],
  ["post", "/invoices", CLERK, create, body.create],
  ["get", "/invoices", READER, (request) => page(request, 100)],
  ["get", `/invoices/${ID}`, READER, ({ user, params }) => find(user, params.id)],
  ["patch", `/invoices/${ID}`, CLERK, change, body.change],
  ["delete", `/invoices/${ID}`, CLERK, remove],
  ["post", `/invoices/${ID}/pdf`, READER, pdf],
  ["get", `/attachments/${ID}`, READER, download],
  ["get", "/exports", READER, exported],
  ["post", "/webhooks", CLERK, addWebhook, body.webhook],
  ["post", `/webhooks/${ID}/test`, CLERK, testWebhook],
  ["get", "/admin/customers", ADMIN, async () => {
    return { items: (await pool.query("select id, name from customers order by name")).rows };
  }],
  ["get", "/audit", ADMIN, log],
];
for (const [method, url, onRequest, handler, schema] of CALLS) {
  // A call without a guard is the login, and has to say so.
  app[method](url, { ...(onRequest && { onRequest }), ...(schema && { schema: { body: schema } }) }, handler);
}
app.register(async (raw) => {
  // Here, a body is bytes, whatever it says that it is.
  raw.removeAllContentTypeParsers();
  raw.addContentTypeParser("*", { parseAs: "buffer" }, async (_request, bytes) => bytes);
  raw.post(`/invoices/${ID}/attachments`, { onRequest: CLERK, bodyLimit: LARGEST_FILE }, upload);
});
const paths = {};
for (const [method, url, guarded, , schema] of [...CALLS, ["post", `/invoices/${ID}/attachments`, CLERK]]) {
  const path = url.replace(ID, "{id}");
  const requestBody = schema && { content: { "application/json": { schema } } };
  const security = guarded ? [{ token: [] }] : [];
  (paths[path] ??= {})[method] = { security, ...(requestBody && { requestBody }), responses: { default: { description: "…" } } };
}
app.get("/openapi.json", async () => ({
  openapi: "3.1.0",
  info: { title: "Invoices", version: "1" },
  components: { securitySchemes: { token: { type: "http", scheme: "bearer" } } },
  paths,
}));

await edge.serve(app, () => pool.end());
