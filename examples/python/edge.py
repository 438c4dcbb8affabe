"""What do the HTTP edges of all the programs here have in common? Problem documents, strict JSON, and a pool with a deadline.

    app = edge.app(lifespan)            # a FastAPI application
    pool = await edge.pool(SCHEMA)      # connections to DATABASE_URL; makes the tables
    edge.serve(app)                     # on 127.0.0.1:$PORT, until SIGTERM
"""

import hashlib
import json
import os
import re
import resource
import signal
import sys
import unicodedata
from datetime import UTC, datetime
from typing import Annotated

import asyncpg
import idna
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from redis.exceptions import RedisError
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.routing import Match

PORT = int(os.environ.get("PORT", "9000"))
OWN = f"http://127.0.0.1:{PORT}"
LARGEST_BODY = 64 * 1024
LARGEST_HEADERS = 64 * 1024
# A caller who waits longer has gone, so a connection that comes later helps nobody.
SECONDS_FOR_A_CONNECTION = 2
TITLES = {400: "Bad request", 401: "Unauthorized", 403: "Forbidden", 404: "Not found", 405: "Method not allowed",
          409: "Conflict", 410: "Gone", 412: "Precondition failed", 413: "Content too large", 415: "Unsupported media type",
          422: "Invalid input", 426: "Upgrade required", 428: "Precondition required", 429: "Too many requests",
          431: "Headers too large", 500: "Internal error", 503: "Service unavailable"}  # fmt: skip


class Problem(HTTPException):
    """An error as RFC 9457 writes it. `field` names the field of the body that is wrong."""

    def __init__(self, status: int, detail: str, field: str | None = None, headers: dict | None = None, **more):
        super().__init__(status, detail, headers)
        if field is not None:
            more["errors"] = [{"field": field, "message": detail}]
        self.more = more


# What asyncpg raises if PostgreSQL cannot be reached, stops, starts, has no connection left, or is too slow; and what redis-py
# raises. (`TimeoutError` is an `OSError`.)
AWAY = (OSError, RedisError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError,
        asyncpg.OperatorInterventionError, asyncpg.TooManyConnectionsError)  # fmt: skip


def busy(detail="A server behind this one does not answer."):
    return Problem(503, detail, headers={"Retry-After": "1"})


def document(problem: StarletteHTTPException) -> JSONResponse:
    status = problem.status_code
    body = {"type": "about:blank", "title": TITLES.get(status, "Error"), "status": status, "detail": str(problem.detail)}
    body |= getattr(problem, "more", {})
    return JSONResponse(body, status, problem.headers, media_type="application/problem+json")


class Model(BaseModel):
    """A body. No type is converted into another, and a field that is not declared is an error."""

    model_config = ConfigDict(strict=True, extra="forbid")


def one_line(text: str) -> str:
    """Refuses what is no printable line: control characters, and U+2028 and U+2029, which end a line in some programs."""
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", text) or not text.strip():
        raise ValueError("must be one line, and not blank")
    return text


Line = Annotated[str, AfterValidator(one_line)]


def a_mailbox(email: str) -> str:
    if not re.fullmatch(r"[^@\s\x00-\x1f\x7f-\x9f]+@[^@.\s\x00-\x1f\x7f]+(\.[^@.\s\x00-\x1f\x7f]+)+", email):
        raise ValueError("must have one @, something before it and a domain after it")
    return email


Email = Annotated[str, Field(max_length=254), AfterValidator(a_mailbox)]


def mailbox(email: str) -> str:
    """The same for all spellings of an address. `lower()` of the database depends on its locale."""
    local, _, domain = unicodedata.normalize("NFC", email).casefold().partition("@")
    try:
        domain = idna.encode(domain, uts46=True).decode()
    except idna.IDNAError:
        pass
    return f"{unicodedata.normalize('NFC', local)}@{domain}"


class InPath(Convertor[str]):
    """A part of a path that has to look like this: `{id:number}`. What does not is no path of ours, and gets 404."""

    def __init__(self, pattern: str):
        self.regex = pattern

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class Number(InPath):
    def convert(self, value: str) -> int:
        return number(value)


