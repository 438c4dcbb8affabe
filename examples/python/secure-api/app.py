"""How is an API secured? Every query names the customer of whoever asks, every call names who may, and what a client sends is
never more than it may be.

    cargo run -- example secure-api --in python

FastAPI, asyncpg, PyJWT, argon2-cffi and httpx. In reading order: `login`, `find`, `page`, `upload`, and then `guard.py`. It limits
no logins: `jwt-auth` shows how. It lets webhooks through to http://127.0.0.1:9/, as the table of calls asks.
"""

import asyncio
import csv
import io
import re
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, Field

import edge
import guard
from edge import Line, Model, Problem

SCHEMA = """
create table if not exists customers (id uuid primary key, name text not null unique);
create table if not exists users (
    id uuid primary key,
    email text not null unique,
    role text not null check (role in ('clerk', 'viewer', 'admin')),
    customer_id uuid references customers,
    password_hash text not null
);
create table if not exists invoices (
    id uuid primary key,
    number bigint generated always as identity unique,
    customer_id uuid not null references customers,
    title text not null,
    note text not null,
    amount_cents bigint not null check (amount_cents > 0),
    corrects uuid,
    paid boolean not null default false,
    created_at timestamptz not null default now(),
    unique (id, customer_id),
    -- Whatever the code forgets, an invoice corrects none of another customer's.
    foreign key (corrects, customer_id) references invoices (id, customer_id) on delete set null (corrects)
);
create index if not exists invoices_of_customer on invoices (customer_id, number);
create table if not exists attachments (
    id uuid primary key,
    customer_id uuid not null references customers,
    invoice_id uuid not null references invoices on delete cascade,
    name text not null,
    media_type text not null,
    data bytea not null
);
create table if not exists webhooks (id uuid primary key, customer_id uuid not null references customers, url text not null);
create table if not exists audit (
    seq bigint generated always as identity primary key,
    actor text not null,
    action text not null,
    object text not null,
    request_id text not null,
    hash text not null
);
"""

PASSWORD = "seven quiet otters at noon"
ACCOUNTS = [("ada@acme.example", "clerk", "Acme"), ("vic@acme.example", "viewer", "Acme"),
            ("gil@globex.example", "clerk", "Globex"), ("olga@operator.example", "admin", None)]  # fmt: skip
LARGEST_FILE = 2 * 1024 * 1024
# What a client sees of an invoice. A column that is added one day is not among them.
COLUMNS = "id, title, note, amount_cents, corrects, paid, created_at"
hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
hashing = asyncio.Semaphore(2)

