// Who is asking? A token that any service can verify with a public key, without asking anybody; and a refresh token, which the
// database knows, so that a session can be ended.
//
//     cargo run -- example jwt-auth --in node
//
// Fastify, pg, jose and argon2. In reading order: `login`, `accessToken`, `bearer`, `refresh`. It keeps the one key that it made
// at its first start: keys are not changed while it runs.

import argon2 from "argon2";
import { SignJWT, calculateJwkThumbprint, exportJWK, jwtVerify } from "jose";
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes, randomUUID } from "node:crypto";
import * as edge from "../edge.mjs";

const { Problem } = edge;

const SCHEMA = `
create table if not exists users (
    id uuid primary key,
    email text not null,
    mailbox text collate "C" not null constraint users_mailbox unique,
    password_hash text not null
);
-- One login and all that was refreshed from it. A refresh is decided under the lock on its row.
create table if not exists sessions (
    id uuid primary key,
    user_id uuid not null references users on delete cascade,
    -- How often it has been refreshed. Only refresh tokens of this generation are fresh.
    generation int not null default 0,
    advanced_at timestamptz not null default clock_timestamp(),
    ended boolean not null default false,
    expires_at timestamptz not null default now() + interval '30 days'
);
create index if not exists sessions_user_id on sessions (user_id);
create table if not exists refresh_tokens (
    -- SHA-256. A dump of this table logs nobody in.
    hash bytea primary key,
    session_id uuid not null references sessions on delete cascade,
    generation int not null
);
create table if not exists signing_keys (private_key bytea not null);
create table if not exists failed_logins (
    -- A hash of the address, which need not be anybody's.
    account bytea primary key,
    failures int not null,
    until timestamptz not null
);
`;

const [ISSUER, AUDIENCE, CLIENT] = Array(3).fill("worked-answers");
const LIFE_SECONDS = 15 * 60;
// Two tabs may wake together, and an answer may be lost on its way.
const GRACE = "10 seconds";
const [FREE_FAILURES, LONGEST_WAIT] = [5, 60];
// The lowest that OWASP recommends: 19 MiB, two passes. The threads of libuv hash, four at once at most.
const COST = { type: argon2.argon2id, memoryCost: 19 * 1024, timeCost: 2, parallelism: 1 };
// Verified for an address that nobody has, so that it takes as long.
const NOBODYS_HASH = await argon2.hash(randomBytes(16), COST);
const COMMON = new Set(["qwertyuiopasdfghjkl", "123456789abcdef"]);

// A letter beyond 16 bits has a length of 2.
const letters = (text) => [...text.normalize("NFC")].length;

/** At least as long as NIST asks for. A real service also asks a list of leaked passwords. */
function isPassword(text) {
  const folded = text.normalize("NFC").toLowerCase();
  const common = COMMON.has(folded) || /^(.{1,10})\1+$/su.test(folded);
  return letters(text) >= 15 && letters(text) <= 128 && !text.includes("\0") && text.isWellFormed() && !common;
}

const newUser = edge.object({ email: edge.email, password: { type: "string", format: "new-password" } });
const credentials = edge.object({ email: edge.email, password: { type: "string", format: "short" } });
const formats = { "new-password": isPassword, short: (text) => letters(text) <= 128 && text.isWellFormed() };

const pool = await edge.pool(SCHEMA);
const app = edge.app({ formats, ready: () => pool.query("select 1") });
const { rows: [{ private_key }] } = await edge.transaction(pool, async (client) => {
  // Two processes that begin at once would each make a key, and refuse the other's tokens.
  await client.query("lock table signing_keys");
  const made = generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "der" });
  await client.query("insert into signing_keys select $1 where not exists (select from signing_keys)", [made]);
  return client.query("select private_key from signing_keys");
});
const privateKey = createPrivateKey({ key: private_key, type: "pkcs8", format: "der" });
const publicKey = createPublicKey(privateKey);
const jwk = await exportJWK(publicKey);
// The thumbprint of RFC 7638: computed from the key, so it can never name another.
const kid = await calculateJwkThumbprint(jwk);

const hashed = (text) => createHash("sha256").update(text).digest();
/** No cache may keep what is about one person. */
const noStore = { "cache-control": "no-store" };
const challenge = (status, error, detail) =>
  new Problem(status, detail, { headers: { "www-authenticate": `Bearer error="${error}"`, ...noStore } });

async function register({ body: { email, password } }, reply) {
  const id = randomUUID();
  const hash = await argon2.hash(password.normalize("NFC"), COST);
  try {
    await pool.query("insert into users values ($1, $2, $3, $4)", [id, email, edge.mailbox(email), hash]);
  } catch (error) {
    throw error.constraint === "users_mailbox" ? new Problem(409, "There is an account of this address.") : error;
  }
  return reply.code(201).headers({ location: "/me", ...noStore }).send({ id, email });
}

async function login({ body: { email, password } }, reply) {
  const mailbox = edge.mailbox(email);
  const account = hashed(mailbox);
  await countAFailure(account);
  const { rows: [user] } = await pool.query("select * from users where mailbox = $1", [mailbox]);
  const right = await argon2.verify(user?.password_hash ?? NOBODYS_HASH, password.normalize("NFC"));
  if (!user || !right) {
    const headers = { "www-authenticate": "Bearer", ...noStore };
    throw new Problem(401, "The address or the password is wrong.", { headers });
  }
  reply.headers(noStore);
  return edge.transaction(pool, async (client) => {
    await client.query("delete from failed_logins where account = $1", [account]);
    const session = randomUUID();
    await client.query("insert into sessions (id, user_id) values ($1, $2)", [session, user.id]);
    return tokens(client, user, session, 0);
  });
}