def number(text: str) -> int:
    """PostgreSQL's `bigint` is what can be a number here."""
    if int(text) > 2**63 - 1:
        raise Problem(404, "There is nothing here.")
    return int(text)


NUMBER = "[1-9][0-9]{0,18}"
register_url_convertor("number", Number(NUMBER))
register_url_convertor("id", InPath("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"))


def idempotency_key(request: Request) -> str:
    keys = request.headers.getlist("idempotency-key")
    if len(keys) != 1 or not re.fullmatch(r"[!-+\--~]{1,255}", keys[0]):
        raise Problem(400, "Send one `Idempotency-Key` of 1 to 255 visible ASCII characters without a comma.")
    return keys[0]


Key = Annotated[str, Depends(idempotency_key)]


def fingerprint(body: BaseModel) -> bytes:
    """The same for the same values, whatever the spaces and the order of the fields."""
    return hashlib.sha256(body.model_dump_json().encode()).digest()


def one_number(request: Request, name: str, least: int, most: int, otherwise: int | None = None) -> int:
    """A parameter of the query that is a whole number, and is there once."""
    values = request.query_params.getlist(name)
    if not values and otherwise is not None:
        return otherwise
    if len(values) != 1 or not re.fullmatch("[0-9]{1,18}", values[0]) or not least <= int(values[0]) <= most:
        raise Problem(422, f"must be {least} to {most}, once", name)
    return int(values[0])


def moment(at: datetime | None) -> str | None:
    """RFC 3339 in UTC."""
    return at and at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def unique(pairs):
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise Problem(400, "A field is there twice.")
    return fields


def no_number(name):
    raise Problem(400, f"{name} is no JSON.")


class StrictRequest(Request):
    """FastAPI asks the request for its body. Python's parser takes the last of two equal fields, and NaN."""

    accepted = ("application/json",)

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            body = bytearray()
            async for chunk in self.stream():
                body += chunk
                if len(body) > LARGEST_BODY:
                    raise Problem(413, f"The body is longer than {LARGEST_BODY} bytes.", headers={"Connection": "close"})
            media_type = self.headers.get("content-type", "").partition(";")[0].strip().lower()
            if body and media_type not in self.accepted:
                raise Problem(415, "Send `Content-Type: application/json`.")
            self._body = bytes(body)
        return self._body

    async def json(self):
        if not hasattr(self, "_json"):
            try:
                parsed = json.loads((await self.body()).decode(), object_pairs_hook=unique, parse_constant=no_number)
                # Half of a surrogate pair is text that nobody can store. Python notices it when it encodes.
                json.dumps(parsed, ensure_ascii=False).encode()
                self._json = parsed
            except (ValueError, RecursionError):
                raise Problem(400, "The body is not JSON.") from None
        return self._json


class StrictRoute(APIRoute):
    def get_route_handler(self):
        handler = super().get_route_handler()

        async def strictly(request: Request):
            return await handler(StrictRequest(request.scope, request.receive))

        return strictly


