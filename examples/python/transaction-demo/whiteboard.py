"""The bank as one writes it in the interview: two updates in one transaction.

    cargo run -- example transaction-demo --in python --whiteboard
"""

import os
from contextlib import asynccontextmanager

import asyncpg
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel

SCHEMA = """
create table if not exists accounts (
    id bigint generated always as identity primary key, owner text not null, balance_cents bigint not null check (balance_cents >= 0),
    created_at timestamptz not null default now()
);
create table if not exists transfers (
    id bigint generated always as identity primary key, payer bigint not null, payee bigint not null, amount_cents bigint not null
);
create table if not exists entries (
    id bigint generated always as identity primary key, account_id bigint not null, transfer_id bigint, amount_cents bigint not null
);
"""


@asynccontextmanager
async def lifespan(app):
    app.state.db = await asyncpg.create_pool(os.environ["DATABASE_URL"])
    await app.state.db.execute(SCHEMA)
    print(f"listening on http://127.0.0.1:{os.environ['PORT']}", flush=True)
    yield


app = FastAPI(lifespan=lifespan)


class Account(BaseModel):
    owner: str
    balance_cents: int


@app.post("/accounts")
async def open_account(new: Account):
    insert = "insert into accounts (owner, balance_cents) values ($1, $2) returning id, created_at"
    row = await app.state.db.fetchrow(insert, new.owner, new.balance_cents)
    await app.state.db.execute("insert into entries (account_id, amount_cents) values ($1, $2)", row["id"], new.balance_cents)
    account = {"id": row["id"], "created_at": row["created_at"].isoformat()} | new.model_dump()
    return JSONResponse(account, 201, {"Location": f"/accounts/{row['id']}"})


@app.post("/transfers")
async def transfer(body: dict):
    payer, payee, cents = body["from"], body["to"], body["amount_cents"]
    async with app.state.db.acquire() as db, db.transaction():
        if await db.fetchval("select balance_cents from accounts where id = $1", payer) < cents:
            raise HTTPException(409, "not enough money")
        await db.execute("update accounts set balance_cents = balance_cents - $2 where id = $1", payer, cents)
        await db.execute("update accounts set balance_cents = balance_cents + $2 where id = $1", payee, cents)
        insert = "insert into transfers (payer, payee, amount_cents) values ($1, $2, $3) returning id"
        number = await db.fetchval(insert, payer, payee, cents)
        insert = "insert into entries (account_id, transfer_id, amount_cents) values ($1, $2, $3)"
        await db.executemany(insert, [(payer, number, -cents), (payee, number, cents)])
    return JSONResponse({"id": number} | body, 201, {"Location": f"/transfers/{number}"})


@app.get("/accounts/{id}")
async def account(id: int):
    return dict(await app.state.db.fetchrow("select * from accounts where id = $1", id))


@app.get("/accounts/{id}/entries")
async def entries(id: int):
    select = "select transfer_id as transfer, amount_cents from entries where account_id = $1 order by id"
    return {"entries": [dict(row) for row in await app.state.db.fetch(select, id)], "next": None}


@app.get("/transfers/{id}")
async def receipt(id: int):
    return dict(await app.state.db.fetchrow('select id, payer as "from", payee as "to", amount_cents from transfers where id = $1', id))


@app.get("/healthz")
@app.get("/readyz")
async def alive():
    return "ok"


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")
