"""What does a server do with more requests than it can serve? It lets some work, some wait, and refuses the rest at once.

    cargo run -- example concurrent-requests --in python

FastAPI and asyncpg. In reading order: `Gate`, `order`, `price`, `work`. One loop serves all requests, so prices are computed in
processes: threads of one process share the GIL. The gate counts the requests of this process only.
"""

import asyncio
import json
import logging
import re
import uuid
from collections import Counter, deque
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import UTC, date, datetime
from multiprocessing import get_context
from typing import Annotated

from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import Field
from starlette.convertors import register_url_convertor
from starlette.datastructures import Headers

import edge
from edge import Key, Line, Model, Problem
from price import end_with_parent, price

SCHEMA = """
create table if not exists products (
    id bigint primary key,
    name text not null,
    cents bigint not null,
    stock int not null check (stock >= 0)
);
create table if not exists orders (
    id uuid primary key,
    -- This index decides which of two requests with one key acts.
    key text collate "C" not null unique,
    fingerprint bytea not null,
    product bigint not null references products,
    quantity int not null,
    created_at timestamptz not null default now()
);
create index if not exists orders_created_at on orders (created_at);
create table if not exists jobs (
    id uuid primary key,
    number bigint generated always as identity,
    day date not null,
    state text not null default 'queued',
    report text
);
create index if not exists jobs_queued on jobs (number) where state = 'queued';
"""

# As many as the pool has connections, and two that need none. Browsing may use half of the places to wait, so that it is
# refused before anybody who wants to buy.
IN_FLIGHT, WAITING, WAITING_TO_BROWSE = 12, 64, 32
LONGEST_SECONDS = 10
MOST_JOBS, WORKERS = 100, 2
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.IGNORECASE | re.ASCII)


# ANCHOR: gate
class Gate:
    """Those who wait are let in from the front. Little's law: a longer queue makes nobody faster."""

    def __init__(self):
        self.in_flight, self.queue, self.shed = 0, deque(), Counter(checkout=0, browsing=0)

    async def enter(self, kind: str) -> None:
        if self.in_flight < IN_FLIGHT:
            self.in_flight += 1
            return
        if len(self.queue) >= (WAITING if kind == "checkout" else WAITING_TO_BROWSE):
            self.shed[kind] += 1
            raise edge.busy("Too many requests wait already.")
        mine = asyncio.get_running_loop().create_future()
        self.queue.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self.leave()  # The place was given to somebody who has gone.
            else:
                self.queue.remove(mine)
            raise

    def leave(self) -> None:
        while self.queue:
            following = self.queue.popleft()
            if not following.done():
                return following.set_result(None)  # The place goes on, so the number stays.
        self.in_flight -= 1
# ANCHOR_END: gate


