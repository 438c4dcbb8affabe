"""How does an order that needs three services end, though any of them may be away and the program may be killed? Each step is
written down before and after it; whoever takes the order over reads the steps and goes on.

    cargo run -- example saga-orchestrator --in python

FastAPI, asyncpg and httpx. In reading order: `following`, `carry_on`, `call`, `claim`, `place`. The three participants are in
`participants.py`, at the same address, and are asked over HTTP as if they were elsewhere.
"""

import asyncio
import json
import os
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated

import httpx
from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import Field

import edge
import participants
from edge import Line, Model, Problem
from participants import Address, Amount, Items, Key, Method

SCHEMA = (
    participants.SCHEMA
    + """
create table if not exists orders (
    id uuid primary key,
    number bigint generated always as identity,
    key text collate "C" not null unique,
    fingerprint bytea not null,
    request text not null,
    status text not null default 'pending',
    reason text,
    steps text not null default '[]',
    -- Whoever has the lease goes on with the order. If it dies, another does, after this time.
    lease uuid,
    leased_until timestamptz not null default '-infinity'
);
create index if not exists orders_number on orders (status, number);
"""
)

STATUSES = ("pending", "confirmed", "cancelled", "stuck")
# The step and how it is undone. What comes after the last one that can be refused needs no undoing.
FORWARD = {"reserve": "release", "charge": "refund", "book": "cancel", "sell": None}
PATHS = {"reserve": "inventory", "release": "inventory", "sell": "inventory", "charge": "payment", "refund": "payment",
         "book": "shipping", "cancel": "shipping"}  # fmt: skip
LEASE_SECONDS, TIMEOUT_SECONDS = 10, 3
WORKERS = 16
# With these waits, a participant may be away for some thirty seconds. Then somebody has to look.
MOST_ATTEMPTS, LONGEST_PAUSE = 12, 4


class NewOrder(Model):
    customer_id: Annotated[Line, Field(max_length=64)]
    items: Items
    amount_cents: Amount
    payment_method: Method
    address: Address


class Fenced(Exception):
    """Somebody else has the order by now."""


def following(steps: list[dict]) -> str | None:
    """Which step comes now? Nothing but the steps decides, so that whoever reads them goes on in the same way."""
    status = {step["name"]: step["status"] for step in steps}
    if "refused" not in status.values():
        return next((name for name in FORWARD if status.get(name, "pending") == "pending"), None)
    undone = [undo for name, undo in reversed(FORWARD.items()) if undo and status.get(name) == "done"]
    return undone[0] if undone else None


async def carry_on(order: dict) -> None:
    while name := following(order["steps"]):
        step = next((step for step in order["steps"] if step["name"] == name), None)
        if not step:
            step = {"name": name, "status": "pending", "attempts": 0, "at": None, "last_error": None}
            order["steps"].append(step)
        step |= {"attempts": step["attempts"] + 1, "at": edge.moment(datetime.now(UTC))}
        # Before the call: after a kill, we know that it may have been made.
        await save(order)
        outcome, error = await call(order, name)
        step["last_error"] = error
        if outcome == "done":
            step["status"] = "done"
            for forward, undo in FORWARD.items():
                if undo == name:
                    next(it for it in order["steps"] if it["name"] == forward)["status"] = "compensated"
        elif outcome == "refused" and name in FORWARD:
            step["status"], order["reason"] = "refused", error
            had = {it["name"] for it in order["steps"]}
            order["steps"] += [{"name": it, "status": "skipped", "attempts": 0, "at": step["at"], "last_error": None}
                               for it in FORWARD if it not in had]  # fmt: skip
        elif outcome == "broken" or step["attempts"] >= MOST_ATTEMPTS:
            order["status"], order["reason"] = "stuck", f"{name}: {error}"
            return await save(order)
        else:
            await save(order)
            await asyncio.sleep(min(LONGEST_PAUSE, 0.1 * 2 ** step["attempts"]))
    refused = any(step["status"] == "refused" for step in order["steps"])
    order["status"] = "cancelled" if refused else "confirmed"
    await save(order)


async def call(order: dict, name: str) -> tuple[str, str | None]:
    """Asks a participant. The key is the step's own, so it can be asked again when no answer was heard."""
    sent = {"order_id": order["id"]}
    fields = {"reserve": ["items"], "charge": ["amount_cents", "payment_method"], "book": ["address"]}.get(name, [])
    sent |= {field: order["request"][field] for field in fields}
    url = os.environ.get(f"{PATHS[name].upper()}_URL", edge.OWN)
    try:
        answer = await app.state.http.post(
            f"{url}/{PATHS[name]}/{name}", json=sent, headers={"Idempotency-Key": f"{order['id']}.{name}"}
        )
    except httpx.HTTPError as error:
        return "unknown", f"no answer: {type(error).__name__}"
    if answer.status_code == 200:
        return "done", None
    detail = answer.json().get("detail") if "json" in answer.headers.get("content-type", "") else answer.reason_phrase
    if answer.status_code == 409:
        return "refused", detail
    # What we have sent is wrong, and will be as wrong the next time.
    return ("unknown" if answer.status_code >= 500 or answer.status_code == 429 else "broken"), detail


