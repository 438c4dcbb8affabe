"""What makes an API one that can be used without reading its source? Status codes that say who has to do what, conditions instead
of locks, keys that make a POST repeatable, and links.

    cargo run -- example rest-api --in python

FastAPI, asyncpg, jsonpatch and graphql-core. In reading order: `create`, `page`, `put`, `patch`, `move`, and then `parts.py`.
"""

import json
import re
import uuid
from contextlib import asynccontextmanager
from datetime import datetime
from email.utils import format_datetime
from typing import Annotated
from urllib.parse import urlencode

import asyncpg
from fastapi import Header, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import AfterValidator, Field

import edge
import parts
from edge import Line, Model, Problem

SCHEMA = """
-- From a sequence, so that a user who is created again under an old id has none of the old versions.
create sequence if not exists versions;
create table if not exists users (
    id uuid primary key,
    name text not null,
    email text not null,
    mailbox text collate "C" not null constraint users_mailbox unique,
    tags text[] not null,
    version bigint not null default nextval('versions'),
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp()
);
create index if not exists users_by_creation on users (created_at, id);
create index if not exists users_by_name on users (name collate "C", id);
create table if not exists orders (
    id uuid primary key,
    number bigint generated always as identity,
    user_id uuid not null references users on delete cascade,
    item text not null,
    quantity int not null,
    state text not null default 'open'
);
create index if not exists orders_of_user on orders (user_id, number);
create table if not exists idempotency_keys (
    key text collate "C" primary key,
    fingerprint bytea not null,
    status int,
    headers text,
    body text
);
"""

OLD = {"Deprecation": "@1767225600", "Sunset": "Fri, 31 Dec 2027 23:59:59 GMT"}
SORTS = {"created_at": ("created_at", "timestamptz"), "name": ('name collate "C"', "text")}


def good_tags(tags: list[str]) -> list[str]:
    if len(tags) > 10 or not all(1 <= len(tag) <= 50 and edge.one_line(tag) for tag in tags):
        raise ValueError("must be at most ten texts of 1 to 50 characters on one line")
    return tags


class NewUser(Model):
    name: Annotated[Line, Field(max_length=200)]
    email: edge.Email
    tags: Annotated[list[str], AfterValidator(good_tags)] = []


class Graph(Model):
    query: str
    variables: dict | None = None
    operationName: str | None = None


@asynccontextmanager
async def lifespan(app):
    app.state.pool = await edge.pool(SCHEMA)
    yield
    await app.state.pool.close()


app = edge.app(lifespan, lambda: app.state.pool.fetchval("select 1"))
app.include_router(parts.orders)
app.state.options = {"Accept-Patch": f"{parts.MERGE_PATCH}, {parts.JSON_PATCH}"}


def shown(row) -> dict:
    path = f"/users/{row['id']}"
    user = {name: row[name] for name in ("name", "email", "tags")}
    moments = {name: edge.moment(row[name]) for name in ("created_at", "updated_at")}
    links = {"self": {"href": path}, "orders": {"href": f"{path}/orders"}}
    return {"id": str(row["id"])} | user | moments | {"_links": links}


def as_customer(row) -> dict:
    return {"id": str(row["id"]), "full_name": row["name"], "email": row["email"]}


def tag(row) -> str:
    return f'"{row["version"]}"'


def answer(row, status: int = 200) -> JSONResponse:
    headers = {"ETag": tag(row)} | ({"Location": f"/users/{row['id']}"} if status == 201 else {})
    return JSONResponse(shown(row), status, headers)


async def inserted(connection, id: str, user: NewUser):
    """None if there is such an id already. The index decides who has an address."""
    try:
        # What fails in here does not fail what is around it.
        async with connection.transaction():
            return await connection.fetchrow(
                """
                insert into users (id, name, email, mailbox, tags) values ($1, $2, $3, $4, $5)
                on conflict (id) do nothing
                returning *
                """,
                id, user.name, user.email, edge.mailbox(user.email), user.tags,
            )  # fmt: skip
    except asyncpg.UniqueViolationError:
        raise Problem(409, "Somebody has this address.") from None


