"""Who is asking? A token that any service can verify with a public key, without asking anybody; and a refresh token, which the
database knows, so that a session can be ended.

    cargo run -- example jwt-auth --in python

FastAPI, asyncpg, PyJWT and argon2-cffi. In reading order: `login`, `access_token`, `bearer`, `refresh`. It keeps the one key
that it made at its first start: keys are not changed while it runs.
"""

import asyncio
import base64
import hashlib
import re
import secrets
import unicodedata
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Annotated

import asyncpg
import jwt
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import AfterValidator

import edge
from edge import Model, Problem

SCHEMA = """
create table if not exists users (
    id uuid primary key,
    email text not null,
    mailbox text collate "C" not null constraint users_mailbox unique,
    password_hash text not null
);
-- One login and all that was refreshed from it. A refresh is decided under the lock on its row.
create table if not exists sessions (
    id uuid primary key,
    user_id uuid not null references users on delete cascade,
    -- How often it has been refreshed. Only refresh tokens of this generation are fresh.
    generation int not null default 0,
    advanced_at timestamptz not null default clock_timestamp(),
    ended boolean not null default false,
    expires_at timestamptz not null default now() + interval '30 days'
);
create index if not exists sessions_user_id on sessions (user_id);
create table if not exists refresh_tokens (
    -- SHA-256. A dump of this table logs nobody in.
    hash bytea primary key,
    session_id uuid not null references sessions on delete cascade,
    generation int not null
);
create table if not exists signing_keys (private_key bytea not null);
create table if not exists failed_logins (
    -- A hash of the address, which need not be anybody's.
    account bytea primary key,
    failures int not null,
    until timestamptz not null
);
"""

ISSUER = AUDIENCE = CLIENT = "worked-answers"
LIFE = timedelta(minutes=15)
# Two tabs may wake together, and an answer may be lost on its way.
GRACE = timedelta(seconds=10)
FREE_FAILURES, LONGEST_WAIT = 5, 60
# The lowest that OWASP recommends: 19 MiB, two passes.
hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# Each hash takes a core and its memory. Without a bound, a burst of logins would take all of both.
hashing = asyncio.Semaphore(2)
# Verified for an address that nobody has, so that it takes as long.
NOBODYS_HASH = hasher.hash(secrets.token_hex())


def a_password(text: str) -> str:
    """At least as long as NIST asks for. A real service also asks a list of leaked passwords."""
    text = unicodedata.normalize("NFC", text)
    if not 15 <= len(text) <= 128 or "\0" in text:
        raise ValueError("must have 15 to 128 characters, and no NUL")
    if re.fullmatch(r"(.{1,10})\1+", text.casefold()) or text.casefold() in {"qwertyuiopasdfghjkl", "123456789abcdef"}:
        raise ValueError("is one of the most common ones")
    return text


def not_too_long(text: str) -> str:
    if len(text) > 128:
        raise ValueError("must have at most 128 characters")
    return unicodedata.normalize("NFC", text)


class NewUser(Model):
    email: edge.Email
    password: Annotated[str, AfterValidator(a_password)]


class Credentials(Model):
    email: edge.Email
    password: Annotated[str, AfterValidator(not_too_long)]


class Refresh(Model):
    refresh_token: str


@asynccontextmanager
async def lifespan(app):
    app.state.pool = await edge.pool(SCHEMA)
    async with app.state.pool.acquire() as connection, connection.transaction():
        # Two processes that begin at once would each make a key, and refuse the other's tokens.
        await connection.execute("lock table signing_keys")
        private = await connection.fetchval("select private_key from signing_keys")
        if not private:
            key = Ed25519PrivateKey.generate()
            private = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
            await connection.execute("insert into signing_keys values ($1)", private)
    app.state.key = Ed25519PrivateKey.from_private_bytes(private)
    public = app.state.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    x = base64url(public)
    # The thumbprint of RFC 7638: computed from the key, so it can never name another.
    app.state.kid = base64url(hashlib.sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}'.encode()).digest())
    app.state.jwk = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": app.state.kid, "x": x}
    yield
    await app.state.pool.close()


