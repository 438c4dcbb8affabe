// What keeps strangers out? Tokens, addresses that a webhook may have, types that a file has, and a log that nobody can mend.
//
// In reading order: `may`, `publicUrl`, `deliver`, `kindOf`, `pdfOf`, `audit`, `headers`.

import { SignJWT, jwtVerify } from "jose";
import { createHash, randomBytes, randomUUID } from "node:crypto";
import { lookup } from "node:dns/promises";
import * as http from "node:http";
import * as https from "node:https";
import { BlockList, isIP, isIPv4 } from "node:net";
import * as edge from "../edge.mjs";

const { Problem } = edge;

// Made at each start: a token ends with the process that gave it out.
const KEY = randomBytes(32);
export const LIFE_SECONDS = 600;
// The one address that is not public and may be called, for trying it out.
const ALLOWED = process.env.WEBHOOK_ALLOW ?? "127.0.0.1:9";

export const sign = (claims) =>
  new SignJWT(claims).setProtectedHeader({ alg: "HS256" }).setExpirationTime(`${LIFE_SECONDS}s`).sign(KEY);

/** A hook before the body is read. Sets who asks: `sub`, `role` and `customer`. */
export const may = (...roles) => async (request) => {
  const values = request.raw.headersDistinct.authorization ?? [];
  const token = values.length === 1 ? /^bearer +(\S+)$/i.exec(values[0])?.[1] : undefined;
  try {
    // The algorithm is ours to say, and not the token's.
    const { payload } = await jwtVerify(token ?? "", KEY, { algorithms: ["HS256"], requiredClaims: ["exp", "sub", "role"] });
    request.user = { ...payload, request: request.name };
  } catch {
    throw new Problem(401, "Send a good token.", { headers: { "www-authenticate": "Bearer" } });
  }
  if (!roles.includes(request.user.role)) throw new Problem(403, "Your role may not do this.");
};

const inside = new BlockList();
for (const [network, bits] of [
  ["0.0.0.0", 8], ["10.0.0.0", 8], ["100.64.0.0", 10], ["127.0.0.0", 8], ["169.254.0.0", 16], ["172.16.0.0", 12],
  ["192.0.0.0", 24], ["192.0.2.0", 24], ["192.168.0.0", 16], ["198.18.0.0", 15], ["198.51.100.0", 24], ["203.0.113.0", 24],
  ["224.0.0.0", 3],
]) {
  inside.addSubnet(network, bits, "ipv4");
}
// The public ones of IPv6 are all in 2000::/3, and these parts of it are not.
const outside = new BlockList();
outside.addSubnet("2000::", 3, "ipv6");
for (const [network, bits] of [["2001::", 23], ["2001:db8::", 32], ["2002::", 16]]) inside.addSubnet(network, bits, "ipv6");

function isPublic(address) {
  if (isIPv4(address)) return !inside.check(address, "ipv4");
  return outside.check(address, "ipv6") && !inside.check(address, "ipv6");
}

/** `URL` writes every spelling of an IPv4 address (127.1, 0x7f.1, 2130706433) in one way. */
export function publicUrl(text) {
  if (!/^[!-~]{1,2000}$/.test(text) || !URL.canParse(text) || text.includes("\\")) return false;
  const { protocol, host, hostname, username, password } = new URL(text);
  if (username || password || text.includes("#")) return false;
  if (protocol === "http:" && host === ALLOWED) return true;
  const bare = hostname.replace(/^\[|\]$/g, "");
  const isInside = isIP(bare) ? !isPublic(bare) : !/\./.test(bare) || /\.(localhost|local|internal)\.?$/.test(bare);
  return protocol === "https:" && !isInside;
}

/**
 * The status of the answer. The name is looked up once, and what was found is checked and called: a second look could find another
 * address. `fetch` lets nobody choose the address, so this is Node's own client.
 */
