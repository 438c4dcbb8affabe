"""The answer as one writes it in an interview: look into Redis, else query and `SET EX 3600`; delete on update.

    cargo run -- example cache-aside --in python --whiteboard
"""

import json
import os
from contextlib import asynccontextmanager

import asyncpg
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from redis.asyncio import Redis

PREFIX = os.environ.get("KEY_PREFIX", "whiteboard:")
SCHEMA = """
create table if not exists users (
    id bigint generated always as identity primary key, name text not null, email text not null,
    email_key text not null unique, created_at timestamptz not null default now(), updated_at timestamptz not null default now()
)
"""
COLUMNS = "json_build_object('id', id, 'name', name, 'email', email, 'created_at', created_at, 'updated_at', updated_at)"


@asynccontextmanager
async def lifespan(app):
    app.state.db = await asyncpg.create_pool(os.environ["DATABASE_URL"])
    app.state.redis = Redis.from_url(os.environ["REDIS_URL"])
    await app.state.db.execute(SCHEMA)
    print(f"listening on http://127.0.0.1:{os.environ['PORT']}", flush=True)
    yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(HTTPException)
async def problem(_request, error):
    body = {"title": error.detail, "status": error.status_code}
    return JSONResponse(body, error.status_code, media_type="application/problem+json")


class User(BaseModel):
    name: str
    email: str


async def find(id: int) -> tuple[dict, str]:
    key = f"{PREFIX}user:{id}"
    if cached := await app.state.redis.get(key):
        return json.loads(cached), f"redis; hit; ttl={await app.state.redis.ttl(key)}"
    user = await app.state.db.fetchval(f"select {COLUMNS} from users where id = $1", id)
    if not user:
        raise HTTPException(404)
    await app.state.redis.set(key, user, ex=3600)
    return json.loads(user), "redis; fwd=miss"


@app.post("/users")
async def create(new: User):
    insert = f"insert into users (name, email, email_key) values ($1, $2, lower($2)) on conflict do nothing returning {COLUMNS}"
    user = await app.state.db.fetchval(insert, new.name, new.email)
    if not user:
        raise HTTPException(409)
    return JSONResponse(json.loads(user), 201, {"Location": f"/users/{json.loads(user)['id']}"})


@app.api_route("/users/{id}", methods=["GET", "HEAD"])
async def show(id: int):
    user, status = await find(id)
    return JSONResponse(user, headers={"Cache-Status": status})


@app.get("/users")
async def show_many(ids: str):
    return {"users": [(await find(int(id)))[0] for id in ids.split(",")], "missing": []}


@app.put("/users/{id}")
async def update(id: int, new: User):
    statement = f"update users set name = $2, email = $3, email_key = lower($3), updated_at = now() where id = $1 returning {COLUMNS}"
    user = await app.state.db.fetchval(statement, id, new.name, new.email)
    await app.state.redis.delete(f"{PREFIX}user:{id}")
    if not user:
        raise HTTPException(404)
    return json.loads(user)


@app.delete("/users/{id}", status_code=204)
async def delete(id: int):
    deleted = await app.state.db.execute("delete from users where id = $1", id)
    await app.state.redis.delete(f"{PREFIX}user:{id}")
    if deleted == "DELETE 0":
        raise HTTPException(404)


@app.get("/healthz")
@app.get("/readyz")
async def alive():
    return "ok"


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")
