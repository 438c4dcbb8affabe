"""How is a notification delivered once, though the broker delivers at least once and the program may be killed? The job is in the
database before it is promised. A worker writes it to the user's stream in the transaction that marks it as delivered.

    cargo run -- example notification-worker --in python

FastAPI, asyncpg, aio-pika and redis-py. In reading order: `accept`, `relay`, `consume`, `deliver`, `stream`. Redis only says that
there is something new: the streams, in the database, are read every second anyway. No provider of pushes: a push ends as dead.
"""

import asyncio
import json
import os
import re
import secrets
import uuid
from collections import defaultdict
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Literal

import aio_pika
from fastapi import Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, Field
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.convertors import register_url_convertor

import edge
from edge import Line, Model, Problem

SCHEMA = """
create table if not exists jobs (
    number bigint generated always as identity primary key,
    job_id text collate "C" not null unique,
    user_id text collate "C" not null,
    channel text not null,
    title text not null,
    body text not null,
    published boolean not null default false,
    status text not null default 'queued',
    attempts int not null default 0,
    last_error text
);
create index if not exists jobs_to_publish on jobs (number) where not published;
-- A row's lock makes the numbers of one user those of the commits.
create table if not exists users (user_id text collate "C" primary key, last_seq bigint not null);
create table if not exists frames (
    user_id text collate "C" not null,
    seq bigint not null,
    job_id text not null,
    title text not null,
    body text not null,
    primary key (user_id, seq)
);
create table if not exists devices (user_id text collate "C", token text collate "C", primary key (user_id, token));
"""

QUEUE = os.environ.get("QUEUE_PREFIX", "notifications")
PREFIX = os.environ.get("KEY_PREFIX", "notifications:")
NAME = r"(?!\.{1,2}$)[A-Za-z0-9_.@-]{1,64}"
TICKET_SECONDS, MOST_ATTEMPTS, LANES = 60, 10, 8
# Only whoever it is for uses it up, and only once.
TAKE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
register_url_convertor("name", edge.InPath(NAME))
register_url_convertor("token", edge.InPath("[!-.0-~]{1,4096}"))


def a_name(text: str) -> str:
    if not re.fullmatch(NAME, text):
        raise ValueError("must have 1 to 64 letters, digits, _, -, . or @, and not be . or ..")
    return text


def short(text: str, most: int = 3000) -> str:
    if len(text.encode()) > most or "\0" in text:
        raise ValueError(f"must have at most {most} bytes, and no NUL")
    return text


Name = Annotated[str, AfterValidator(a_name)]


class Notification(Model):
    job_id: Name | None = None
    user_id: Name
    channel: Literal["websocket", "push"]
    title: Annotated[Line, AfterValidator(lambda text: short(text, 256))]
    body: Annotated[str, AfterValidator(short)]


@asynccontextmanager
async def lifespan(app):
    state = app.state
    state.pool = await edge.pool(SCHEMA)
    state.redis = Redis.from_url(os.environ["REDIS_URL"], socket_timeout=2, socket_connect_timeout=2)
    state.take = state.redis.register_script(TAKE)
    state.to_publish = asyncio.Event()
    state.sockets = defaultdict(set)  # For each user, an event of each open stream.
    tasks = [asyncio.create_task(for_ever(work)) for work in (with_broker, listen)]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)  # They give back their connections, for which the pool waits.
    await state.redis.aclose()
    await state.pool.close()


async def for_ever(work) -> None:
    """A server that is away comes back."""
    while True:
        try:
            await work()
        except Exception as error:
            print(f"{work.__name__} begins again: {type(error).__name__} {error}", flush=True)
            await asyncio.sleep(1)


app = edge.app(lifespan, lambda: app.state.pool.fetchval("select 1"))


@app.post("/notifications")
async def accept(wanted: Notification):
    """After this, it will be delivered, whatever happens to this process and to the broker."""
    job = wanted.job_id or str(uuid.uuid4())
    inserted = await app.state.pool.fetchval(
        """
        insert into jobs (job_id, user_id, channel, title, body)
        values ($1, $2, $3, $4, $5)
        on conflict (job_id) do nothing
        returning number
        """,
        job, wanted.user_id, wanted.channel, wanted.title, wanted.body,
    )  # fmt: skip
    if inserted:
        app.state.to_publish.set()
    elif await app.state.pool.fetchval("select user_id from jobs where job_id = $1", job) != wanted.user_id:
        raise Problem(409, "This job is another user's.")
    return JSONResponse({"job_id": job}, 202 if inserted else 200, {"Location": f"/notifications/{job}"})


