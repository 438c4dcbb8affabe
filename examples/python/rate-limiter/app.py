"""How do many processes share one limit? The bucket of each client is in Redis, and one script there takes from it.

    cargo run -- example rate-limiter --in python

FastAPI and redis-py. In reading order: `TAKE`, `Limit`, `client_of`. The limit is outside of the application, so that a 404
costs as well. While Redis is away, everybody passes: an outage of the limiter must not be an outage of the API.
"""

import ipaddress
import logging
import os
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Request
from pydantic import AfterValidator
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError
from starlette.datastructures import MutableHeaders

import edge
from edge import Model, Problem

LIMIT, WINDOW = 100, 300
COSTS = {"/api/report": 10}
# Only these may say in X-Forwarded-For who their client is.
TRUSTED_PROXIES = set(os.environ.get("TRUSTED_PROXIES", "127.0.0.1").split(","))
# A limiter that answers later than the API is worse than none.
TIMEOUT = 0.5

# A token bucket. Redis runs one script at a time, so nobody comes between the look and the change. The clock is Redis's:
# those of the processes differ. Answers whether it was taken, what is left, and seconds until there is enough or it is full.
TAKE = """
local limit, window, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('time')
local now = time[1] + time[2] / 1000000
local bucket = redis.call('hmget', KEYS[1], 'units', 'at')
local units = limit
if bucket[1] then
    units = math.min(limit, bucket[1] + (now - bucket[2]) * limit / window)
end
local taken = units >= cost
if taken then
    units = units - cost
    redis.call('hset', KEYS[1], 'units', string.format('%.9f', units), 'at', string.format('%.6f', now))
    redis.call('expire', KEYS[1], math.ceil(window))
end
local wanted = taken and limit or cost
return {taken and 1 or 0, math.floor(units), math.ceil((wanted - units) * window / limit)}
"""


class Greeting(Model):
    name: Annotated[str, AfterValidator(lambda name: visible(name))]


def visible(name: str) -> str:
    if not name.strip() or len(name.encode()) > 200:
        raise ValueError("must have 1 to 200 bytes, and not be blank")
    return name


@asynccontextmanager
async def lifespan(app):
    # With a bound: a burst must not open a connection for each request.
    pool = BlockingConnectionPool.from_url(
        os.environ["REDIS_URL"], max_connections=20, timeout=2, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT
    )
    app.state.redis = Redis(connection_pool=pool)
    app.state.take = app.state.redis.register_script(TAKE)
    yield
    await app.state.redis.aclose()


def client_of(request: Request) -> str:
    """Who pays. One network of 64 bits is one client: whoever has one IPv6 address has 2⁶⁴ of them."""
    address = request.client.host
    if address in TRUSTED_PROXIES:
        # The proxy appends the last one. What stands before it, the client has written.
        forwarded = ",".join(request.headers.getlist("x-forwarded-for")).rpartition(",")[2].strip()
        address = forwarded or address
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return request.client.host
    if ip.version == 6:
        return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


# ANCHOR: limit
class Limit:
    """Everything below /api costs, and every answer says where its client stands."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == "/api" or path.startswith("/api/")):
            return await self.app(scope, receive, send)
        key = os.environ.get("KEY_PREFIX", "rate-limiter:") + client_of(Request(scope))
        try:
            state = scope["app"].state
            taken, left, seconds = await state.take(keys=[key], args=[LIMIT, WINDOW, COSTS.get(path, 1)])
        except (RedisError, OSError) as error:
            logging.warning("nobody is limited: %s", error)
            return await self.app(scope, receive, send)
        told = {"RateLimit-Policy": f'"api";q={LIMIT};w={WINDOW}', "RateLimit": f'"api";r={left};t={seconds}'}
        if not taken:
            kind = "https://iana.org/assignments/http-problem-types#quota-exceeded"
            told["Retry-After"] = str(max(1, seconds))
            refusal = Problem(429, "Wait, and ask again.", headers=told, type=kind, title="Quota exceeded",
                              **{"violated-policies": ["api"]})  # fmt: skip
            return await edge.document(refusal)(scope, receive, send)

        async def telling(message):
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(told)
            await send(message)

        await self.app(scope, receive, telling)
# ANCHOR_END: limit


async def ready():
    await app.state.redis.ping()


app = edge.app(lifespan, ready)
app.add_middleware(Limit)


@app.api_route("/api/hello", methods=["GET", "HEAD"])
async def hello():
    return {"hello": "world"}


@app.post("/api/hello")
async def greet(greeting: Greeting):
    return {"hello": greeting.name}


@app.api_route("/api/report", methods=["GET", "HEAD"])
async def report():
    return {"report": "It costs ten units, because it is as much work as ten greetings."}


if __name__ == "__main__":
    edge.serve(app)
