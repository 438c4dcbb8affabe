"""The layers as one writes them in the interview: in the order in which they shall run, as `app.use` of Express has it.

    cargo run -- example middleware --in python --whiteboard
"""

import asyncio
import os
import uuid
from contextlib import asynccontextmanager

import asyncpg
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

SCHEMA = """
create table if not exists notes (
    id uuid primary key, owner text not null, text text not null, created_at timestamptz not null default now()
)
"""


@asynccontextmanager
async def lifespan(app):
    app.state.db = await asyncpg.create_pool(os.environ["DATABASE_URL"])
    await app.state.db.execute(SCHEMA)
    print(f"listening on http://127.0.0.1:{os.environ['PORT']}", flush=True)
    yield


app = FastAPI(lifespan=lifespan)


@app.middleware("http")
async def log(request: Request, call_next):
    print(request.method, request.url.path, flush=True)
    return await call_next(request)


app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"])


@app.middleware("http")
async def timeout(request: Request, call_next):
    try:
        return await asyncio.wait_for(call_next(request), 2)
    except TimeoutError:
        return Response(status_code=408)


@app.middleware("http")
async def authenticate(request: Request, call_next):
    if request.url.path.startswith("/notes") and request.headers.get("authorization") != "Bearer let-ada-in":
        return Response(status_code=401)
    return await call_next(request)


class Note(BaseModel):
    text: str


@app.post("/notes", status_code=201)
async def create(new: Note):
    insert = "insert into notes (id, owner, text) values ($1, 'ada', $2) returning *"
    return dict(await app.state.db.fetchrow(insert, uuid.uuid4(), new.text))


@app.get("/notes")
async def newest():
    return {"items": [dict(row) for row in await app.state.db.fetch("select * from notes order by created_at desc")]}


@app.get("/notes/{id}")
async def show(id: uuid.UUID):
    row = await app.state.db.fetchrow("select * from notes where id = $1", id)
    if not row:
        raise HTTPException(404)
    return dict(row)


@app.delete("/notes/{id}", status_code=204)
async def delete(id: uuid.UUID):
    await app.state.db.execute("delete from notes where id = $1", id)


@app.get("/slow")
async def slow(ms: int):
    await asyncio.sleep(ms / 1000)
    return {"slept_ms": ms}


@app.post("/panic")
async def panic():
    raise RuntimeError("asked for")


@app.post("/echo")
async def echo(request: Request):
    return StreamingResponse(iter([await request.body()]))


@app.get("/healthz")
@app.get("/readyz")
async def alive():
    return "ok"


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")