async def with_broker() -> None:
    # Not aio-pika's own way to connect again: here, everything that depends on the connection begins again with it.
    async with await aio_pika.connect(os.environ["AMQP_URL"], timeout=5) as connection:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(relay(await connection.channel()))
            tasks.create_task(consume(await connection.channel(publisher_confirms=False)))
            await connection.closed()
            raise ConnectionError("the broker has gone")


async def declared(channel):
    """A quorum queue survives the loss of a node. What kills a worker again and again goes to the dead letters."""
    await channel.declare_queue(f"{QUEUE}.dead", durable=True)
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 20, "x-dead-letter-exchange": "",
                 "x-dead-letter-routing-key": f"{QUEUE}.dead"}  # fmt: skip
    return await channel.declare_queue(QUEUE, durable=True, arguments=arguments)


async def relay(channel) -> None:
    """The only one that publishes, so that the order is that of the jobs. What was published and not marked, because this process
    died in between, is published again: the worker knows what it has delivered."""
    await declared(channel)
    query = "select job_id, user_id from jobs where not published order by number limit 100"
    while True:
        app.state.to_publish.clear()
        while rows := await app.state.pool.fetch(query):
            messages = [aio_pika.Message(json.dumps(dict(row)).encode(), delivery_mode=2) for row in rows]
            # Each waits for the broker's confirmation; they are sent one after another without waiting.
            await asyncio.gather(*(channel.default_exchange.publish(message, QUEUE) for message in messages))
            jobs = [row["job_id"] for row in rows]
            await app.state.pool.execute("update jobs set published = true where job_id = any($1)", jobs)
        with suppress(TimeoutError):
            await asyncio.wait_for(app.state.to_publish.wait(), 1)


async def consume(channel) -> None:
    # As many unacknowledged ones as this; so the lanes have a bound too.
    await channel.set_qos(prefetch_count=64)
    queue = await declared(channel)
    # One user's jobs are all in one lane, one after another. Several consumers would need a queue for each lane.
    lanes = [asyncio.Queue() for _ in range(LANES)]
    async with asyncio.TaskGroup() as tasks:
        for lane in lanes:
            tasks.create_task(deliver_all(lane))
        async with queue.iterator() as messages:
            async for message in messages:
                job = json.loads(message.body)
                lanes[hash(job["user_id"]) % LANES].put_nowait((job["job_id"], message))


async def deliver_all(lane: asyncio.Queue) -> None:
    while True:
        job, message = await lane.get()
        attempt = 1
        # Not back into the queue: the user's next job would overtake it.
        while not await delivered(job, attempt):
            await asyncio.sleep(min(5, 0.1 * 2**attempt))
            attempt += 1
        await message.ack()


async def delivered(job: str, attempt: int) -> bool:
    try:
        user = await deliver(job, attempt)
    except edge.AWAY as error:
        # Not the job's fault, so it never dies of this.
        print(f"{job} waits for the database: {error}", flush=True)
        return False
    except Exception as error:
        if attempt < MOST_ATTEMPTS:
            return False
        await app.state.pool.execute(
            "update jobs set status = 'dead', attempts = $2, last_error = $3 where job_id = $1 and status = 'queued'",
            job, attempt, str(error),
        )  # fmt: skip
        return True
    if user:
        with suppress(RedisError):  # Streams look once a second anyway.
            await app.state.redis.publish(f"{PREFIX}new", user)
    return True


async def deliver(job: str, attempt: int) -> str | None:
    """Once, however often the broker brings it. Returns the user whose stream has something new."""
    async with app.state.pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow("select * from jobs where job_id = $1 and status = 'queued' for update", job)
        if not row:
            return None
        if row["channel"] == "push":
            devices = await connection.fetchval("select count(*) from devices where user_id = $1", row["user_id"])
            reason = "no provider of pushes is set up" if devices else "the user has no device"
            await connection.execute(
                "update jobs set status = 'dead', attempts = $2, last_error = $3 where job_id = $1", job, attempt, reason
            )
            return None
        seq = await connection.fetchval(
            """
            insert into users values ($1, 1)
            on conflict (user_id) do update set last_seq = users.last_seq + 1
            returning last_seq
            """,
            row["user_id"],
        )
        await connection.execute(
            "insert into frames values ($1, $2, $3, $4, $5)", row["user_id"], seq, job, row["title"], row["body"]
        )
        await connection.execute("update jobs set status = 'delivered', attempts = $2 where job_id = $1", job, attempt)
        return row["user_id"]


