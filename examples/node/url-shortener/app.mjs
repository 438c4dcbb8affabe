// How does a long URL become seven letters? The CRC of the URL in base 62; the unique index decides who owns a code.
//
//     cargo run -- example url-shortener --in node
//
// Fastify and pg. In reading order: `codeOf`, `create`, `follow`, `writeClicks`. Clicks are counted in memory and written
// twice a second, so a kill loses the clicks of the last half second, and no link.

import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { crc32 } from "node:zlib";
import * as edge from "../edge.mjs";

const { Problem } = edge;

const SCHEMA = `
create table if not exists links (
    id bigint generated always as identity primary key,
    code text not null unique,
    url text not null,
    -- Made without alias and expiry: everybody who sends this URL gets this link, and nobody may change it.
    shared boolean not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    token_hash bytea
);
create table if not exists clicks (
    link_id bigint not null references links on delete cascade,
    day date not null,
    host text not null,
    clicks bigint not null,
    primary key (link_id, day, host)
);
`;

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
// Chance never needs the third. Somebody who makes URLs collide on purpose only loses the sharing.
const MOST_CANDIDATES = 20;
// What cannot be a code is no path of ours: 404, without asking the database.
const CODE = ":code(^(?!(?:links|healthz|readyz)$)[A-Za-z0-9_-]{3,32}$)";

