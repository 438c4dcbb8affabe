"""How does a long URL become seven letters? The CRC of the URL in base 62; the unique index decides who owns a code.

    cargo run -- example url-shortener --in python

FastAPI and asyncpg. In reading order: `code_of`, `create`, `follow`, `write_clicks`. Clicks are counted in memory and
written twice a second, so a kill loses the clicks of the last half second, and no link.
"""

import asyncio
import hashlib
import logging
import re
import secrets
import zlib
from collections import Counter
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, Field, HttpUrl, TypeAdapter
from starlette.convertors import register_url_convertor

import edge
from edge import Model, Problem

SCHEMA = """
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
"""

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Chance never needs the third. Somebody who makes URLs collide on purpose only loses the sharing.
MOST_CANDIDATES = 20
RESERVED = {"links", "healthz", "readyz"}


def leads_elsewhere(url: str) -> str:
    """Only what is safe to redirect to. The URL is kept as it was sent: `HttpUrl` would write it in its own way."""
    if not re.fullmatch(r"https?://[^/?#\\@][!-~]*", url) or len(url) > 2048:
        raise ValueError("must be an http or https URL of at most 2,048 visible ASCII characters")
    TypeAdapter(HttpUrl).validate_python(url)
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("must have no user name")
    if f"{parts.scheme}://{parts.netloc}" == edge.OWN:
        raise ValueError("must not lead to this shortener")
    return url


def free_path(alias: str) -> str:
    if alias in RESERVED or not re.fullmatch(r"[A-Za-z0-9_-]{3,32}", alias):
        raise ValueError("must be 3 to 32 letters, digits, _ and -, and no path of the service")
    return alias


Url = Annotated[str, AfterValidator(leads_elsewhere)]
Seconds = Annotated[int, Field(ge=1, le=315_360_000)]


# What cannot be a code is no path of ours: 404, without asking the database.
register_url_convertor("code", edge.InPath("(?!(?:links|healthz|readyz)$)[A-Za-z0-9_-]{3,32}"))


class NewLink(Model):
    url: Url
    alias: Annotated[str, AfterValidator(free_path)] | None = None
    expires_in_seconds: Seconds | None = None


class Change(Model):
    url: Url = ""
    expires_in_seconds: Seconds | None = None


@asynccontextmanager
async def lifespan(app):
    app.state.pool = await edge.pool(SCHEMA)
    app.state.clicks = Counter()
    stopped = asyncio.Event()
    writing = asyncio.create_task(write_clicks_until(stopped))
    yield
    # Not `cancel`, which could end a statement half-way, and lose its clicks.
    stopped.set()
    await writing
    await app.state.pool.close()


async def ready():
    await app.state.pool.fetchval("select 1")


app = edge.app(lifespan, ready)