/** Before the password is looked at: of fifty guesses at once, none has failed yet. A success deletes the count. */
async function countAFailure(account) {
  const { rowCount: counted } = await pool.query(
    `
    insert into failed_logins values ($1, 1, clock_timestamp())
    on conflict (account) do update
    set failures = failed_logins.failures + 1,
        until = clock_timestamp() + make_interval(
            secs => case
                when failed_logins.failures + 1 < $2::int then 0
                else least($3::int, 2 ^ (failed_logins.failures + 1 - $2::int))
            end
        )
    where failed_logins.until <= clock_timestamp()
    `,
    [account, FREE_FAILURES, LONGEST_WAIT],
  );
  if (counted) return;
  const { rows: [{ until } = {}] } = await pool.query("select until from failed_logins where account = $1", [account]);
  const seconds = Math.ceil(((until ?? Date.now()) - Date.now()) / 1000);
  const headers = { "retry-after": String(Math.min(LONGEST_WAIT, Math.max(1, seconds))) };
  throw new Problem(429, "There were too many failures. Wait.", { headers });
}

async function tokens(client, user, session, generation) {
  const refresh_token = randomBytes(32).toString("base64url");
  await client.query("insert into refresh_tokens values ($1, $2, $3)", [hashed(refresh_token), session, generation]);
  return {
    access_token: await accessToken(user, session),
    token_type: "Bearer",
    expires_in: LIFE_SECONDS,
    refresh_token,
  };
}

/** As RFC 9068 has it. */
function accessToken({ id, email }, sid) {
  const now = Math.floor(Date.now() / 1000);
  const claims = {
    iss: ISSUER, aud: AUDIENCE, sub: id, client_id: CLIENT, iat: now, exp: now + LIFE_SECONDS, jti: randomUUID(), sid, email,
  };
  return new SignJWT(claims).setProtectedHeader({ alg: "EdDSA", kid, typ: "at+jwt" }).sign(privateKey);
}

// ANCHOR: bearer
/** The claims of the one token that was sent. No server is asked. */
async function bearer({ raw }) {
  // Of two such headers, `headers` has the first only.
  const values = raw.headersDistinct.authorization ?? [];
  if (values.length > 1) throw challenge(400, "invalid_request", "Send one token.");
  const [scheme, ...rest] = (values[0] ?? "").split(" ");
  if (scheme.toLowerCase() !== "bearer") {
    throw new Problem(401, "Send an access token.", { headers: { "www-authenticate": "Bearer" } });
  }
  const token = rest.join(" ");
  try {
    // The last letter of a signature has bits that the decoder ignores. There must be one way to write a token.
    if (!token.split(".").every((part) => Buffer.from(part, "base64url").toString("base64url") === part)) throw new Error();
    // The algorithm is ours to say. A token that says `none` must not be asked how to verify it.
    const { payload } = await jwtVerify(token, publicKey, {
      algorithms: ["EdDSA"], audience: AUDIENCE, issuer: ISSUER, typ: "at+jwt",
      requiredClaims: ["exp", "iat", "sub", "sid", "jti"],
    });
    return payload;
  } catch {
    throw challenge(401, "invalid_token", "This token is no good.");
  }
}
// ANCHOR_END: bearer

async function refresh({ body: { refresh_token } }, reply) {
  reply.headers(noStore);
  const pair = await edge.transaction(pool, async (client) => {
    const { rows: [row] } = await client.query(
      `
      select
          sessions.id as session,
          sessions.generation,
          refresh_tokens.generation as of,
          sessions.advanced_at > clock_timestamp() - $2::interval as in_grace,
          ended or expires_at <= now() as over,
          users.id,
          users.email
      from refresh_tokens
      join sessions on sessions.id = session_id
      join users on users.id = user_id
      where hash = $1
      for update of sessions
      `,
      [hashed(refresh_token), GRACE],
    );
    if (row && !row.over && row.of === row.generation) {
      await client.query(
        "update sessions set generation = generation + 1, advanced_at = clock_timestamp() where id = $1",
        [row.session],
      );
      return tokens(client, row, row.session, row.generation + 1);
    }
    if (row && !row.over && row.of === row.generation - 1 && row.in_grace) {
      return tokens(client, row, row.session, row.generation);
    }
    // Two people have it: the user and a thief. Not thrown here, because that would undo it.
    if (row) await client.query("update sessions set ended = true where id = $1", [row.session]);
    return null;
  });
  if (!pair) throw challenge(401, "invalid_token", "This refresh token is no good.");
  return pair;
}

const text = { type: "string" };
app.post("/register", { schema: { body: newUser } }, register);
app.post("/login", { schema: { body: credentials } }, login);
app.post("/token/refresh", { schema: { body: edge.object({ refresh_token: text }) } }, refresh);
app.get("/me", async (request, reply) => {
  const { sub: id, email } = await bearer(request);
  reply.headers(noStore);
  return { id, email };
});
app.post("/logout", async (request, reply) => {
  const { sid } = await bearer(request);
  await pool.query("update sessions set ended = true where id = $1", [sid]);
  return reply.code(204).send();
});
app.post("/logout/everywhere", async (request, reply) => {
  const { sub } = await bearer(request);
  await pool.query("update sessions set ended = true where user_id = $1", [sub]);
  return reply.code(204).send();
});
app.get("/.well-known/jwks.json", async (_request, reply) => {
  reply.header("cache-control", "public, max-age=300").type("application/jwk-set+json");
  return JSON.stringify({ keys: [{ ...jwk, use: "sig", alg: "EdDSA", kid }] });
});

await edge.serve(app, () => pool.end());