app = edge.app(lifespan, lambda: app.state.pool.fetchval("select 1"))


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def private_answer(body: dict, status: int = 200) -> JSONResponse:
    """No cache may keep what is about one person."""
    return JSONResponse(body, status, {"Cache-Control": "no-store"})


@app.post("/register")
async def register(user: NewUser):
    async with hashing:
        hashed = await asyncio.to_thread(hasher.hash, user.password)
    id = uuid.uuid4()
    try:
        await app.state.pool.execute(
            "insert into users values ($1, $2, $3, $4)", id, user.email, edge.mailbox(user.email), hashed
        )
    except asyncpg.UniqueViolationError:
        raise Problem(409, "There is an account of this address.") from None
    return JSONResponse({"id": str(id), "email": user.email}, 201, {"Location": "/me", "Cache-Control": "no-store"})


@app.post("/login")
async def login(credentials: Credentials):
    mailbox = edge.mailbox(credentials.email)
    account = hashlib.sha256(mailbox.encode()).digest()
    await count_a_failure(account)
    user = await app.state.pool.fetchrow("select * from users where mailbox = $1", mailbox)
    async with hashing:
        right = await asyncio.to_thread(verifies, user["password_hash"] if user else NOBODYS_HASH, credentials.password)
    if not (user and right):
        raise Problem(401, "The address or the password is wrong.",
                      headers={"WWW-Authenticate": "Bearer", "Cache-Control": "no-store"})  # fmt: skip
    async with app.state.pool.acquire() as connection, connection.transaction():
        await connection.execute("delete from failed_logins where account = $1", account)
        session = uuid.uuid4()
        await connection.execute("insert into sessions (id, user_id) values ($1, $2)", session, user["id"])
        return await tokens(connection, user, session, 0)


def verifies(hashed: str, password: str) -> bool:
    try:
        return hasher.verify(hashed, password)
    except VerifyMismatchError:
        return False


async def count_a_failure(account: bytes) -> None:
    """Before the password is looked at: of fifty guesses at once, none has failed yet. A success deletes the count."""
    counted = await app.state.pool.fetchval(
        """
        insert into failed_logins values ($1, 1, clock_timestamp())
        on conflict (account) do update
        set failures = failed_logins.failures + 1,
            until = clock_timestamp() + make_interval(
                secs => case
                    when failed_logins.failures + 1 < $2 then 0
                    else least($3, 2 ^ (failed_logins.failures + 1 - $2))
                end
            )
        where failed_logins.until <= clock_timestamp()
        returning failures
        """,
        account, FREE_FAILURES, LONGEST_WAIT,
    )  # fmt: skip
    if counted is None:
        until = await app.state.pool.fetchval("select until from failed_logins where account = $1", account)
        seconds = (until - datetime.now(UTC)).total_seconds() if until else 1
        headers = {"Retry-After": str(min(LONGEST_WAIT, max(1, ceil(seconds))))}
        raise Problem(429, "There were too many failures. Wait.", headers=headers)


async def tokens(connection, user, session: uuid.UUID, generation: int) -> JSONResponse:
    token = secrets.token_urlsafe(32)
    await connection.execute("insert into refresh_tokens values ($1, $2, $3)", hashed(token), session, generation)
    return private_answer(
        {
            "access_token": access_token(str(user["id"]), user["email"], str(session)),
            "token_type": "Bearer",
            "expires_in": int(LIFE.total_seconds()),
            "refresh_token": token,
        }
    )


def hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def access_token(user: str, email: str, session: str) -> str:
    """As RFC 9068 has it."""
    now = datetime.now(UTC)
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": user, "client_id": CLIENT, "exp": now + LIFE, "iat": now,
              "jti": secrets.token_hex(16), "sid": session, "email": email}  # fmt: skip
    return jwt.encode(claims, app.state.key, "EdDSA", {"kid": app.state.kid, "typ": "at+jwt"})


