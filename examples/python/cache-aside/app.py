"""How does a cache never show an old value after a change was answered? Only the reader who holds the key's lease may fill
it, and each change takes the lease away.

    cargo run -- example cache-aside --in python

FastAPI, asyncpg and redis-py. In reading order: `read`, `load`, `FILL`, `forget`, `forget_what_is_left`. While Redis is
away, reads go to the database, and what could not be deleted from the cache is not read from it. This process remembers
that in memory, so run one process: a second would still trust the old value until its time to live ends.
"""

import asyncio
import json
import logging
import os
import re
import secrets
import time
from contextlib import asynccontextmanager
from typing import Annotated

import asyncpg
from fastapi import Header, Query, Response
from fastapi.responses import JSONResponse
from pydantic import Field
from redis.asyncio import Redis
from redis.exceptions import RedisError

import edge
from edge import Line, Model, Problem

SCHEMA = """
create table if not exists users (
    id bigint generated always as identity primary key,
    name text not null,
    email text not null,
    email_key text not null constraint users_email unique,
    version bigint not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
-- Users that may still be cached as they were. Written in the transaction of the change, so that a kill after its commit
-- loses nothing. Nearly always empty.
create table if not exists invalidations (id bigint generated always as identity primary key, user_id bigint not null);
-- A part of every key, so that the cache does not outlive this database.
create table if not exists origin (id uuid not null);
insert into origin select gen_random_uuid() where not exists (select from origin);
"""

SECONDS, SECONDS_FOR_NOBODY = 3600, 10
# Longer than a query may take. A reader whose lease has ended may not fill the cache any more.
LEASE_SECONDS = 10
# A cache that answers later than the database is worse than none.
CACHE_TIMEOUT = 0.25
FILL = """
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('set', KEYS[2], ARGV[2], 'EX', ARGV[3])
redis.call('del', KEYS[1])
return 1
"""


class NewUser(Model):
    name: Annotated[Line, Field(max_length=200)]
    email: edge.Email


@asynccontextmanager
async def lifespan(app):
    state = app.state
    state.pool = await edge.pool(SCHEMA)
    state.redis = Redis.from_url(os.environ["REDIS_URL"], socket_timeout=CACHE_TIMEOUT, socket_connect_timeout=CACHE_TIMEOUT)
    state.fill = state.redis.register_script(FILL)
    origin = await state.pool.fetchval("select id from origin")
    state.prefix = f"{os.environ.get('KEY_PREFIX', 'cache-aside:')}{origin}:"
    state.loading = {}  # A task for each user that is being read from the database.
    state.distrusted = await unfinished()  # Users whose cached value may be older than an answered change.
    await forget_what_is_left()
    forgetting = asyncio.create_task(forget_for_ever())
    yield
    forgetting.cancel()
    await asyncio.wait([forgetting])
    await state.redis.aclose()
    await state.pool.close()


app = edge.app(lifespan, lambda: app.state.pool.fetchval("select 1"))


def value_key(id: int) -> str:
    return f"{app.state.prefix}user:{id}"


def lease_key(id: int) -> str:
    return f"{app.state.prefix}lease:{id}"


async def read(ids: list[int]) -> tuple[dict[int, dict | None], dict[int, str]]:
    """The users (None: there is none), and what `Cache-Status` says of each."""
    users, status = {}, {}
    trusted = [id for id in ids if id not in app.state.distrusted]
    try:
        cached = await app.state.redis.mget([value_key(id) for id in trusted]) if trusted else []
    except RedisError:
        trusted, cached = [], []
    for id, value in zip(trusted, cached):
        if value:
            entry = json.loads(value)
            users[id], left = entry["user"], max(0, int(entry["until"] - time.time()))
            status[id] = f"hit; ttl={left}"
    own = [id for id in ids if id not in users and id not in app.state.loading]
    if own:
        task = asyncio.create_task(load(own, [id for id in own if id in trusted]))
        app.state.loading |= dict.fromkeys(own, task)
        task.add_done_callback(lambda task: [app.state.loading.pop(id) for id in own if app.state.loading.get(id) is task])
    # Of many who miss the same user, one asks the database, and the others wait for what it gets. A change takes the task out
    # of `loading` before it is answered, so nobody who comes later waits for a value from before.
    waiting = {id: app.state.loading[id] for id in ids if id not in users}
    for id, task in waiting.items():
        loaded, stored = await asyncio.shield(task)
        users[id] = loaded[id]
        reason = "fwd=miss" if id in trusted else "fwd=bypass"
        status[id] = reason + ("; collapsed" if id not in own else "; stored" if id in stored else "")
    return users, status