def code_of(text: str) -> str:
    number = zlib.crc32(text.encode())
    return "".join(DIGITS[number // 62**place % 62] for place in range(6, -1, -1))


@app.post("/links")
async def create(link: NewLink):
    shared = link.alias is None and link.expires_in_seconds is None
    token = None if shared else secrets.token_urlsafe()
    for salt in range(MOST_CANDIDATES):
        # A link of somebody's own must not have a code that others can compute.
        candidate = link.url if shared and salt == 0 else f"{link.url} {salt} {'' if shared else secrets.token_hex()}"
        code = link.alias or code_of(candidate)
        row = await insert(code, link, shared, token)
        if row:
            return JSONResponse(shown(row, token), 201, {"Location": f"/links/{code}"})
        owner = await app.state.pool.fetchrow("select * from links where code = $1", code)
        if shared and owner and owner["shared"] and owner["url"] == link.url:
            return JSONResponse(shown(owner), 200, {"Location": f"/links/{code}"})
        if link.alias:
            raise Problem(409, "Somebody has this alias.")
    raise edge.busy("No free code was found.")


# ANCHOR: insert
async def insert(code: str, link: NewLink, shared: bool, token: str | None):
    """Whoever inserts first owns the code. A look before the insertion would let two of them find it free."""
    async with app.state.pool.acquire() as connection, connection.transaction():
        # With the link its clicks go, so the next owner of the code does not inherit them.
        await connection.execute("delete from links where code = $1 and expires_at <= now()", code)
        return await connection.fetchrow(
            """
            insert into links (code, url, shared, expires_at, token_hash)
            values ($1, $2, $3, now() + make_interval(secs => $4), $5)
            on conflict (code) do nothing
            returning *
            """,
            code, link.url, shared, link.expires_in_seconds, hashed(token),
        )  # fmt: skip
# ANCHOR_END: insert


def hashed(token: str | None) -> bytes | None:
    # A random token needs no slow hash: nobody can guess 256 bits.
    return token and hashlib.sha256(token.encode()).digest()


async def find(code: str):
    row = await app.state.pool.fetchrow("select *, expires_at <= now() as ended from links where code = $1", code)
    if not row:
        raise Problem(404, "There is no such link.")
    if row["ended"]:
        raise Problem(410, "This link has expired.")
    return row


def shown(row, token: str | None = None) -> dict:
    link = {
        "code": row["code"],
        "short_url": f"{edge.OWN}/{row['code']}",
        "url": row["url"],
        "created_at": edge.moment(row["created_at"]),
        "expires_at": edge.moment(row["expires_at"]),
    }
    return link | ({"edit_token": token} if token else {})


@app.api_route("/links/{code:code}", methods=["GET", "HEAD"])
async def look_at(code: str):
    return shown(await find(code))


async def owned(code: str, authorization: str):
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Problem(401, "Send the edit token.", headers={"WWW-Authenticate": "Bearer"})
    row = await find(code)
    if not row["token_hash"] or not secrets.compare_digest(row["token_hash"], hashed(token.strip())):
        raise Problem(403, "This token cannot change this link.")
    return row


@app.patch("/links/{code:code}")
async def change(code: str, change: Change, authorization: Annotated[str, Header()] = ""):
    row = await owned(code, authorization)
    url = change.url if "url" in change.model_fields_set else row["url"]
    changed = await app.state.pool.fetchrow(
        """
        update links
        set url = $2,
            expires_at = case when $3 then now() + make_interval(secs => $4) else expires_at end
        where id = $1
        returning *
        """,
        row["id"], url, "expires_in_seconds" in change.model_fields_set, change.expires_in_seconds,
    )  # fmt: skip
    if not changed:
        raise Problem(404, "There is no such link.")
    return shown(changed)


@app.delete("/links/{code:code}")
async def delete(code: str, authorization: Annotated[str, Header()] = ""):
    row = await owned(code, authorization)
    await app.state.pool.execute("delete from links where id = $1", row["id"])
    return Response(status_code=204)


@app.api_route("/links/{code:code}/stats", methods=["GET", "HEAD"])
async def stats(code: str):
    link = await find(code)
    # One statement, so that both lists are of the same moment and have the same sum.
    rows = await app.state.pool.fetch(
        """
        select day, host, sum(clicks)::bigint as clicks
        from clicks
        where link_id = $1
        group by grouping sets ((day), (host))
        order by day desc, clicks desc
        """,
        link["id"],
    )
    days = [{"day": row["day"].isoformat(), "clicks": row["clicks"]} for row in rows if row["day"]]
    hosts = [{"host": row["host"], "clicks": row["clicks"]} for row in rows if row["host"]]
    if others := hosts[100:]:
        hosts[100:] = [{"host": "other", "clicks": sum(host["clicks"] for host in others)}]
    return {"code": code, "clicks": sum(day["clicks"] for day in days), "by_day": days[:366], "referrers": hosts}


@app.api_route("/{code:code}", methods=["GET", "HEAD"])
async def follow(code: str, request: Request):
    link = await find(code)
    if request.method == "GET":
        host = re.match(r"https?://([A-Za-z0-9.-]{1,253})", request.headers.get("referer", ""))
        app.state.clicks[link["id"], datetime.now(UTC).date(), host[1].lower() if host else "direct"] += 1
    # 302 is not cached unless a header allows it, so the next click comes here too.
    return Response(status_code=302, headers={"Location": link["url"], "Cache-Control": "private, max-age=0"})


async def write_clicks_until(stopped: asyncio.Event):
    while not stopped.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), 0.5)
        await write_clicks()


async def write_clicks():
    counted, app.state.clicks = app.state.clicks, Counter()
    if not counted:
        return
    try:
        # The join leaves out links that were deleted meanwhile. Sorted, so that two writers never wait for each other.
        await app.state.pool.execute(
            """
            insert into clicks (link_id, day, host, clicks)
            select new.* from unnest($1::bigint[], $2::date[], $3::text[], $4::bigint[]) as new (link_id, day, host, clicks)
            where exists (select from links where links.id = new.link_id for key share)
            on conflict (link_id, day, host) do update set clicks = clicks.clicks + excluded.clicks
            """,
            *zip(*((*key, count) for key, count in sorted(counted.items()))),
        )
    except Exception as error:
        # They are written when the database is back.
        logging.warning("clicks wait: %s", error)
        app.state.clicks.update(counted)


if __name__ == "__main__":
    edge.serve(app)
