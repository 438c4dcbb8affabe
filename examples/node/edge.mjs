// What do the HTTP edges of all the programs here have in common? Problem documents, strict JSON, and a pool with a deadline.
//
//     const app = edge.app();                      // a Fastify server
//     const pool = await edge.pool(SCHEMA);        // connections to DATABASE_URL, once the tables are there
//     await edge.serve(app, async () => { … });    // on 127.0.0.1:$PORT, until SIGTERM

import Ajv from "ajv";
import Fastify from "fastify";
import { createHash } from "node:crypto";
import { STATUS_CODES } from "node:http";
import { domainToASCII } from "node:url";
import pg from "pg";

export const PORT = Number(process.env.PORT ?? 9000);
export const OWN = `http://127.0.0.1:${PORT}`;
const LARGEST_BODY = 64 * 1024;

/** An error as RFC 9457 writes it. `field` names the field of the body that is wrong. */
export class Problem extends Error {
  constructor(status, detail, { field, headers = {}, ...more } = {}) {
    super(detail);
    this.status = status;
    this.headers = headers;
    this.more = field === undefined ? more : { errors: [{ field, message: detail }], ...more };
  }
}

export const busy = (detail = "A server behind this one does not answer.") =>
  new Problem(503, detail, { headers: { "retry-after": "1" } });

/** As it is sent, for whoever does not answer by Fastify. */
export function problem(error) {
  const { status, message, headers, more } = problemOf(error);
  const body = { type: "about:blank", title: STATUS_CODES[status], status, detail: message, ...more };
  return { status, headers: { ...headers, "content-type": "application/problem+json" }, body: JSON.stringify(body) };
}

export function send(reply, error) {
  const { status, headers, body } = problem(error);
  return reply.code(status).headers(headers).send(body);
}

/** `JSON.parse` takes the last of two equal fields, and a reviver does not see the first. */
function hasEqualFields(json) {
  const open = [];
  let before;
  for (const [token] of json.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\]:,]/g)) {
    if (token === "{") open.push(new Set());
    else if (token === "[") open.push(null);
    else if (token === "}" || token === "]") open.pop();
    else if (token === ":") {
      const [fields, name] = [open.at(-1), JSON.parse(before)];
      if (fields.has(name)) return true;
      fields.add(name);
    }
    before = token;
  }
  return false;
}

export function parse(text) {
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    throw new Problem(400, "The body is not JSON.");
  }
  if (hasEqualFields(text)) throw new Problem(400, "A field is there twice.");
  return body;
}

/** `/items/1/sku` is `items[1].sku`. */
function fieldName({ instancePath, params }) {
  const path = [...instancePath.split("/").slice(1), params.missingProperty ?? params.additionalProperty];
  const name = path.filter((it) => it !== undefined).map((it) => (/^\d+$/.test(it) ? `[${it}]` : `.${it}`));
  return name.join("").replace(/^\./, "");
}

const nameOf = (error) => ({ field: fieldName(error), message: error.message });

function invalid(errors) {
  // A list where an object belongs is not the form that was asked for; neither is a body that is no object at all.
  const noForm = (it) => it.keyword === "type" && it.params.type === "object" && (!it.instancePath || Array.isArray(it.data));
  if (errors.some(noForm)) return new Problem(400, "The body is not the object that this call takes.");
  const named = errors.map(nameOf);
  return new Problem(422, "Some fields are invalid.", { errors: named });
}

export function idempotencyKey({ headers }) {
  const key = headers["idempotency-key"] ?? "";
  // Node joins two of them with a comma.
  if (/^[!-+\--~]{1,255}$/.test(key)) return key;
  throw new Problem(400, "Send one `Idempotency-Key` of 1 to 255 visible ASCII characters without a comma.");
}

/** The same for the same values, whatever the spaces and the order of the fields. */
export function fingerprint(body) {
  const sorted = (_, it) => (it?.constructor === Object ? Object.fromEntries(Object.entries(it).sort()) : it);
  return createHash("sha256").update(JSON.stringify(body, sorted)).digest();
}

const MAILBOX = /^[^@\s\p{Cc}]+@[^@.\s\p{Cc}]+(\.[^@.\s\p{Cc}]+)+$/u;
const isMailbox = (text) => MAILBOX.test(text) && text.isWellFormed();
export const email = { type: "string", maxLength: 254, format: "mailbox" };

/** The same for all spellings of an address. `lower()` of the database depends on its locale. */
export function mailbox(email) {
  // There is no case folding in JavaScript. Upper case first, so that ß and ς are what their capitals are.
  const folded = (text) => text.normalize("NFC").toUpperCase().toLowerCase().normalize("NFC");
  const [local, domain] = email.split("@");
  return `${folded(local)}@${domainToASCII(domain) || folded(domain)}`;
}

// PostgreSQL's `bigint` has more digits than a number of JavaScript, so it stays a text.
export const NUMBER = "[1-9][0-9]{0,18}";
export const isNumber = (text) => new RegExp(`^${NUMBER}$`).test(text) && BigInt(text) < 2n ** 63n;
export function number(text) {
  if (!isNumber(text)) throw new Problem(404, "There is nothing here.");
  return text;
}
/** A parameter of the query that is a whole number, and is there once. */
export function oneNumber(query, name, least, most, otherwise) {
  const value = query[name] ?? (otherwise === undefined ? "" : String(otherwise));
  // Of one that is there twice, Node makes a list.
  if (typeof value === "string" && /^\d{1,18}$/.test(value) && value >= least && value <= most) return Number(value);
  throw new Problem(422, `must be ${least} to ${most}, once`, { field: name });
}

