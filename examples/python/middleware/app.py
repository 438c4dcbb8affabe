"""What belongs around every handler, and in which order? Seven layers, from the outside in; each calls the next one.

    cargo run -- example middleware --in python

FastAPI and asyncpg; the layers are plain ASGI, which is what Starlette's own are made of. In reading order: `LAYERS`, `Layer`,
and the layers. A layer sees an answer by giving the next one a `send` of its own.
"""

import asyncio
import logging
import re
import secrets
import time
import uuid
from collections import Counter, OrderedDict
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import Field
from starlette.convertors import register_url_convertor
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware

import edge
from edge import Line, Model, Problem

SCHEMA = """
create table if not exists notes (
    number bigint generated always as identity primary key,
    id uuid not null unique,
    owner text not null,
    text text not null,
    created_at timestamptz not null default now()
);
"""

USERS = {"let-ada-in": "ada"}
LIMIT_SECONDS = 2
LARGEST_BODY = 1_000_000
ID = "[A-Za-z0-9_.-]{1,64}"
register_url_convertor("trace", edge.InPath(ID))

answers: Counter = Counter()
# The events of the last thousand requests, by their ids.
ways: OrderedDict[str, list] = OrderedDict()


class Layer:
    """Notes when a request enters and when the answer leaves, and lets `handle` do the work in between."""

    name = ""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, events = scope.setdefault("way", (time.perf_counter_ns(), []))

        def note(event):
            events.append({"layer": self.name, "event": event, "at": (time.perf_counter_ns() - began) // 1000})

        async def noting(message):
            if message["type"] == "http.response.start":
                note("out")
            await send(message)

        note("in")
        await self.handle(scope, receive, noting)


class RequestId(Layer):
    """Outermost, so that every answer has one, those of other layers too."""

    name = "request-id"

    async def handle(self, scope, receive, send):
        given = Headers(scope=scope).getlist("x-request-id")
        # It goes into log lines and headers of other services, so it is one word.
        id = given[0] if len(given) == 1 and re.fullmatch(ID, given[0]) else uuid.uuid4().hex
        scope["id"] = id
        ways.pop(id, None)
        ways[id] = scope["way"][1]
        if len(ways) > 1000:
            ways.popitem(last=False)

        async def naming(message):
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = id
            await send(message)

        await self.app(scope, receive, naming)


class Trace(Layer):
    """Outside of everything that can refuse, so that refusals are logged and counted."""

    name = "trace"

    async def handle(self, scope, receive, send):
        async def counting(message):
            if message["type"] == "http.response.start":
                answers[message["status"]] += 1
                logging.info("%s %s %s %s", scope["id"], scope["method"], scope["path"], message["status"])
            await send(message)

        await self.app(scope, receive, counting)


class Cors(Layer):
    """Outside of the errors: a page of another origin may read them too. A preflight has no key, so it ends here."""

    name = "cors"

    def __init__(self, app):
        super().__init__(app)
        self.handle = CORSMiddleware(app, allow_origins=["*"], allow_methods=["GET", "POST", "DELETE"], allow_headers=["*"])


class Panic(Layer):
    """What a handler raises becomes an answer. Inside of the layers that every answer has to pass."""

    name = "panic"

    async def handle(self, scope, receive, send):
        started = False

        async def noticing(message):
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, noticing)
        except Exception:
            logging.exception("request %s", scope["id"])
            if started:
                raise  # The status is sent. The server breaks the connection off.
            await edge.document(Problem(500, "Something is wrong here, and it is not your request."))(scope, receive, send)


# ANCHOR: timeout
class Timeout(Layer):
    """asyncio raises an exception where the handler waits, so a transaction is rolled back and a connection given back. A
    handler that computes and does not wait cannot be stopped."""

    name = "timeout"

    async def handle(self, scope, receive, send):
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                await self.app(scope, receive, send)
        except TimeoutError:
            await edge.document(edge.busy("This took too long."))(scope, receive, send)
# ANCHOR_END: timeout


class Limit(Layer):
    """Before anybody reads the body: the server sends `100 Continue` when somebody does."""

    name = "limit"

    async def handle(self, scope, receive, send):
        too_long = Problem(413, f"The body is longer than {LARGEST_BODY} bytes.", headers={"Connection": "close"})
        if int(Headers(scope=scope).get("content-length", 0)) > LARGEST_BODY:
            return await edge.document(too_long)(scope, receive, send)
        received = 0

        async def counting():
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > LARGEST_BODY:
                raise too_long
            return message

        await self.app(scope, counting, send)


class Auth(Layer):
    """It reads the same path as the router behind it: decoded, and otherwise as it came. Two that read paths differently leave a
    gap between them."""

    name = "auth"

    async def handle(self, scope, receive, send):
        if scope["path"] == "/notes" or scope["path"].startswith("/notes/"):
            keys = Headers(scope=scope).getlist("authorization")
            scheme, _, key = (keys[0] if len(keys) == 1 else "").partition(" ")
            known = [user for secret, user in USERS.items() if secrets.compare_digest(secret.encode(), key.strip().encode())]
            if scheme.lower() != "bearer" or not known:
                refusal = Problem(401, "Send your key.", headers={"WWW-Authenticate": "Bearer"})
                return await edge.document(refusal)(scope, receive, send)
            scope["user"] = known[0]
        await self.app(scope, receive, send)


# From the outside in.
LAYERS = [RequestId, Trace, Cors, Panic, Timeout, Limit, Auth]


@asynccontextmanager
async def lifespan(app):
    app.state.pool = await edge.pool(SCHEMA)
    yield
    await app.state.pool.close()


app = edge.app(lifespan, lambda: app.state.pool.fetchval("select 1"))
# The one that is added last is the outermost.
for layer in reversed(LAYERS):
    app.add_middleware(layer)


class NewNote(Model):
    text: Annotated[Line, Field(max_length=1000)]


def shown(row) -> dict:
    return {"id": str(row["id"]), "owner": row["owner"], "text": row["text"], "created_at": edge.moment(row["created_at"])}


@app.post("/notes")
async def create(note: NewNote, request: Request):
    row = await app.state.pool.fetchrow(
        "insert into notes (id, owner, text) values ($1, $2, $3) returning *", uuid.uuid4(), request.scope["user"], note.text
    )
    return JSONResponse(shown(row), 201, {"Location": f"/notes/{row['id']}"})


@app.api_route("/notes", methods=["GET", "HEAD"])
async def newest(request: Request):
    query = "select * from notes where owner = $1 order by number desc limit 100"
    return {"items": [shown(row) for row in await app.state.pool.fetch(query, request.scope["user"])]}


@app.api_route("/notes/{id:id}", methods=["GET", "HEAD"])
async def read(id: str, request: Request):
    query = "select * from notes where id = $1 and owner = $2"
    row = await app.state.pool.fetchrow(query, uuid.UUID(id), request.scope["user"])
    if not row:
        raise Problem(404, "There is no such note.")
    return shown(row)


@app.delete("/notes/{id:id}")
async def delete(id: str, request: Request):
    await app.state.pool.execute("delete from notes where id = $1 and owner = $2", uuid.UUID(id), request.scope["user"])
    return Response(status_code=204)


@app.api_route("/slow", methods=["GET", "HEAD"])
async def slow(request: Request):
    milliseconds = edge.one_number(request, "ms", 0, 60_000)
    await asyncio.sleep(milliseconds / 1000)
    return {"slept_ms": milliseconds}


@app.post("/panic")
async def panic():
    raise RuntimeError("this handler always crashes")


@app.post("/echo")
async def echo(request: Request):
    return Response(b"".join([chunk async for chunk in request.stream()]), media_type="application/octet-stream")


@app.api_route("/stream", methods=["GET", "HEAD"])
async def stream():
    async def lines():
        for number in range(1, 11):
            yield f"line {number} of 10\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(lines(), media_type="text/plain")


@app.api_route("/stack", methods=["GET", "HEAD"])
async def stack():
    return {"layers": [layer.name for layer in LAYERS], "form": "by-hand", "warnings": []}


@app.api_route("/metrics", methods=["GET", "HEAD"])
async def metrics():
    lines = [f'http_requests_total{{status="{status}"}} {count}\n' for status, count in sorted(answers.items())]
    return PlainTextResponse("# TYPE http_requests_total counter\n" + "".join(lines))


def picture(texts: list[str]) -> Response:
    lines = [f'<text x="8" y="{24 * row}">{text}</text>' for row, text in enumerate(texts, 1)]
    size = f'width="360" height="{24 * len(texts) + 12}"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace">{"".join(lines)}</svg>'
    return Response(svg, media_type="image/svg+xml")


@app.api_route("/stack.svg", methods=["GET", "HEAD"])
async def stack_picture():
    return picture([layer.name for layer in LAYERS])


@app.api_route("/stack/{id:trace}.svg", methods=["GET", "HEAD"])
async def way_picture(id: str):
    return picture([f"{it['at']} µs {it['event']} {it['layer']}" for it in way_of(id)])


@app.api_route("/stack/{id:trace}", methods=["GET", "HEAD"])
async def way(id: str):
    return {"request_id": id, "events": way_of(id)}


def way_of(id: str) -> list:
    if id not in ways:
        raise Problem(404, "None of the last thousand requests has this id.")
    return ways[id]


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    edge.serve(app)