async def save(order: dict) -> None:
    """Only for whoever has the lease. One that was asleep for too long must not write over the work of the next."""
    ours = await app.state.pool.fetchval(
        """
        update orders
        set status = $3, reason = $4, steps = $5, leased_until = clock_timestamp() + make_interval(secs => $6)
        where id = $1 and lease = $2
        returning true
        """,
        order["id"], order["lease"], order["status"], order["reason"], json.dumps(order["steps"]), LEASE_SECONDS,
    )  # fmt: skip
    if not ours:
        raise Fenced


async def claim() -> dict | None:
    lease = uuid.uuid4()
    row = await app.state.pool.fetchrow(
        """
        update orders
        set lease = $1, leased_until = clock_timestamp() + make_interval(secs => $2)
        where id = (
            select id from orders
            where status = 'pending' and leased_until < clock_timestamp()
            order by number
            limit 1
            for update skip locked
        )
        returning *
        """,
        lease, LEASE_SECONDS,
    )  # fmt: skip
    return row and {**row, "id": str(row["id"]), "request": json.loads(row["request"]), "steps": json.loads(row["steps"])}


async def work() -> None:
    while True:
        try:
            if order := await claim():
                await carry_on(order)
                continue
        except Fenced:
            continue
        except Exception as error:
            print(f"an order waits: {type(error).__name__} {error}", flush=True)
        app.state.placed.clear()
        try:
            # Also without a call: a lease may have ended.
            await asyncio.wait_for(app.state.placed.wait(), 0.5)
        except TimeoutError:
            pass


@asynccontextmanager
async def lifespan(app):
    app.state.pool = await edge.pool(SCHEMA, 20)
    app.state.http = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False)
    app.state.placed = asyncio.Event()
    workers = [asyncio.create_task(work()) for _ in range(WORKERS)]
    yield
    for worker in workers:
        worker.cancel()
    await app.state.http.aclose()
    await app.state.pool.close()


app = edge.app(lifespan, lambda: app.state.pool.fetchval("select 1"))
app.include_router(participants.router)


def shown(row) -> dict:
    return {"id": str(row["id"]), "status": row["status"], "reason": row["reason"], "steps": json.loads(row["steps"])}


@app.post("/orders")
async def place(order: NewOrder, key: Key):
    fingerprint, id = edge.fingerprint(order), uuid.uuid4()
    # After this, the order will end, whatever happens to this process.
    await app.state.pool.execute(
        "insert into orders (id, key, fingerprint, request) values ($1, $2, $3, $4) on conflict (key) do nothing",
        id, key, fingerprint, order.model_dump_json(),
    )  # fmt: skip
    row = await app.state.pool.fetchrow("select * from orders where key = $1", key)
    if row["fingerprint"] != fingerprint:
        raise Problem(422, "This key was sent with another order before.")
    app.state.placed.set()
    return JSONResponse(shown(row), 202, {"Location": f"/orders/{row['id']}"})


@app.api_route("/orders", methods=["GET", "HEAD"])
async def newest(request: Request):
    given = request.query_params.multi_items()
    if any(name != "status" or value not in STATUSES for name, value in given) or len(given) > 1:
        raise Problem(422, f"is the only parameter, and one of {', '.join(STATUSES)}", "status")
    query = "select * from orders where $1::text is null or status = $1 order by number desc limit 100"
    rows = await app.state.pool.fetch(query, request.query_params.get("status"))
    return {"orders": [shown(row) for row in rows]}


@app.api_route("/orders/{id:id}", methods=["GET", "HEAD"])
async def look_at(id: str):
    row = await app.state.pool.fetchrow("select * from orders where id = $1", id)
    if not row:
        raise Problem(404, "There is no such order.")
    return shown(row)


@app.post("/orders/{id:id}/retry")
async def retry(id: str):
    async with app.state.pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow("select * from orders where id = $1 for update", id)
        if not row:
            raise Problem(404, "There is no such order.")
        if row["status"] != "stuck":
            raise Problem(409, "This order is not stuck.")
        steps = [step | ({"attempts": 0} if step["status"] == "pending" else {}) for step in json.loads(row["steps"])]
        await connection.execute(
            "update orders set status = 'pending', reason = null, steps = $2, leased_until = '-infinity' where id = $1",
            id, json.dumps(steps),
        )  # fmt: skip
    app.state.placed.set()
    return JSONResponse({"id": id, "status": "pending"}, 202, {"Location": f"/orders/{id}"})


if __name__ == "__main__":
    edge.serve(app)