// Not shorter, with a repetition in a repetition: Fastify refuses patterns that might take long.
export const UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";

/** For a body that Fastify does not check itself: a function that lists what is wrong. */
export function validator(schema) {
  const check = new Ajv({ allErrors: true, verbose: true, formats: { line: isLine, mailbox: isMailbox } }).compile(schema);
  return (body) => (check(body) ? [] : check.errors.map(nameOf));
}

/** PostgreSQL is away: the connection failed, or none came in time. */
const AWAY = /^(08|57P|53)|^(ECONN|EPIPE|ENOTFOUND|ETIMEDOUT|EHOSTUNREACH)/;
const isAway = (error) => AWAY.test(error.code ?? "") || /timeout|terminated|Connection ended/i.test(error.message ?? "");

function problemOf(error) {
  if (error instanceof Problem) return error;
  if (error.validation) return invalid(error.validation);
  if (error.code === "FST_ERR_CTP_BODY_TOO_LARGE") return new Problem(413, "The body is too long.");
  if (error.code === "FST_ERR_CTP_INVALID_MEDIA_TYPE") return new Problem(415, "Send `Content-Type: application/json`.");
  if (error.statusCode >= 400 && error.statusCode < 500) return new Problem(error.statusCode, error.message);
  if (isAway(error)) return busy();
  console.error(error);
  return new Problem(500, "Something is wrong here, and it is not your request.");
}

/** A field that is one printable line. U+2028 and U+2029 end a line in some programs. */
export const isLine = (text) => !/[\p{Cc}\u2028\u2029]/u.test(text) && text.trim() !== "" && text.isWellFormed();

/** A body with these fields and no others. No type is converted into another. */
export const object = (properties, required = Object.keys(properties)) =>
  ({ type: "object", properties, required, additionalProperties: false });

/** `formats` are rules for text that JSON Schema has no words for: `{ line: isLine }` for `format: "line"`. */
export function app({ formats = {}, ready = async () => {}, ...options } = {}) {
  const app = Fastify({
    bodyLimit: LARGEST_BODY,
    forceCloseConnections: "idle",
    ajv: {
      customOptions: {
        coerceTypes: false, removeAdditional: false, useDefaults: false, allErrors: true, verbose: true,
        formats: { line: isLine, mailbox: isMailbox, ...formats },
      },
    },
    // A path that cannot be decoded, or whose parts are too long, is none of ours.
    frameworkErrors: (_error, _request, reply) => send(reply, new Problem(404, "There is nothing here.")),
    ...options,
  });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/json", { parseAs: "string" }, async (_request, text) => parse(text));
  app.setErrorHandler((error, _request, reply) => send(reply, error));
  // Fastify has no 405: it answers 404 if a path has no such method.
  const routes = [];
  app.addHook("onRoute", ({ url, method }) => {
    const path = url.replace(/:\w+(?:\(\^(.*?)\$\)(?=\/|$))?/g, (_, pattern = "[^/]+") => `(?:${pattern})`);
    routes.push({ path: new RegExp(`^${path}$`), method });
  });
  app.setNotFoundHandler((request, reply) => {
    const fits = routes.filter(({ path }) => path.test(request.url.split("?")[0]));
    const allow = [...new Set(fits.flatMap(({ method }) => method))].sort().join(", ");
    if (!allow || allow.split(", ").includes(request.method)) return send(reply, new Problem(404, "There is nothing here."));
    if (request.method === "OPTIONS") {
      const patches = fits.some(({ method }) => method === "PATCH");
      const types = "application/merge-patch+json, application/json-patch+json";
      return reply.code(204).headers({ allow, ...(patches && { "accept-patch": types }) }).send();
    }
    return send(reply, new Problem(405, `Allowed: ${allow}.`, { headers: { allow } }));
  });
  app.get("/healthz", async () => ({ status: "alive" }));
  app.get("/readyz", async () => (await ready(), { status: "ready" }));
  return app;
}

// Whole numbers of 64 bits come as text unless we say that they are small enough for a number.
pg.types.setTypeParser(pg.types.builtins.INT8, Number);

/** A pool with a deadline: a caller who waits longer for a connection has gone. */
export async function pool(schema, size = 10) {
  const pool = new pg.Pool({
    connectionString: process.env.DATABASE_URL, max: size, connectionTimeoutMillis: 2_000, query_timeout: 5_000,
  });
  // Without these, a connection that breaks ends the process: the first is for one that nobody uses at that moment.
  pool.on("error", () => {});
  pool.on("connect", (client) => client.on("error", () => {}));
  await transaction(pool, async (client) => {
    // Two processes that begin at once would both find no table.
    await client.query("select pg_advisory_xact_lock(hashtext('schema'))");
    await client.query(schema);
  });
  return pool;
}

/** Commits what `work` does, or nothing of it. */
export async function transaction(pool, work, begin = "begin") {
  const client = await pool.connect();
  let broken = false;
  try {
    await client.query(begin);
    const result = await work(client);
    await client.query("commit");
    return result;
  } catch (error) {
    await client.query("rollback").catch(() => (broken = true));
    throw error;
  } finally {
    client.release(broken);
  }
}

/** Serves until SIGTERM, answers the requests in flight, and then calls `end`. */
export async function serve(app, end = async () => {}) {
  const stop = async () => {
    await app.close();
    await end();
    process.exit(0);
  };
  for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, stop);
  await app.listen({ host: "127.0.0.1", port: PORT, backlog: 1024 });
  console.log(`listening on ${OWN}`);
}