Clerk, Reader, Admin = (Annotated[dict, guard.may(*roles)] for roles in (["clerk"], ["clerk", "viewer"], ["admin"]))
Title = Annotated[Line, Field(max_length=200)]
Note = Annotated[str, Field(max_length=2000), AfterValidator(lambda note: note and edge.one_line(note))]
Uuid = Annotated[str, Field(pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


class Credentials(Model):
    email: Annotated[str, Field(max_length=254)]
    password: Annotated[str, Field(max_length=128)]


class NewInvoice(Model):
    title: Title
    amount_cents: Annotated[int, Field(ge=1, le=10**12)]
    note: Note = ""
    corrects: Uuid | None = None


class Change(Model):
    title: Title = ""
    note: Note = ""


class NewWebhook(Model):
    url: Annotated[str, AfterValidator(guard.public_url)]


@asynccontextmanager
async def lifespan(app):
    app.state.pool = await edge.pool(SCHEMA)
    hashed = hasher.hash(PASSWORD)
    for email, role, customer in ACCOUNTS:
        if customer:
            insert = "insert into customers values ($1, $2) on conflict do nothing"
            await app.state.pool.execute(insert, uuid.uuid4(), customer)
        await app.state.pool.execute(
            "insert into users select $1, $2, $3, (select id from customers where name = $4), $5 on conflict do nothing",
            uuid.uuid4(), email, role, customer, hashed,
        )  # fmt: skip
    # Verified for an address that nobody has, so that it takes as long.
    app.state.nobodys_hash = hashed
    yield
    await app.state.pool.close()


app = edge.app(lifespan, lambda: app.state.pool.fetchval("select 1"))
app.add_middleware(guard.Headers)


@app.api_route("/openapi.json", methods=["GET", "HEAD"], include_in_schema=False)
async def openapi():
    return app.openapi()


def verifies(hashed: str, password: str) -> bool:
    try:
        return hasher.verify(hashed, password)
    except VerifyMismatchError:
        return False


@app.post("/login")
async def login(credentials: Credentials, request: Request):
    user = await app.state.pool.fetchrow("select * from users where email = lower($1)", credentials.email.replace("\0", ""))
    hashed = user["password_hash"] if user else app.state.nobodys_hash
    async with hashing:
        right = await asyncio.to_thread(verifies, hashed, credentials.password)
    if not (user and right):
        raise Problem(401, "The address or the password is wrong.", headers={"WWW-Authenticate": "Bearer"})
    claims = {"sub": str(user["id"]), "role": user["role"], "customer": user["customer_id"] and str(user["customer_id"]),
              "exp": datetime.now(UTC) + timedelta(seconds=guard.LIFE_SECONDS)}  # fmt: skip
    async with app.state.pool.acquire() as connection, connection.transaction():
        await guard.audit(connection, claims | {"request": request.scope["id"]}, "logged in", "login")
    token = jwt.encode(claims, guard.KEY, "HS256")
    return {"access_token": token, "token_type": "Bearer", "expires_in": guard.LIFE_SECONDS}


def shown(row) -> dict:
    corrects = row["corrects"] and str(row["corrects"])
    return dict(row) | {"id": str(row["id"]), "corrects": corrects, "created_at": edge.moment(row["created_at"])}


async def find(user: dict, id: str, table: str = "invoices", columns: str = COLUMNS):
    """Another customer's is as if it were not there: 403 would say that it is."""
    query = f"select {columns} from {table} where id = $1 and customer_id = $2"
    row = await app.state.pool.fetchrow(query, id, user["customer"])
    if not row:
        raise Problem(404, "There is nothing here.")
    return row


async def done(user: dict, action: str, object: str, statement: str, *values):
    """The row that the statement returns, if it has changed one. It and the entry in the log are written both or not at all."""
    async with app.state.pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(statement, *values)
        if not row:
            raise Problem(404, "There is nothing here.")
        await guard.audit(connection, user, action, object)
        return row


@app.post("/invoices")
async def create(invoice: NewInvoice, user: Clerk):
    if invoice.corrects:
        query = "select exists (select from invoices where id = $1 and customer_id = $2)"
        if not await app.state.pool.fetchval(query, invoice.corrects, user["customer"]):
            raise Problem(422, "must be an earlier invoice of yours", "corrects")
    id = str(uuid.uuid4())
    row = await done(
        user, "invoice created", id,
        f"""
        insert into invoices (id, customer_id, title, note, amount_cents, corrects)
        values ($1, $2, $3, $4, $5, $6)
        returning {COLUMNS}
        """,
        id, user["customer"], invoice.title, invoice.note, invoice.amount_cents, invoice.corrects,
    )  # fmt: skip
    return JSONResponse(shown(row), 201, {"Location": f"/invoices/{id}"})


@app.api_route("/invoices/{id:id}", methods=["GET", "HEAD"])
async def read(id: str, user: Reader):
    return shown(await find(user, id))


@app.patch("/invoices/{id:id}")
async def change(id: str, change: Change, user: Clerk):
    given = change.model_dump(exclude_unset=True)
    row = await done(
        user, "invoice changed", id,
        f"""
        update invoices set title = coalesce($3, title), note = coalesce($4, note)
        where id = $1 and customer_id = $2
        returning {COLUMNS}
        """,
        id, user["customer"], given.get("title"), given.get("note"),
    )  # fmt: skip
    return shown(row)


@app.delete("/invoices/{id:id}")
async def delete(id: str, user: Clerk):
    statement = "delete from invoices where id = $1 and customer_id = $2 returning id"
    await done(user, "invoice deleted", id, statement, id, user["customer"])
    return Response(status_code=204)


async def page(request: Request, user: dict, most: int):
    """The rows of one page, and one more if there is more."""
    given = request.query_params.multi_items()
    for name, _ in given:
        if name not in ("search", "sort", "limit", "after") or [it for it, _ in given].count(name) > 1:
            raise Problem(422, "is no parameter of this call, or is there twice", name)
    query = dict(given)
    limit, after = edge.one_number(request, "limit", 1, most, 50), query.get("after")
    # A column's name cannot be a placeholder, so it is one of ours, and never the client's text.
    sort = {"created_at": "number", "amount_cents": "amount_cents"}.get(query.get("sort", "created_at").removeprefix("-"))
    if not sort or query.get("sort", "").startswith("--"):
        raise Problem(422, "must be created_at or amount_cents, perhaps with -", "sort")
    if "\0" in query.get("search", "") or len(query.get("search", "")) > 200:
        raise Problem(422, "must have at most 200 characters, and no NUL", "search")
    if after is not None and not re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", after):
        raise Problem(422, "must be the `next` of the page before", "after")
    sign, order = (">", "asc") if not query.get("sort", "").startswith("-") else ("<", "desc")
    rows = await app.state.pool.fetch(
        f"""
        select {COLUMNS}
        from invoices
        where customer_id = $1
            and strpos(lower(title), lower($2)) > 0
            and ($3::uuid is null or ({sort}, number) {sign} (
                select {sort}, number from invoices where id = $3 and customer_id = $1
            ))
        order by {sort} {order}, number {order}
        limit $4
        """,
        user["customer"], query.get("search", ""), after, limit + 1,
    )  # fmt: skip
    return rows[:limit], str(rows[limit - 1]["id"]) if len(rows) > limit else None


@app.api_route("/invoices", methods=["GET", "HEAD"])
async def newest(request: Request, user: Reader):
    rows, following = await page(request, user, 100)
    return {"items": [shown(row) for row in rows], "next": following}


@app.api_route("/exports", methods=["GET", "HEAD"])
async def export(request: Request, user: Reader):
    rows, following = await page(request, user, 1000)
    out = io.StringIO()
    table = csv.writer(out, quoting=csv.QUOTE_ALL)
    table.writerow(["id", "title", "note", "amount_cents", "created_at"])
    # A spreadsheet runs what begins like a formula.
    safe = lambda text: f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text  # noqa: E731
    for row in map(shown, rows):
        table.writerow([row["id"], safe(row["title"]), safe(row["note"]), row["amount_cents"], row["created_at"]])
    links = {"Link": f'</exports?after={following}>; rel="next"'} if following else {}
    return Response(out.getvalue(), 200, links, "text/csv")


@app.post("/invoices/{id:id}/pdf")
async def pdf(id: str, user: Reader):
    invoice = await find(user, id)
    return Response(guard.pdf_of(f"{invoice['title']}: {invoice['amount_cents'] / 100:.2f}"), media_type="application/pdf")


@app.post("/invoices/{id:id}/attachments")
async def upload(id: str, request: Request, user: Clerk):
    await find(user, id)
    data = bytearray()
    if int(request.headers.get("content-length", 0)) > LARGEST_FILE:
        raise Problem(413, "A file has at most 2 MiB.")
    async for chunk in request.stream():
        data += chunk
        if len(data) > LARGEST_FILE:
            raise Problem(413, "A file has at most 2 MiB.")
    names = request.query_params.getlist("name")
    name, made = names[0] if len(names) == 1 else "", str(uuid.uuid4())
    media_type = guard.kind_of(bytes(data), name)
    insert = "insert into attachments values ($1, $2, $3, $4, $5, $6) returning id"
    await done(user, "file attached", made, insert, made, user["customer"], id, name, media_type, bytes(data))
    return JSONResponse({"id": made, "name": name, "media_type": media_type}, 201, {"Location": f"/attachments/{made}"})


@app.api_route("/attachments/{id:id}", methods=["GET", "HEAD"])
async def download(id: str, user: Reader):
    file = await find(user, id, "attachments", "name, media_type, data")
    # Saved, and not shown: whatever it is, it is no page of ours.
    return Response(file["data"], 200, {"Content-Disposition": f'attachment; filename="{file["name"]}"'}, file["media_type"])


@app.post("/webhooks")
async def add_webhook(webhook: NewWebhook, user: Clerk):
    id = str(uuid.uuid4())
    insert = "insert into webhooks values ($1, $2, $3) returning id"
    await done(user, "webhook added", id, insert, id, user["customer"], webhook.url)
    return JSONResponse({"id": id, "url": webhook.url}, 201)


@app.post("/webhooks/{id:id}/test")
async def test_webhook(id: str, user: Clerk):
    status = await guard.deliver((await find(user, id, "webhooks", "url"))["url"])
    return {"delivered": status is not None and status < 300, "status": status}


@app.api_route("/admin/customers", methods=["GET", "HEAD"])
async def customers(user: Admin):
    rows = await app.state.pool.fetch("select id, name from customers order by name")
    return {"items": [{"id": str(row["id"]), "name": row["name"]} for row in rows]}


@app.api_route("/audit", methods=["GET", "HEAD"])
async def log(request: Request, user: Admin):
    after = edge.one_number(request, "after", 0, 2**62, 0)
    rows = [dict(row) for row in await app.state.pool.fetch("select * from audit where seq > $1 order by seq limit 200", after)]
    before = await app.state.pool.fetchval("select hash from audit where seq <= $1 order by seq desc limit 1", after)
    return {"items": rows, "broken_at": guard.broken_at(before or "", rows)}


if __name__ == "__main__":
    edge.serve(app)
