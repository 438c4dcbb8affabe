"""The answer as one writes it in an interview: check the password, sign a token, verify it on each request.

    cargo run -- example jwt-auth --in python --whiteboard
"""

import hashlib
import os
import time
import uuid
from contextlib import asynccontextmanager

import asyncpg
import jwt
import uvicorn
from fastapi import FastAPI, Header, HTTPException, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

SECRET, DAY = "secret", 24 * 60 * 60
SCHEMA = "create table if not exists users (id uuid primary key, email text not null unique, password_hash text not null)"


@asynccontextmanager
async def lifespan(app):
    app.state.db = await asyncpg.create_pool(os.environ["DATABASE_URL"])
    await app.state.db.execute(SCHEMA)
    print(f"listening on http://127.0.0.1:{os.environ['PORT']}", flush=True)
    yield


app = FastAPI(lifespan=lifespan)


class Credentials(BaseModel):
    email: str
    password: str


class Refresh(BaseModel):
    refresh_token: str


def hashed(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


def tokens(id: str, email: str) -> dict:
    def sign(seconds: int) -> str:
        return jwt.encode({"sub": id, "email": email, "exp": int(time.time()) + seconds}, SECRET, "HS256")

    return {"access_token": sign(DAY), "refresh_token": sign(30 * DAY), "token_type": "Bearer", "expires_in": DAY}


def claims_of(token: str) -> dict:
    try:
        return jwt.decode(token, SECRET, ["HS256"])
    except jwt.InvalidTokenError:
        raise HTTPException(401, "bad token") from None


@app.post("/register")
async def register(new: Credentials):
    id = uuid.uuid4()
    try:
        await app.state.db.execute("insert into users values ($1, $2, $3)", id, new.email, hashed(new.password))
    except asyncpg.UniqueViolationError:
        raise HTTPException(409, "taken") from None
    return JSONResponse({"id": str(id), "email": new.email}, 201, {"Location": "/me"})


@app.post("/login")
async def login(given: Credentials):
    user = await app.state.db.fetchrow("select * from users where email = $1", given.email)
    if not user:
        raise HTTPException(401, "no such user")
    if user["password_hash"] != hashed(given.password):
        raise HTTPException(401, "wrong password")
    return tokens(str(user["id"]), user["email"])


@app.get("/me")
async def me(authorization: str = Header("")):
    claims = claims_of(authorization.removeprefix("Bearer "))
    return {"id": claims["sub"], "email": claims["email"]}


@app.post("/token/refresh")
async def refresh(given: Refresh):
    claims = claims_of(given.refresh_token)
    return tokens(claims["sub"], claims["email"])


@app.post("/logout")
@app.post("/logout/everywhere")
async def logout():
    return Response(status_code=204)  # The client forgets its tokens.


@app.get("/healthz")
@app.get("/readyz")
async def alive():
    return "ok"


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")