def parsed(model: type[BaseModel], value):
    """For a body that FastAPI does not parse itself."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise RequestValidationError([it | {"loc": ("body", *it["loc"])} for it in error.errors()]) from None


def field_name(location) -> str:
    """`("body", "items", 1, "sku")` is `items[1].sku`."""
    return "".join(f"[{it}]" if isinstance(it, int) else f".{it}" for it in location[1:]).lstrip(".")


def invalid(error: RequestValidationError) -> Problem:
    errors = error.errors()
    for wrong in errors:
        # A list where an object belongs is not the form that was asked for; neither is a body that is no object at all.
        if wrong["type"].startswith("model_") and (isinstance(wrong["input"], list) or len(wrong["loc"]) == 1):
            return Problem(400, "The body is not the object that this call takes.")
    if [wrong["loc"] for wrong in errors] == [("body",)]:
        return Problem(400, "The body is missing.")
    named = [{"field": field_name(wrong["loc"]), "message": wrong["msg"]} for wrong in errors]
    return Problem(422, "Some fields are invalid.", errors=named)


def fitting(routes, scope):
    for route in routes:
        if route.matches(scope)[0] != Match.NONE:
            yield route
            # A router that was included stands in the list as one entry, which has no methods of its own.
            yield from fitting(getattr(getattr(route, "original_router", None), "routes", ()), scope)


def allowed(app: FastAPI, request: Request) -> str:
    """The methods of this path. Starlette itself names only those of the first route that fits."""
    fits = list(fitting(app.routes, request.scope))
    return ", ".join(sorted({method for route in fits for method in getattr(route, "methods", None) or ()}))


class HeaderLimit:
    """httptools reads headers of any length."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        length = sum(len(name) + len(value) for name, value in scope.get("headers", ()))
        if scope["type"] == "http" and length > LARGEST_HEADERS:
            return await document(Problem(431, "The headers are too long."))(scope, receive, send)
        await self.app(scope, receive, send)


def app(lifespan, ready=None) -> FastAPI:
    app = FastAPI(lifespan=lifespan, redirect_slashes=False, openapi_url=None)
    app.router.route_class = StrictRoute
    app.add_middleware(HeaderLimit)

    @app.exception_handler(StarletteHTTPException)
    async def refused(request, error):
        if error.status_code == 405:
            error.headers = {"Allow": allowed(app, request)}
            if request.method == "OPTIONS":
                return Response(status_code=204, headers=error.headers | getattr(app.state, "options", {}))
        return document(error)

    @app.exception_handler(RequestValidationError)
    async def invalid_input(_request, error):
        return document(invalid(error))

    async def away(_request, _error):
        return document(busy())

    for error in AWAY:
        app.add_exception_handler(error, away)

    @app.exception_handler(Exception)
    async def our_fault(_request, _error):
        # uvicorn closes the connection after an exception. A client that is not told would send its next request on it.
        headers = {"Connection": "close"}
        return document(Problem(500, "Something is wrong here, and it is not your request.", headers=headers))

    @app.api_route("/healthz", methods=["GET", "HEAD"])
    async def healthz():
        return {"status": "alive"}

    @app.api_route("/readyz", methods=["GET", "HEAD"])
    async def readyz():
        if ready:
            await ready()
        return {"status": "ready"}

    return app


class Pool(asyncpg.Pool):
    """asyncpg's own pool waits for ever for a free connection, also in `fetch` and `execute`, which call `acquire`."""

    def acquire(self, *, timeout: float | None = SECONDS_FOR_A_CONNECTION):
        return super().acquire(timeout=timeout)


async def pool(schema: str, size: int = 10) -> Pool:
    """The first four options are ours. The others are what `asyncpg.create_pool` sets, which makes no pool of another class."""
    pool = await Pool(
        os.environ["DATABASE_URL"], min_size=1, max_size=size, command_timeout=5, timeout=SECONDS_FOR_A_CONNECTION,
        max_queries=50_000, max_inactive_connection_lifetime=300, loop=None,
        connection_class=asyncpg.Connection, record_class=asyncpg.Record,
    )  # fmt: skip
    async with pool.acquire() as connection, connection.transaction():
        # Two processes that start at once would both find no table, and both make it.
        await connection.execute("select pg_advisory_xact_lock(hashtext('schema'))")
        await connection.execute(schema)
    return pool


class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        if self.started:
            print(f"listening on {OWN}", flush=True)


def serve(app) -> None:
    """uvicorn never cuts off a client that does not finish its headers, so in production a proxy has to stand before it. Here,
    the limit on open files is raised, so that a thousand slow clients take no place from others."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # When it has drained, uvicorn raises the signal again. The exit status is then 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit())
    config = uvicorn.Config(app, host="127.0.0.1", port=PORT, log_level="warning", backlog=1024, server_header=False,
                            timeout_graceful_shutdown=10, proxy_headers=False, ws_max_size=64 * 1024)  # fmt: skip
    Server(config).run()