# ANCHOR: load
async def load(ids: list[int], cacheable: list[int]) -> tuple[dict[int, dict | None], set[int]]:
    """From the database; and which of them are in the cache now. The lease is taken before the query: a change that the query
    does not see then comes after the lease, and takes it away."""
    tokens = await lease(cacheable)
    rows = await app.state.pool.fetch("select * from users where id = any($1)", ids)
    users = dict.fromkeys(ids) | {row["id"]: shown(row) for row in rows}
    stored = await asyncio.gather(*(fill(id, token, users[id]) for id, token in tokens.items()))
    return users, {id for id, done in zip(tokens, stored) if done}


async def lease(ids: list[int]) -> dict[int, str]:
    tokens = {id: secrets.token_hex(8) for id in ids}
    try:
        async with app.state.redis.pipeline(transaction=False) as pipeline:
            for id, token in tokens.items():
                pipeline.set(lease_key(id), token, nx=True, ex=LEASE_SECONDS)
            got = await pipeline.execute()
    except RedisError:
        return {}
    return {id: token for (id, token), mine in zip(tokens.items(), got) if mine}


async def fill(id: int, token: str, user: dict | None) -> bool:
    seconds = SECONDS if user else SECONDS_FOR_NOBODY
    entry = json.dumps({"user": user, "until": time.time() + seconds})
    try:
        return bool(await app.state.fill(keys=[lease_key(id), value_key(id)], args=[token, entry, seconds]))
    except RedisError:
        return False
# ANCHOR_END: load


async def forget(id: int, invalidation: int) -> None:
    """After the commit and before the answer. If the cache cannot forget, it is not believed until it has."""
    app.state.loading.pop(id, None)
    app.state.distrusted[id] = max(invalidation, app.state.distrusted.get(id, 0))
    try:
        await app.state.redis.delete(lease_key(id), value_key(id))
    except RedisError:
        return
    await finished({id: invalidation})


async def finished(forgotten: dict[int, int]) -> None:
    for id, invalidation in forgotten.items():
        # A later change may be waiting for its own deletion.
        if app.state.distrusted.get(id, 0) <= invalidation:
            app.state.distrusted.pop(id, None)
    await app.state.pool.execute(
        "delete from invalidations using unnest($1::bigint[], $2::bigint[]) as done (user_id, id)"
        " where invalidations.user_id = done.user_id and invalidations.id <= done.id",
        list(forgotten), list(forgotten.values()),
    )  # fmt: skip


async def unfinished() -> dict[int, int]:
    rows = await app.state.pool.fetch("select user_id, max(id) as id from invalidations group by user_id")
    return {row["user_id"]: row["id"] for row in rows}


async def forget_what_is_left() -> None:
    """What a process that was killed, or a Redis that was away, has left in the cache."""
    left = dict(app.state.distrusted)
    if left:
        try:
            await app.state.redis.delete(*(key for id in left for key in (lease_key(id), value_key(id))))
            await finished(left)
        except Exception as error:
            # The next time. Whatever it is, the loop below must go on.
            logging.warning("the cache may hold old values of %s users: %s", len(left), error)


async def forget_for_ever() -> None:
    while True:
        await asyncio.sleep(0.5)
        await forget_what_is_left()


def shown(row) -> dict:
    moments = {name: edge.moment(row[name]) for name in ("created_at", "updated_at")}
    return {name: row[name] for name in ("id", "name", "email", "version")} | moments