class Admission:
    """Before the body is read: who is refused costs next to nothing."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or not scope["path"].startswith(("/products", "/orders", "/reports")):
            return await self.app(scope, receive, send)
        kind = "checkout" if scope["path"].startswith("/orders") else "browsing"
        try:
            async with asyncio.timeout(seconds_left(scope)):
                await gate.enter(kind)
                try:
                    await self.app(scope, receive, send)
                finally:
                    gate.leave()
        except TimeoutError:
            await edge.document(edge.busy("The client has stopped waiting."))(scope, receive, send)
        except Problem as problem:
            await edge.document(problem)(scope, receive, send)


def seconds_left(scope) -> float:
    given = Headers(scope=scope).getlist("x-request-deadline")
    if not given:
        return LONGEST_SECONDS
    try:
        if len(given) > 1 or not TIME.fullmatch(given[0]):
            raise ValueError
        until = datetime.fromisoformat(given[0].upper())
    except ValueError:
        raise Problem(400, "`X-Request-Deadline` is a time in RFC 3339, once.") from None
    left = (until - datetime.now(UTC)).total_seconds()
    if left <= 0:
        raise edge.busy("The deadline of this request has passed.")
    return min(left, LONGEST_SECONDS)


class Product(Model):
    name: Annotated[Line, Field(max_length=200)]
    cents: Annotated[int, Field(ge=0, le=2**53 - 1)]
    stock: Annotated[int, Field(ge=0, le=1_000_000)]


class NewOrder(Model):
    product: Annotated[int, Field(ge=1, lt=2**63)]
    quantity: Annotated[int, Field(ge=1, le=10)]


class Day(edge.InPath):
    def convert(self, value: str) -> date:
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise Problem(404, "There is no such day.") from None


register_url_convertor("day", Day("[0-9]{4}-[0-9]{2}-[0-9]{2}"))
gate = Gate()


@asynccontextmanager
async def lifespan(app):
    state = app.state
    state.pool = await edge.pool(SCHEMA)
    state.processes = ProcessPoolExecutor(2, get_context("spawn"), end_with_parent)
    state.woken = asyncio.Event()
    workers = [asyncio.create_task(work()) for _ in range(WORKERS)]
    yield
    for worker in workers:
        worker.cancel()
    await asyncio.wait(workers)
    state.processes.shutdown(cancel_futures=True)
    await state.pool.close()


app = edge.app(lifespan, lambda: app.state.pool.fetchval("select 1"))
app.add_middleware(Admission)


@app.put("/products/{id:number}")
async def put_up(id: int, product: Product):
    await app.state.pool.execute(
        """
        insert into products (id, name, cents, stock) values ($1, $2, $3, $4)
        on conflict (id) do update set name = excluded.name, cents = excluded.cents, stock = excluded.stock
        """,
        id, product.name, product.cents, product.stock,
    )  # fmt: skip
    return {"id": id} | product.model_dump()


@app.api_route("/products/{id:number}", methods=["GET", "HEAD"])
async def look_at(id: int):
    row = await app.state.pool.fetchrow("select * from products where id = $1", id)
    if not row:
        raise Problem(404, "There is no such product.")
    return dict(row)


@app.api_route("/products/{id:number}/price", methods=["GET", "HEAD"])
async def price_of(id: int):
    product = await look_at(id)
    loop = asyncio.get_running_loop()
    return {"product": id, "cents": await loop.run_in_executor(app.state.processes, price, id, product["cents"])}


def shown(row) -> dict:
    order = {name: row[name] for name in ("product", "quantity")}
    return {"id": str(row["id"])} | order | {"created_at": edge.moment(row["created_at"])}


@app.post("/orders")
async def order(order: NewOrder, key: Key):
    fingerprint = edge.fingerprint(order)
    async with app.state.pool.acquire() as connection, connection.transaction():
        # Whether it is left is asked by the statement that takes it. A look before it would sell the last one twice.
        taken = await connection.fetchrow(
            """
            with known as (
                select from products where id = $4
            )
            insert into orders (id, key, fingerprint, product, quantity)
            select $1, $2, $3, $4, $5 where exists (select from known)
            on conflict (key) do nothing
            returning *
            """,
            uuid.uuid4(), key, fingerprint, order.product, order.quantity,
        )  # fmt: skip
        if not taken:
            before = await connection.fetchrow("select * from orders where key = $1", key)
            if not before:
                raise Problem(404, "There is no such product.")
            if before["fingerprint"] != fingerprint:
                raise Problem(422, "This key was sent with another body before.")
            return answer(before)
        left = await connection.fetchval(
            "update products set stock = stock - $2 where id = $1 and stock >= $2 returning stock",
            order.product, order.quantity,
        )  # fmt: skip
        if left is None:
            raise Problem(409, "There is not so much left.")  # It rolls back, and the key is free again.
    return answer(taken)


def answer(row) -> JSONResponse:
    return JSONResponse(shown(row), 201, {"Location": f"/orders/{row['id']}"})


@app.api_route("/orders/{id:id}", methods=["GET", "HEAD"])
async def look_at_order(id: str):
    row = await app.state.pool.fetchrow("select * from orders where id = $1", uuid.UUID(id))
    if not row:
        raise Problem(404, "There is no such order.")
    return shown(row)


async def report(database, day: date) -> dict:
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    rows = await database.fetch(
        """
        select extract(hour from created_at at time zone 'utc')::int as hour, count(*) as orders, sum(quantity) as items
        from orders
        where created_at >= $1 and created_at < $1 + interval '1 day'
        group by 1
        order by 1
        """,
        begin,
    )
    hours = [dict(row) for row in rows]
    return {"day": day.isoformat()} | {name: sum(it[name] for it in hours) for name in ("orders", "items")} | {"hours": hours}


@app.api_route("/reports/{day:day}", methods=["GET", "HEAD"])
async def look_at_report(day: date):
    return await report(app.state.pool, day)


@app.post("/reports/{day:day}")
async def order_report(day: date):
    id = await app.state.pool.fetchval(
        """
        insert into jobs (id, day)
        select $1, $2 where (select count(*) from jobs where state = 'queued') < $3
        returning id
        """,
        uuid.uuid4(), day, MOST_JOBS,
    )  # fmt: skip
    if not id:
        raise edge.busy("Too many jobs wait already.")
    app.state.woken.set()
    return JSONResponse({"id": str(id), "state": "queued"}, 202, {"Location": f"/jobs/{id}"})


@app.api_route("/jobs/{id:id}", methods=["GET", "HEAD"])
async def job(id: str):
    row = await app.state.pool.fetchrow("select state, report from jobs where id = $1", uuid.UUID(id))
    if not row:
        raise Problem(404, "There is no such job.")
    return {"id": id, "state": row["state"]} | ({"report": json.loads(row["report"])} if row["report"] else {})


async def work_once() -> bool:
    """Whether there was a job. Its row stays locked until it is done, so no other worker takes it. If this process is killed,
    PostgreSQL unlocks the row."""
    async with app.state.pool.acquire() as connection, connection.transaction():
        job = await connection.fetchrow(
            "select id, day from jobs where state = 'queued' order by number limit 1 for update skip locked"
        )
        if job:
            done = json.dumps(await report(connection, job["day"]))
            await connection.execute("update jobs set state = 'done', report = $2 where id = $1", job["id"], done)
        return job is not None


async def work() -> None:
    while True:
        app.state.woken.clear()
        try:
            if await work_once():
                continue
        except Exception as error:
            logging.warning("a job waits: %s", error)
        with suppress(TimeoutError):
            # Also without a call: the database may have been away.
            await asyncio.wait_for(app.state.woken.wait(), 1)


async def told() -> dict:
    jobs = await app.state.pool.fetchval("select count(*) from jobs where state = 'queued'")
    limits = {"in_flight": IN_FLIGHT, "waiting": WAITING}
    return {"in_flight": gate.in_flight, "waiting": len(gate.queue), "shed": dict(gate.shed), "limits": limits, "jobs": jobs}


@app.api_route("/pressure", methods=["GET", "HEAD"])
async def pressure():
    return await told()


@app.api_route("/metrics", methods=["GET", "HEAD"])
async def metrics():
    now = await told()
    lines = [f"requests_in_flight {now['in_flight']}", f"requests_waiting {now['waiting']}", f"jobs_waiting {now['jobs']}"]
    lines += [f'requests_shed_total{{kind="{kind}"}} {count}' for kind, count in now["shed"].items()]
    return PlainTextResponse("\n".join(lines) + "\n")


if __name__ == "__main__":
    edge.serve(app)
