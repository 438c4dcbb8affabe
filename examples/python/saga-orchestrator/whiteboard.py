"""The saga as one writes it in the interview: try the steps one after another, and undo them in reverse if one fails.

    cargo run -- example saga-orchestrator --in python --whiteboard
"""

import json
import os
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse

SCHEMA = """
create table if not exists orders (id uuid primary key, body text not null);
create table if not exists stock (sku text primary key, available bigint, reserved bigint, sold bigint);
create table if not exists effects (order_id uuid, kind text, amount_cents bigint, at timestamptz default now());
"""


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
        enough = "select available >= $2 from stock where sku = $1"
        if not await app.state.db.fetchval(enough, item["sku"], item["quantity"]):
            raise HTTPException(409, "not enough in stock")
    await move(order, "available", "reserved")


async def effect(order: dict, kind: str):
    declined = kind == "charge" and order["payment_method"] != "pm_card_visa"
    if declined or kind == "book" and order["address"]["country"] == "XX":
        raise HTTPException(409, f"{kind} is refused")
    await app.state.db.execute("insert into effects values ($1, $2, $3)", order["id"], kind, order["amount_cents"])


STEPS = (
    ("reserve", reserve, lambda order: move(order, "reserved", "available")),
    ("charge", lambda order: effect(order, "charge"), lambda order: effect(order, "refund")),
    ("book", lambda order: effect(order, "book"), lambda order: effect(order, "cancel")),
    ("sell", lambda order: move(order, "reserved", "sold"), None),
)


@app.post("/orders")
async def place(order: dict):
    order["id"] = uuid.uuid4()
    made = {"id": str(order["id"]), "status": "confirmed", "reason": None, "steps": []}
    try:
        for name, act, _ in STEPS:
            await act(order)
            made["steps"].append({"name": name, "status": "done", "attempts": 1, "at": datetime.now(UTC).isoformat()})
    except HTTPException as refused:
        made |= {"status": "cancelled", "reason": refused.detail}
        for _, _, undo in reversed(STEPS[: len(made["steps"])]):
            await undo(order)
    await app.state.db.execute("insert into orders values ($1, $2)", order["id"], json.dumps(made))
    return JSONResponse(made, 202, {"Location": f"/orders/{made['id']}"})


@app.get("/orders/{id}")
async def show(id: uuid.UUID):
    return json.loads(await app.state.db.fetchval("select body from orders where id = $1", id) or "{}")


@app.put("/inventory/stock/{sku}")
async def put(sku: str, body: dict):
    upsert = "insert into stock values ($1, $2, 0, 0) on conflict (sku) do update set available = $2 returning *"
    return dict(await app.state.db.fetchrow(upsert, sku, body["quantity"]))


@app.get("/inventory/stock/{sku}")
async def stock(sku: str):
    return dict(await app.state.db.fetchrow("select * from stock where sku = $1", sku) or {})


@app.get("/{participant}/effects/{id}")
async def effects(participant: str, id: uuid.UUID):
    rows = await app.state.db.fetch("select * from effects where order_id = $1 order by at", id)
    found = [{"kind": it["kind"], "request": {"amount_cents": it["amount_cents"]}, "at": it["at"]} for it in rows]
    return {"order_id": id, "effects": found}


@app.get("/healthz")
@app.get("/readyz")
async def alive():
    return "ok"


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")