@app.post("/users")
async def create(user: NewUser, request: Request):
    key = edge.idempotency_key(request) if "idempotency-key" in request.headers else None
    fingerprint = edge.fingerprint(user)
    async with app.state.pool.acquire() as connection, connection.transaction():
        if key:
            claim = "insert into idempotency_keys (key, fingerprint) values ($1, $2) on conflict do nothing returning true"
            if not await connection.fetchval(claim, key, fingerprint):
                known = await connection.fetchrow("select * from idempotency_keys where key = $1", key)
                if known["fingerprint"] != fingerprint:
                    raise Problem(422, "This key was sent with another body before.")
                headers = json.loads(known["headers"])
                return Response(known["body"], known["status"], headers, headers.get("content-type"))
        try:
            made = answer(await inserted(connection, str(uuid.uuid4()), user), 201)
        except Problem as problem:
            # A refusal is an answer too, and stays the answer of its key.
            made = edge.document(problem)
        if key:
            headers = {name: made.headers[name] for name in ("location", "etag", "content-type") if name in made.headers}
            await connection.execute(
                "update idempotency_keys set status = $2, headers = $3, body = $4 where key = $1",
                key, made.status_code, json.dumps(headers), made.body.decode(),
            )  # fmt: skip
    return made


async def page(request: Request):
    """The rows of a page, and the path of the next one. From the last place, and not by a number of rows to leave out: a user who
    comes or goes meanwhile moves nobody to another page."""
    given = request.query_params.multi_items()
    for name, _ in given:
        if name not in ("limit", "sort", "email", "include", "cursor") or [it for it, _ in given].count(name) > 1:
            raise Problem(422, "is no parameter of this call, or is there twice", name)
    query = dict(given)
    limit, sort = edge.one_number(request, "limit", 1, 200, 50), query.get("sort", "created_at")
    if sort.removeprefix("-") not in SORTS or sort.startswith("--"):
        raise Problem(422, "must be name or created_at, perhaps with -", "sort")
    if query.get("include", "orders") != "orders":
        raise Problem(422, "must be orders", "include")
    email = query.get("email")
    if email is not None:
        email = edge.mailbox(edge.parsed(NewUser, {"name": "x", "email": email}).email)
    of = [sort, email]
    place = parts.place_of(query["cursor"], of) if "cursor" in query else [None, None]
    column, kind = SORTS[sort.removeprefix("-")]
    sign, order = ("<", "desc") if sort.startswith("-") else (">", "asc")
    if place[0] and kind == "timestamptz":
        try:
            place[0] = datetime.fromisoformat(place[0])
        except ValueError:
            raise Problem(422, "must be the one of the `Link` to the next page", "cursor") from None
    rows = await app.state.pool.fetch(
        f"""
        select * from users
        where ($1::text is null or mailbox = $1)
            and ($2::{kind} is null or ({column}, id) {sign} ($2, $3::uuid))
        order by {column} {order}, id {order}
        limit $4
        """,
        email, *place, limit + 1,
    )  # fmt: skip
    following = None
    if len(rows) > limit:
        last = rows[limit - 1]
        value = last["name"] if kind == "text" else edge.moment(last["created_at"])
        cursor = parts.cursor_of(of, value, str(last["id"]))
        following = f"{request.url.path}?{urlencode(query | {'cursor': cursor})}"
    return rows[:limit], following


@app.api_route("/users", methods=["GET", "HEAD"])
async def list_users(request: Request):
    rows, following = await page(request)
    items = [shown(row) for row in rows]
    if "include" in request.query_params:
        orders = await parts.orders_of(app.state.pool, [row["id"] for row in rows])
        items = [item | {"orders": orders.get(item["id"], [])} for item in items]
    links = {"next": {"href": following}} if following else {}
    headers = {"Link": f'<{following}>; rel="next"'} if following else {}
    return JSONResponse({"items": items, "_links": links}, headers=headers)


async def found(id: str):
    row = await app.state.pool.fetchrow("select * from users where id = $1", id)
    if not row:
        raise Problem(404, "There is no such user.")
    return row


def tags_in(header: str) -> list[str]:
    return [tag.strip() for tag in header.split(",")]


@app.api_route("/users/{id:id}", methods=["GET", "HEAD"])
async def read(id: str, accept: Annotated[str | None, Header()] = None, if_none_match: Annotated[str, Header()] = ""):
    media_type, row = parts.chosen(accept), await found(id)
    old = media_type == parts.V1
    # Other bytes have another tag.
    etag = f'"{row["version"]}-v1"' if old else tag(row)
    headers = {"ETag": etag, "Vary": "Accept", "Last-Modified": format_datetime(row["updated_at"], usegmt=True)}
    # For a read, a weak tag is as good as a strong one.
    if "*" in tags_in(if_none_match) or etag in [it.removeprefix("W/") for it in tags_in(if_none_match)]:
        return Response(status_code=304, headers=headers)
    return JSONResponse(as_customer(row) if old else shown(row), 200, headers, media_type)


