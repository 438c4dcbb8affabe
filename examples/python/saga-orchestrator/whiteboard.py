"""The saga as one writes it in the interview: try the steps one after another, and undo them in reverse if one fails.

    cargo run -- example saga-orchestrator --in python --whiteboard
"""

import os
import uuid
from contextlib import asynccontextmanager

import asyncpg
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

SCHEMA = """
create table if not exists orders (id uuid primary key, status text not null);
create table if not exists stock (sku text primary key, available int not null, reserved int not null, sold int not null);
create table if not exists effects (order_id uuid, kind text, amount_cents int, at timestamptz default now());
"""


class Refused(Exception): ...


@asynccontextmanager
async def lifespan(app):
    app.state.db = await asyncpg.create_pool(os.environ["DATABASE_URL"])
    await app.state.db.execute(SCHEMA)
    print(f"listening on http://127.0.0.1:{os.environ['PORT']}", flush=True)
    yield


app = FastAPI(lifespan=lifespan)


async def move(order: dict, take: str, give: str):
    for item in order["items"]:
        update = f"update stock set {take} = {take} - $2, {give} = {give} + $2 where sku = $1"
        await app.state.db.execute(update, item["sku"], item["quantity"])


async def reserve(order: dict):
    for item in order["items"]:
        available = await app.state.db.fetchval("select available from stock where sku = $1", item["sku"])
        if (available or 0) < item["quantity"]:
            raise Refused("not enough in stock")
    await move(order, "available", "reserved")


async def happened(order: dict, kind: str):
    await app.state.db.execute("insert into effects values ($1, $2, $3)", order["id"], kind, order["amount_cents"])


@app.post("/orders")
async def place(order: dict):
    order["id"] = uuid.uuid4()
    await app.state.db.execute("insert into orders values ($1, 'pending')", order["id"])
    undo = []
    try:
        await reserve(order)
        undo.append(lambda: move(order, "reserved", "available"))
        if order["payment_method"] != "pm_card_visa":
            raise Refused("declined")
        await happened(order, "charge")
        undo.append(lambda: happened(order, "refund"))
        if order["address"]["country"] == "XX":
            raise Refused("no such country")
        await happened(order, "book")
        await move(order, "reserved", "sold")
        status = "confirmed"
    except Refused:
        for step in reversed(undo):
            await step()
        status = "cancelled"
    await app.state.db.execute("update orders set status = $2 where id = $1", order["id"], status)
    return JSONResponse({"id": str(order["id"]), "status": status}, 202, {"Location": f"/orders/{order['id']}"})


@app.get("/orders/{id}")
async def show(id: uuid.UUID):
    return dict(await app.state.db.fetchrow("select * from orders where id = $1", id)) | {"reason": None, "steps": []}


@app.put("/inventory/stock/{sku}")
async def put(sku: str, body: dict):
    upsert = "insert into stock values ($1, $2, 0, 0) on conflict (sku) do update set available = $2 returning *"
    return dict(await app.state.db.fetchrow(upsert, sku, body["quantity"]))


@app.get("/inventory/stock/{sku}")
async def stock(sku: str):
    return dict(await app.state.db.fetchrow("select * from stock where sku = $1", sku))


@app.get("/{participant}/effects/{id}")
async def effects(participant: str, id: uuid.UUID):
    kinds = ["charge", "refund"] if participant == "payment" else ["book", "cancel"]
    rows = await app.state.db.fetch("select * from effects where order_id = $1 and kind = any($2) order by at", id, kinds)
    found = [{"kind": it["kind"], "request": {"amount_cents": it["amount_cents"]}, "at": it["at"]} for it in rows]
    return {"order_id": id, "effects": found}


@app.get("/healthz")
@app.get("/readyz")
async def alive():
    return "ok"


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")
