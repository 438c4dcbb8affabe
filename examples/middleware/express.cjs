// The four layers in Express 5: request id, log, authentication, time-out. `node express.cjs PORT LIMIT_MS`
const express = require('express');
const { randomUUID } = require('node:crypto');

const [port = 3001, limit = 2000] = process.argv.slice(2).map(Number);
const app = express();
app.disable('x-powered-by');
let finished = 0;

function problem(response, status, title, headers = {}) {
  if (response.headersSent) return;
  response.status(status).set(headers).type('application/problem+json');
  response.send(JSON.stringify({ type: 'about:blank', title, status }) + '\n');
}

// Request id: outermost, so that every answer has it.
app.use((request, response, next) => {
  const given = request.get('x-request-id') ?? '';
  request.id = /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : randomUUID();
  response.set('x-request-id', request.id);
  next();
});

// Log. What stands behind `next()` runs before an asynchronous handler has answered, so the way back is an event.
let behindNext = 0;
app.use((request, response, next) => {
  const begun = performance.now();
  response.on('finish', () => {
    const took = (performance.now() - begun).toFixed(1);
    console.error(`id="${request.id}" ${request.method} ${request.path} ${response.statusCode} ${took} ms`);
  });
  next();
  if (request.path === '/slow') behindNext = performance.now() - begun;
});

// Time-out: it can answer, and it cannot stop the handler.
app.use((request, response, next) => {
  if (!limit) return next();
  const late = () => problem(response, 503, 'Service Unavailable', { 'retry-after': '1' });
  const timer = setTimeout(late, limit);
  response.on('close', () => clearTimeout(timer));
  next();
});

// Authentication, as one writes it with `request.path`.
app.use((request, response, next) => {
  if (request.path !== '/notes' && !request.path.startsWith('/notes/')) return next();
  const [, key] = /^bearer +(.*)$/i.exec(request.get('authorization') ?? '') ?? [];
  if (key === 'let-ada-in') {
    request.user = 'ada';
    return next();
  }
  problem(response, 401, 'Unauthorized', { 'www-authenticate': 'Bearer' });
});

// Neither answers nor calls `next`.
app.use('/forgotten', (request, response, next) => {});

app.get('/healthz', (request, response) => response.json({ status: 'alive' }));
app.get('/forgotten', (request, response) => response.json({ handler: 'was reached' }));
app.get('/notes', (request, response) => response.json({ items: [], owner: request.user ?? 'nobody' }));
app.get('/finished', (request, response) => response.json({ finished }));
app.get('/behind-next', (request, response) => response.json({ ms: behindNext }));
app.get('/slow', async (request, response) => {
  await new Promise((resolve) => setTimeout(resolve, Number(request.query.ms)));
  finished += 1;
  if (!response.headersSent) response.json({ slept_ms: Number(request.query.ms) });
});
app.post('/panic', async () => {
  throw new Error('POST /panic asks for it');
});
// Thrown outside of the handler's promise, where Express cannot catch it.
app.post('/crash', () => {
  setTimeout(() => {
    throw new Error('POST /crash asks for it');
  });
});
app.use((request, response) => problem(response, 404, 'Not Found'));

// Four arguments: for errors.
app.use((error, request, response, next) => problem(response, 500, 'Internal Server Error'));

const server = app.listen(port, '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