# ANCHOR: bearer
def bearer(request: Request) -> dict:
    """The claims of the one token that was sent. No server is asked."""
    values = request.headers.getlist("authorization")
    if len(values) > 1:
        raise challenge(400, "invalid_request", "Send one token.")
    scheme, _, token = (values[0] if values else "").partition(" ")
    if scheme.lower() != "bearer":
        raise Problem(401, "Send an access token.", headers={"WWW-Authenticate": "Bearer"})
    try:
        # The last letter of a signature has bits that the decoder ignores. There must be one way to write a token.
        if not all(base64url(jwt.utils.base64url_decode(part)) == part for part in token.split(".")):
            raise jwt.InvalidTokenError
        if jwt.get_unverified_header(token).get("typ") != "at+jwt":
            raise jwt.InvalidTokenError
        # The algorithm is ours to say. A token that says `none` must not be asked how to verify it.
        return jwt.decode(token, app.state.key.public_key(), ["EdDSA"], audience=AUDIENCE, issuer=ISSUER,
                          options={"require": ["exp", "iat", "sub", "sid", "jti"]})  # fmt: skip
    except (jwt.InvalidTokenError, ValueError):
        raise challenge(401, "invalid_token", "This token is no good.") from None
# ANCHOR_END: bearer


def challenge(status: int, error: str, detail: str) -> Problem:
    return Problem(status, detail, headers={"WWW-Authenticate": f'Bearer error="{error}"', "Cache-Control": "no-store"})


Claims = Annotated[dict, Depends(bearer)]


@app.api_route("/me", methods=["GET", "HEAD"])
async def me(claims: Claims):
    return private_answer({"id": claims["sub"], "email": claims["email"]})


@app.post("/token/refresh")
async def refresh(refresh: Refresh):
    async with app.state.pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(
            """
            select
                sessions.id,
                sessions.generation,
                refresh_tokens.generation as of,
                sessions.advanced_at > clock_timestamp() - $2::interval as in_grace,
                ended or expires_at <= now() as over,
                users.id as user_id,
                users.email
            from refresh_tokens
            join sessions on sessions.id = session_id
            join users on users.id = user_id
            where hash = $1
            for update of sessions
            """,
            hashed(refresh.refresh_token), GRACE,
        )  # fmt: skip
        user = row and {"id": row["user_id"], "email": row["email"]}
        if row and not row["over"] and row["of"] == row["generation"]:
            advance = "update sessions set generation = generation + 1, advanced_at = clock_timestamp() where id = $1"
            await connection.execute(advance, row["id"])
            return await tokens(connection, user, row["id"], row["generation"] + 1)
        if row and not row["over"] and row["of"] == row["generation"] - 1 and row["in_grace"]:
            return await tokens(connection, user, row["id"], row["generation"])
        if row:
            # Two people have it: the user and a thief. Not raised here, because that would undo it.
            await connection.execute("update sessions set ended = true where id = $1", row["id"])
    raise challenge(401, "invalid_token", "This refresh token is no good.")


@app.post("/logout")
async def logout(claims: Claims):
    await app.state.pool.execute("update sessions set ended = true where id = $1", uuid.UUID(claims["sid"]))
    return Response(status_code=204)


@app.post("/logout/everywhere")
async def logout_everywhere(claims: Claims):
    await app.state.pool.execute("update sessions set ended = true where user_id = $1", uuid.UUID(claims["sub"]))
    return Response(status_code=204)


@app.api_route("/.well-known/jwks.json", methods=["GET", "HEAD"])
async def jwks():
    return JSONResponse({"keys": [app.state.jwk]}, headers={"Cache-Control": "public, max-age=300"},
                        media_type="application/jwk-set+json")  # fmt: skip


if __name__ == "__main__":
    edge.serve(app)