/** Only what is safe to redirect to. The URL is kept as it was sent: `URL` would write it in its own way. */
function leadsElsewhere(text) {
  if (!/^https?:\/\/[^/?#\\@][!-~]*$/.test(text) || !URL.canParse(text)) return false;
  const url = new URL(text);
  return !url.username && !url.password && !text.slice(8).split(/[/?#]/)[0].includes("@") && url.origin !== edge.OWN;
}

const url = { type: "string", maxLength: 2048, format: "destination" };
const alias = { type: ["string", "null"], pattern: "^(?!(?:links|healthz|readyz)$)[A-Za-z0-9_-]{3,32}$(?!\\n)" };
const expires_in_seconds = { type: ["integer", "null"], minimum: 1, maximum: 315_360_000 };

let clicks = new Map();
const pool = await edge.pool(SCHEMA);
const app = edge.app({ formats: { destination: leadsElsewhere }, ready: () => pool.query("select 1") });

function codeOf(text) {
  let [number, code] = [crc32(text), ""];
  for (let place = 0; place < 7; place++) {
    code = DIGITS[number % 62] + code;
    number = Math.floor(number / 62);
  }
  return code;
}

async function create({ body: link }, reply) {
  const shared = link.alias == null && link.expires_in_seconds == null;
  const token = shared ? undefined : randomBytes(32).toString("base64url");
  for (let salt = 0; salt < MOST_CANDIDATES; salt++) {
    // A link of somebody's own must not have a code that others can compute.
    const candidate = shared && salt === 0 ? link.url : `${link.url} ${salt} ${shared ? "" : randomBytes(32).toString("hex")}`;
    const code = link.alias ?? codeOf(candidate);
    const row = await insert(code, link, shared, token);
    reply.header("location", `/links/${code}`);
    if (row) return reply.code(201).send({ ...shown(row), edit_token: token });
    const { rows: [owner] } = await pool.query("select * from links where code = $1", [code]);
    if (shared && owner?.shared && owner.url === link.url) return shown(owner);
    if (link.alias != null) throw new Problem(409, "Somebody has this alias.");
  }
  throw edge.busy("No free code was found.");
}

// ANCHOR: insert
/** Whoever inserts first owns the code. A look before the insertion would let two of them find it free. */
async function insert(code, link, shared, token) {
  return edge.transaction(pool, async (client) => {
    // With the link its clicks go, so the next owner of the code does not inherit them.
    await client.query("delete from links where code = $1 and expires_at <= now()", [code]);
    const { rows } = await client.query(
      `
      insert into links (code, url, shared, expires_at, token_hash)
      values ($1, $2, $3, now() + make_interval(secs => $4), $5)
      on conflict (code) do nothing
      returning *
      `,
      [code, link.url, shared, link.expires_in_seconds, token && hashed(token)],
    );
    return rows[0];
  });
}
// ANCHOR_END: insert

// A random token needs no slow hash: nobody can guess 256 bits.
const hashed = (token) => createHash("sha256").update(token).digest();

async function find(code) {
  const { rows: [row] } = await pool.query("select *, expires_at <= now() as ended from links where code = $1", [code]);
  if (!row) throw new Problem(404, "There is no such link.");
  if (row.ended) throw new Problem(410, "This link has expired.");
  return row;
}

const shown = (row) => ({
  code: row.code,
  short_url: `${edge.OWN}/${row.code}`,
  url: row.url,
  created_at: row.created_at,
  expires_at: row.expires_at,
});

async function owned({ params: { code }, headers: { authorization = "" } }) {
  const [, token] = /^bearer +(\S+)\s*$/i.exec(authorization) ?? [];
  if (!token) throw new Problem(401, "Send the edit token.", { headers: { "www-authenticate": "Bearer" } });
  const row = await find(code);
  if (!row.token_hash || !timingSafeEqual(row.token_hash, hashed(token))) {
    throw new Problem(403, "This token cannot change this link.");
  }
  return row;
}

async function change(request) {
  const { body, row } = { body: request.body, row: await owned(request) };
  const { rows: [changed] } = await pool.query(
    `
    update links
    set url = $2,
        expires_at = case when $3 then now() + make_interval(secs => $4) else expires_at end
    where id = $1
    returning *
    `,
    [row.id, body.url ?? row.url, "expires_in_seconds" in body, body.expires_in_seconds],
  );
  if (!changed) throw new Problem(404, "There is no such link.");
  return shown(changed);
}

async function remove(request, reply) {
  const row = await owned(request);
  await pool.query("delete from links where id = $1", [row.id]);
  return reply.code(204).send();
}

async function stats({ params: { code } }) {
  const { id } = await find(code);
  // One statement, so that both lists are of the same moment and have the same sum.
  const { rows } = await pool.query(
    `
    select day::text, host, sum(clicks)::bigint as clicks
    from clicks
    where link_id = $1
    group by grouping sets ((day), (host))
    order by day desc, clicks desc
    `,
    [id],
  );
  const days = rows.filter(({ day }) => day).map(({ day, clicks }) => ({ day, clicks }));
  const hosts = rows.filter(({ host }) => host).map(({ host, clicks }) => ({ host, clicks }));
  const sum = (some) => some.reduce((all, { clicks }) => all + clicks, 0);
  const others = hosts.length > 100 ? [{ host: "other", clicks: sum(hosts.splice(100)) }] : [];
  return { code, clicks: sum(days), by_day: days.slice(0, 366), referrers: [...hosts, ...others] };
}

async function follow({ method, params: { code }, headers: { referer = "" } }, reply) {
  const link = await find(code);
  if (method === "GET") {
    const [, host = "direct"] = /^https?:\/\/([A-Za-z0-9.-]{1,253})/.exec(referer) ?? [];
    count([link.id, new Date().toISOString().slice(0, 10), host.toLowerCase()].join(" "), 1);
  }
  // 302 is not cached unless a header allows it, so the next click comes here too.
  return reply.code(302).headers({ location: link.url, "cache-control": "private, max-age=0" }).send();
}

const count = (key, number) => clicks.set(key, (clicks.get(key) ?? 0) + number);

async function writeClicks() {
  const counted = clicks;
  clicks = new Map();
  if (counted.size === 0) return;
  // Sorted, so that two writers never wait for each other.
  const rows = [...counted.entries()].sort().map(([key, number]) => [...key.split(" "), number]);
  try {
    // The condition leaves out links that were deleted meanwhile.
    await pool.query(
      `
      insert into clicks (link_id, day, host, clicks)
      select new.* from unnest($1::bigint[], $2::date[], $3::text[], $4::bigint[]) as new (link_id, day, host, clicks)
      where exists (select from links where links.id = new.link_id for key share)
      on conflict (link_id, day, host) do update set clicks = clicks.clicks + excluded.clicks
      `,
      [0, 1, 2, 3].map((column) => rows.map((row) => row[column])),
    );
  } catch {
    // The database is away. They are written when it is back.
    counted.forEach((number, key) => count(key, number));
  }
}

app.post("/links", { schema: { body: edge.object({ url, alias, expires_in_seconds }, ["url"]) } }, create);
app.get(`/links/${CODE}`, async ({ params: { code } }) => shown(await find(code)));
app.patch(`/links/${CODE}`, { schema: { body: edge.object({ url, expires_in_seconds }, []) } }, change);
app.delete(`/links/${CODE}`, remove);
app.get(`/links/${CODE}/stats`, stats);
app.get(`/${CODE}`, follow);

let writing = Promise.resolve();
const timer = setInterval(() => (writing = writing.then(writeClicks)), 500);
await edge.serve(app, async () => {
  clearInterval(timer);
  await writing.then(writeClicks);
  await pool.end();
});