def must_match(row, if_match: str | None) -> None:
    if if_match is None:
        raise Problem(428, "Send `If-Match` with the ETag that you have read.")
    # A weak tag never matches: two that are weakly the same may differ.
    if if_match.strip() != "*" and tag(row) not in tags_in(if_match):
        raise Problem(412, "The user has been changed since.")


async def replaced(connection, row, user: NewUser):
    if (row["name"], row["email"], row["tags"]) == (user.name, user.email, user.tags):
        return row
    try:
        return await connection.fetchrow(
            """
            update users
            set name = $2, email = $3, mailbox = $4, tags = $5, version = nextval('versions'), updated_at = clock_timestamp()
            where id = $1
            returning *
            """,
            row["id"], user.name, user.email, edge.mailbox(user.email), user.tags,
        )  # fmt: skip
    except asyncpg.UniqueViolationError:
        raise Problem(409, "Somebody has this address.") from None


IfMatch = Annotated[str | None, Header()]
LOCKED = "select * from users where id = $1 for update"


@app.put("/users/{id:id}")
async def put(id: str, user: NewUser, if_match: IfMatch = None, if_none_match: Annotated[str | None, Header()] = None):
    async with app.state.pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(LOCKED, id)
        if not row:
            if if_match is not None:
                raise Problem(412, "There is no such user any more.")
            if made := await inserted(connection, id, user):
                return answer(made, 201)
            row = await connection.fetchrow(LOCKED, id)
        if if_none_match is not None and "*" in tags_in(if_none_match):
            raise Problem(412, "There is such a user.")
        must_match(row, if_match)
        return answer(await replaced(connection, row, user))


@app.patch("/users/{id:id}")
async def patch(id: str, request: Request, if_match: IfMatch = None):
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in (parts.MERGE_PATCH, parts.JSON_PATCH):
        raise Problem(415, "Send a merge patch or a JSON Patch.", headers=app.state.options)
    request.accepted = (media_type,)
    changes = await request.json()
    async with app.state.pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(LOCKED, id)
        if not row:
            raise Problem(404, "There is no such user.")
        must_match(row, if_match)
        before = {"id": id} | {name: row[name] for name in ("name", "email", "tags")}
        after = parts.patched(before, media_type, changes)
        if after.pop("id", None) != id:
            raise Problem(422, "cannot be changed", "id")
        return answer(await replaced(connection, row, edge.parsed(NewUser, after)))


@app.delete("/users/{id:id}")
async def delete(id: str, if_match: IfMatch = None):
    async with app.state.pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(LOCKED, id)
        if row and if_match is not None:
            must_match(row, if_match)
        # An order needs a lock on its user, so none comes between this look and the deletion.
        if await connection.fetchval("select exists (select from orders where user_id = $1 and state = 'open')", id):
            raise Problem(409, "This user has an open order.")
        await connection.execute("delete from users where id = $1", id)
    return Response(status_code=204)


@app.api_route("/v1/customers", methods=["GET", "HEAD"])
async def customers(request: Request):
    rows, following = await page(request)
    headers = OLD | ({"Link": f'<{following}>; rel="next"'} if following else {})
    return JSONResponse({"items": [as_customer(row) for row in rows]}, headers=headers)


@app.api_route("/v1/customers/{id:id}", methods=["GET", "HEAD"])
async def customer(id: str):
    return JSONResponse(as_customer(await found(id)), headers=OLD)


graph = parts.schema(lambda most: parts.users_with_orders(app.state.pool, most))


@app.post("/graphql")
async def graphql(body: Graph):
    return await parts.answered(graph, body.query, body.variables or {})


@app.api_route("/openapi.json", methods=["GET", "HEAD"], include_in_schema=False)
async def openapi():
    return app.openapi()


@app.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
async def docs():
    calls = [f"<li><code>{method.upper()} {path}</code></li>" for path, it in app.openapi()["paths"].items() for method in it]
    page = f"<ul>{''.join(calls)}</ul><p>All of it: <a href='/openapi.json'>openapi.json</a></p>"
    return HTMLResponse(f"<!doctype html><meta charset='utf-8'><title>Users</title><h1>The calls</h1>{page}")


if __name__ == "__main__":
    edge.serve(app)