export async function deliver(url) {
  const { protocol, host, hostname } = new URL(url);
  try {
    const found = await lookup(hostname.replace(/^\[|\]$/g, ""), { all: true });
    if (host !== ALLOWED && !found.every(({ address }) => isPublic(address))) return null;
    const { request } = protocol === "https:" ? https : http;
    return await new Promise((resolve, reject) => {
      const headers = { "content-type": "application/json" };
      const lookup = (_name, options, answer) =>
        options.all ? answer(null, [found[0]]) : answer(null, found[0].address, found[0].family);
      const call = request(url, { method: "POST", headers, lookup, signal: AbortSignal.timeout(3_000) }, (answer) => {
        answer.destroy();
        resolve(answer.statusCode);
      });
      call.on("error", reject).end(JSON.stringify({ event: "test" }));
    });
  } catch {
    return null;
  }
}

const KINDS = [
  { start: Buffer.from("%PDF-"), type: "application/pdf", endings: ["pdf"] },
  { start: Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), type: "image/png", endings: ["png"] },
  { start: Buffer.from([0xff, 0xd8, 0xff]), type: "image/jpeg", endings: ["jpg", "jpeg"] },
];

/** The type that the bytes have. What the client calls it counts for nothing. */
export function kindOf(bytes, name) {
  const kind = KINDS.find(({ start }) => bytes.subarray(0, start.length).equals(start));
  if (!kind) throw new Problem(415, "This is no PDF, PNG or JPEG.");
  const plain = typeof name === "string" && /^[A-Za-z0-9_][A-Za-z0-9_ .-]{0,90}\.[a-z]{3,4}$/.test(name);
  if (!plain || !kind.endings.includes(name.split(".").at(-1))) {
    throw new Problem(422, `must be a plain file name that ends with .${kind.endings[0]}`, { field: "name" });
  }
  return kind.type;
}

/** A page with this line. No program is run for it, and nothing is fetched. */
export function pdfOf(line) {
  const text = line.replace(/[^\x20-\xff]/gu, "?").replace(/[\\()]/g, "\\$&");
  const shown = `BT /F1 16 Tf 72 720 Td (${text}) Tj ET`;
  const parts = [
    "<< /Type /Catalog /Pages 2 0 R >>",
    "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
    "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 5 0 R /Resources << /Font << /F1 4 0 R >> >> >>",
    "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    `<< /Length ${shown.length} >>\nstream\n${shown}\nendstream`,
  ];
  let [out, table] = ["%PDF-1.4\n", ""];
  parts.forEach((part, index) => {
    table += `${String(out.length).padStart(10, "0")} 00000 n \n`;
    out += `${index + 1} 0 obj\n${part}\nendobj\n`;
  });
  const trailer = `trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n${out.length}\n%%EOF\n`;
  return Buffer.from(`${out}xref\n0 6\n0000000000 65535 f \n${table}${trailer}`, "latin1");
}

const chained = (before, { actor, action, object, request_id }) =>
  createHash("sha256").update(before + JSON.stringify([actor, action, object, request_id])).digest("hex");

/** In the transaction of what was done. Each entry's hash covers the one before, so a change to any breaks the chain. */
export async function audit(client, user, action, object) {
  await client.query("select pg_advisory_xact_lock(hashtext('audit'))");
  const { rows: [last] } = await client.query("select hash from audit order by seq desc limit 1");
  const entry = { actor: user.sub, action, object, request_id: user.request };
  await client.query(
    "insert into audit (actor, action, object, request_id, hash) values ($1, $2, $3, $4, $5)",
    [...Object.values(entry), chained(last?.hash ?? "", entry)],
  );
}

export function brokenAt(before, rows) {
  for (const row of rows) {
    if (row.hash !== chained(before, row)) return row.seq;
    before = row.hash;
  }
  return null;
}

/** On every answer, those of errors too. No origin is listed, so none may read answers: there is no CORS. */
export async function headers(request, reply) {
  request.name = randomUUID();
  reply.headers({
    "x-request-id": request.name,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "strict-transport-security": "max-age=31536000",
  });
}
