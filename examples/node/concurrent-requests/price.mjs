// The price of the day, computed: work for a core, and not for the loop. A thread with a loop of its own runs it.

import { createHash } from "node:crypto";
import { parentPort } from "node:worker_threads";

const ROUNDS = 4_000;

function price(product, cents) {
  let digest = Buffer.from(String(product));
  for (let round = 0; round < ROUNDS; round++) digest = createHash("sha256").update(digest).digest();
  const discount = digest[0] % 21;
  return cents - Math.floor((cents * discount) / 100);
}

parentPort.on("message", ({ id, product, cents }) => parentPort.postMessage({ id, price: price(product, cents) }));