@app.api_route("/notifications/{job:name}", methods=["GET", "HEAD"])
async def progress(job: str):
    row = await app.state.pool.fetchrow("select job_id, status, attempts, last_error from jobs where job_id = $1", job)
    if not row:
        raise Problem(404, "There is no such job.")
    return dict(row)


@app.put("/users/{user:name}/devices/{token:token}")
async def add_device(user: str, token: str):
    await app.state.pool.execute("insert into devices values ($1, $2) on conflict do nothing", user, token)
    return Response(status_code=204)


@app.delete("/users/{user:name}/devices/{token:token}")
async def remove_device(user: str, token: str):
    await app.state.pool.execute("delete from devices where user_id = $1 and token = $2", user, token)
    return Response(status_code=204)


@app.post("/users/{user:name}/stream-tickets")
async def ticket(user: str):
    ticket = secrets.token_urlsafe(32)
    await app.state.redis.set(f"{PREFIX}ticket:{ticket}", user, ex=TICKET_SECONDS)
    return JSONResponse({"ticket": ticket}, 201)


async def admitted(user: str, request: Request | WebSocket) -> tuple[str, int]:
    """The key of the ticket, which is not used up, and the number to go on from."""
    query = request.query_params
    tickets = query.getlist("ticket")
    key = f"{PREFIX}ticket:{tickets[0] if len(tickets) == 1 else ''}"
    if not re.fullmatch("[A-Za-z0-9_-]{43}", key.rpartition(":")[2]) or await app.state.redis.get(key) != user.encode():
        raise Problem(401, "Send a fresh ticket of this user.", headers={"WWW-Authenticate": "Ticket"})
    after = query.getlist("after") or ["0"]
    strange = set(query) - {"ticket", "after"}
    if strange or len(after) > 1 or not re.fullmatch("[0-9]{1,19}", after[0]) or int(after[0]) >= 2**63:
        raise Problem(422, "is the only other parameter, and a whole number of 0 or more", "after")
    return key, int(after[0])


@app.api_route("/users/{user:name}/stream", methods=["GET", "HEAD"])
async def no_stream(user: str, request: Request):
    await admitted(user, request)
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    raise Problem(426, "Open it as a WebSocket.", headers=headers)


@app.websocket("/users/{user:name}/stream")
async def stream(socket: WebSocket, user: str):
    try:
        key, after = await admitted(user, socket)
        if not await app.state.take(keys=[key], args=[user]):
            raise Problem(401, "This ticket was used.", headers={"WWW-Authenticate": "Ticket"})
    except (Problem, RedisError) as error:
        return await socket.send_denial_response(edge.document(error if isinstance(error, Problem) else edge.busy()))
    await socket.accept()
    new = asyncio.Event()
    app.state.sockets[user].add(new)
    sending = asyncio.create_task(send_all(socket, user, after, new))
    try:
        # The stream goes one way. Who speaks is closed; who says goodbye raises here.
        await socket.receive()
        await socket.close(1003)
    except (WebSocketDisconnect, RuntimeError):
        pass
    finally:
        sending.cancel()
        app.state.sockets[user].discard(new)
        if not app.state.sockets[user]:
            del app.state.sockets[user]


async def send_all(socket: WebSocket, user: str, after: int, new: asyncio.Event) -> None:
    query = "select seq, job_id, title, body from frames where user_id = $1 and seq > $2 order by seq limit 100"
    while True:
        # Before the look: what comes while we look makes us look again.
        new.clear()
        try:
            while rows := await app.state.pool.fetch(query, user, after):
                for row in rows:
                    await socket.send_text(json.dumps(dict(row)))  # It waits while the client's buffer is full.
                after = rows[-1]["seq"]
        except edge.AWAY as error:
            print(f"the stream of {user} waits: {error}", flush=True)
        with suppress(TimeoutError):
            await asyncio.wait_for(new.wait(), 1)


async def listen() -> None:
    async with app.state.redis.pubsub() as news:
        await news.subscribe(f"{PREFIX}new")
        while True:
            message = await news.get_message(ignore_subscribe_messages=True, timeout=1)
            for event in app.state.sockets.get(message["data"].decode(), ()) if message else ():
                event.set()


if __name__ == "__main__":
    edge.serve(app)
