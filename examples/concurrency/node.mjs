// One event loop: `GET /healthz` does nothing, `GET /price` computes, on the loop (`inline`) or in a worker thread (`worker`).
//
//     node node.mjs PORT inline|worker MILLISECONDS

import http from 'node:http';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';

function compute(count) {
  let hash = 1;
  for (let n = 0; n < count; n++) hash = (Math.imul(hash ^ n, 0x9e3779b1) >>> 0) ^ (hash >>> 15);
  return hash;
}

if (isMainThread) {
  const [port, way, milliseconds] = process.argv.slice(2);
  const some = 2_000_000;
  // The best of some: in the others, another process had the core.
  const times = Array.from({ length: 10 }, () => {
    const begun = performance.now();
    compute(some);
    return performance.now() - begun;
  });
  const count = Math.round((some * Number(milliseconds)) / Math.min(...times));
  const inWorker = () =>
    new Promise((resolve, reject) => {
      const worker = new Worker(new URL(import.meta.url), { workerData: count });
      worker.once('message', resolve);
      worker.once('error', reject);
    });
  const server = http.createServer(async (request, response) => {
    if (request.url === '/price') {
      const price = way === 'worker' ? await inWorker() : compute(count);
      response.end(String(price));
    } else {
      response.end('alive');
    }
  });
  server.listen(Number(port), '127.0.0.1', () => {
    console.log(`listening on http://127.0.0.1:${server.address().port}`);
  });
} else {
  parentPort.postMessage(compute(workerData));
}
