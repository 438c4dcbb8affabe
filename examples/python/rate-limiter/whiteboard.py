"""The answer as one writes it in an interview: a fixed window for each address, in a dictionary.

    cargo run -- example rate-limiter --in python --whiteboard
"""

import os
import time
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

LIMIT, WINDOW = 100, 15 * 60
windows: dict[str, tuple[float, int]] = {}


@asynccontextmanager
async def lifespan(_app):
    print(f"listening on http://127.0.0.1:{os.environ['PORT']}", flush=True)
    yield


app = FastAPI(lifespan=lifespan)


@app.middleware("http")
async def limit(request: Request, call_next):
    if request.url.path not in ("/api/hello", "/api/report"):
        return await call_next(request)
    # The client is the first address: "client, proxy1, proxy2".
    client = request.headers.get("x-forwarded-for", "").split(",")[0].strip()
    now = time.monotonic()
    opened, used = windows.get(client, (now, 0))
    if now - opened >= WINDOW:
        opened, used = now, 0
    windows[client] = (opened, used + 1)
    left, reset = max(0, LIMIT - used - 1), int(opened + WINDOW - now) + 1
    told = {"RateLimit-Policy": f'"api";q={LIMIT};w={WINDOW}', "RateLimit": f'"api";r={left};t={reset}'}
    if used < LIMIT:
        response = await call_next(request)
        response.headers.update(told)
        return response
    problem = {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Quota exceeded",
        "status": 429,
        "violated-policies": ["api"],
    }
    return JSONResponse(problem, 429, told | {"Retry-After": str(reset)}, "application/problem+json")


@app.api_route("/api/hello", methods=["GET", "HEAD"])
async def hello():
    return {"hello": "world"}


@app.post("/api/hello")
async def hello_to(greeting: dict):
    return {"hello": greeting["name"]}


@app.get("/api/report")
async def report():
    return {"report": "a lot of work"}


@app.get("/healthz")
@app.get("/readyz")
async def alive():
    return "ok"


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning")
