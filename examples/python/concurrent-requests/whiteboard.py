"""The shop as one writes it in the interview: async handlers, a pool of connections, and a task for what takes long.

    cargo run -- example concurrent-requests --in python --whiteboard
"""

import asyncio
import hashlib
import os
import uuid
from contextlib import asynccontextmanager
from datetime import date

import asyncpg
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel

SCHEMA = """
create table if not exists products (id bigint primary key, name text not null, cents bigint not null, stock int not null);
create table if not exists orders (
    id uuid primary key, product bigint not null, quantity int not null, created_at timestamptz not null default now()
);
"""
jobs: dict[str, dict] = {}


@asynccontextmanager
async def lifespan(app):
    app.state.db = await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=1, max_size=5)
    await app.state.db.execute(SCHEMA)
    print(f"listening on http://127.0.0.1:{os.environ['PORT']}", flush=True)
    yield


app = FastAPI(lifespan=lifespan)


class Product(BaseModel):
    name: str
    cents: int
    stock: int


class Order(BaseModel):
    product: int
    quantity: int


@app.get("/products/{id}")
async def show(id: int):
    row = await app.state.db.fetchrow("select * from products where id = $1", id)
    if not row:
        raise HTTPException(404)
    return dict(row)


@app.put("/products/{id}")
async def put(id: int, new: Product):
    insert = "insert into products values ($1, $2, $3, $4) on conflict (id) do update set name = $2, cents = $3, stock = $4"
    await app.state.db.execute(insert, id, new.name, new.cents, new.stock)
    return {"id": id} | new.model_dump()


@app.get("/products/{id}/price")
async def price(id: int):
    product, digest = await show(id), str(id).encode()
    for _ in range(200_000):
        digest = hashlib.sha256(digest).digest()
    return {"product": id, "cents": product["cents"] - product["cents"] * (digest[0] % 31) // 100}


@app.post("/orders", status_code=201)
async def order(new: Order):
    if (await show(new.product))["stock"] < new.quantity:
        raise HTTPException(409, "sold out")
    await app.state.db.execute("update products set stock = stock - $2 where id = $1", new.product, new.quantity)
    insert = "insert into orders values ($1, $2, $3) returning id"
    return {"id": await app.state.db.fetchval(insert, uuid.uuid4(), new.product, new.quantity)} | new.model_dump()


@app.get("/reports/{day}")
async def report(day: date):
    select = "select count(*) as orders, coalesce(sum(quantity), 0) as items from orders where created_at::date = $1"
    return {"day": day.isoformat()} | dict(await app.state.db.fetchrow(select, day))


@app.post("/reports/{day}")
async def report_later(day: date):
    id = str(uuid.uuid4())
    jobs[id] = {"id": id, "state": "queued"}

    async def work():
        jobs[id] = {"id": id, "state": "done", "report": await report(day)}

    asyncio.create_task(work())
    return JSONResponse(jobs[id], 202)


@app.get("/jobs/{id}")
async def job(id: str):
    return jobs[id]


@app.get("/healthz")
@app.get("/readyz")
async def alive():
    return "ok"


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")