def answer(user: dict, status: int = 200, headers: dict | None = None) -> JSONResponse:
    body = {name: value for name, value in user.items() if name != "version"}
    return JSONResponse(body, status, {"ETag": f'"{user["version"]}"'} | (headers or {}))


@app.post("/users")
async def create(user: NewUser):
    try:
        row = await app.state.pool.fetchrow(
            """
            with made as (
                insert into users (name, email, email_key) values ($1, $2, $3) returning *
            ), noted as (
                insert into invalidations (user_id) select id from made returning id
            )
            select made.*, noted.id as invalidation from made, noted
            """,
            user.name, user.email, edge.mailbox(user.email),
        )  # fmt: skip
    except asyncpg.UniqueViolationError:
        raise Problem(409, "Somebody has this address.") from None
    # That there is nobody of this id may be cached.
    await forget(row["id"], row["invalidation"])
    return answer(shown(row), 201, {"Location": f"/users/{row['id']}"})


@app.api_route("/users/{id:number}", methods=["GET", "HEAD"])
async def read_one(id: int):
    users, status = await read([id])
    headers = {"Cache-Status": f"redis; {status[id]}"}
    if not users[id]:
        raise Problem(404, "There is no such user.", headers=headers)
    return answer(users[id], headers=headers)


@app.api_route("/users", methods=["GET", "HEAD"])
async def read_many(ids: Annotated[list[str], Query(default_factory=list)]):
    texts = ids[0].split(",") if len(ids) == 1 else []
    if not 1 <= len(texts) <= 100 or not all(re.fullmatch(edge.NUMBER, it) and int(it) < 2**63 for it in texts):
        raise Problem(422, "must be 1 to 100 ids with commas between them, once", "ids")
    wanted = list(dict.fromkeys(int(text) for text in texts))
    users, status = await read(wanted)
    hits = all(it.startswith("hit") for it in status.values())
    told = min(status.values(), key=lambda it: int(it.partition("ttl=")[2])) if hits else "fwd=partial"
    some = [{name: value for name, value in users[id].items() if name != "version"} for id in wanted if users[id]]
    missing = [id for id in wanted if not users[id]]
    return JSONResponse({"users": some, "missing": missing}, headers={"Cache-Status": f"redis; {told}"})


@app.put("/users/{id:number}")
async def change(id: int, user: NewUser, if_match: Annotated[str | None, Header()] = None):
    if if_match is None:
        raise Problem(428, "Send `If-Match` with the ETag that you have read.")
    # A weak tag begins with W/, and never matches.
    tags = [tag.strip() for tag in if_match.split(",")]
    versions = [int(tag[1:-1]) for tag in tags if re.fullmatch('"[0-9]{1,18}"', tag)]
    try:
        # PostgreSQL looks at the version again once it has the lock of the row, so of many changes one is made.
        row = await app.state.pool.fetchrow(
            """
            with changed as (
                update users
                set name = $2, email = $3, email_key = $4, version = version + 1, updated_at = greatest(now(), created_at)
                where id = $1 and ($5 or version = any($6))
                returning *
            ), noted as (
                insert into invalidations (user_id) select id from changed returning id
            )
            select changed.*, noted.id as invalidation from changed, noted
            """,
            id, user.name, user.email, edge.mailbox(user.email), if_match.strip() == "*", versions,
        )  # fmt: skip
    except asyncpg.UniqueViolationError:
        raise Problem(409, "Somebody has this address.") from None
    if not row:
        if await app.state.pool.fetchval("select exists (select from users where id = $1)", id):
            raise Problem(412, "The user has been changed since.")
        raise Problem(404, "There is no such user.")
    await forget(id, row["invalidation"])
    return answer(shown(row))


@app.delete("/users/{id:number}")
async def delete(id: int):
    invalidation = await app.state.pool.fetchval(
        """
        with deleted as (delete from users where id = $1 returning id)
        insert into invalidations (user_id) select id from deleted returning id
        """,
        id,
    )
    if invalidation is None:
        raise Problem(404, "There is no such user.")
    await forget(id, invalidation)
    return Response(status_code=204)


if __name__ == "__main__":
    edge.serve(app)
