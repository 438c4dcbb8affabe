"""The answer as one writes it in an interview: it looks whether a code is free, and then inserts it.

    cargo run -- example url-shortener --in python --whiteboard
"""

import os
import zlib
from contextlib import asynccontextmanager

import asyncpg
import uvicorn
from fastapi import FastAPI, HTTPException, Response
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel

PORT = int(os.environ.get("PORT", "9000"))
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@asynccontextmanager
async def lifespan(app):
    app.state.db = await asyncpg.create_pool(os.environ["DATABASE_URL"])
    await app.state.db.execute(
        "create table if not exists links (code text primary key, url text not null, clicks int not null default 0,"
        " created_at timestamptz not null default now(), expires_at timestamptz)"
    )
    print(f"listening on http://127.0.0.1:{PORT}", flush=True)
    yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(HTTPException)
async def problem(_request, error):
    body = {"title": error.detail, "status": error.status_code}
    return JSONResponse(body, error.status_code, media_type="application/problem+json")


class NewLink(BaseModel):
    url: str
    alias: str | None = None
    expires_in_seconds: int | None = None


def code_of(text: str) -> str:
    number = zlib.crc32(text.encode())
    return "".join(DIGITS[number // 62**place % 62] for place in range(6, -1, -1))


async def find(code: str):
    query = "select *, coalesce(expires_at <= now(), false) as ended from links where code = $1"
    row = await app.state.db.fetchrow(query, code)
    if not row:
        raise HTTPException(404)
    if row["ended"]:
        raise HTTPException(410)
    return dict(row) | {"short_url": f"http://127.0.0.1:{PORT}/{code}"}


@app.post("/links")
async def create(new: NewLink):
    if not new.url.startswith(("http://", "https://")):
        raise HTTPException(422, "this is no http or https URL")
    text, code = new.url, new.alias or code_of(new.url)
    while taken := await app.state.db.fetchrow("select url from links where code = $1", code):
        if new.alias:
            raise HTTPException(409, "taken")
        if taken["url"] == new.url:
            return await find(code)
        text += "!"  # A collision: append something and hash again.
        code = code_of(text)
    insert = "insert into links (code, url, expires_at) values ($1, $2, now() + make_interval(secs => $3))"
    await app.state.db.execute(insert, code, new.url, new.expires_in_seconds)
    link = await find(code)
    times = {name: link[name] and link[name].isoformat() for name in ("created_at", "expires_at")}
    return JSONResponse(link | times, 201, {"Location": f"/links/{code}"})


@app.get("/healthz")
@app.get("/readyz")
async def alive():
    return "ok"


@app.get("/links/{code}")
@app.get("/links/{code}/stats")
async def show(code: str):
    return await find(code)


@app.delete("/links/{code}")
async def delete(code: str):
    await find(code)
    await app.state.db.execute("delete from links where code = $1", code)
    return Response(status_code=204)


@app.api_route("/{code}", methods=["GET", "HEAD"])
async def redirect(code: str):
    link = await find(code)
    await app.state.db.execute("update links set clicks = clicks + 1 where code = $1", code)
    return RedirectResponse(link["url"], 302)


if __name__ == "__main__":
    uvicorn.run(app, port=PORT, log_level="warning")
