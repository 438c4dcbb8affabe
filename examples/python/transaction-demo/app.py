"""How is a payment made once, though it is sent twice and many pay at once? The key is claimed in the transaction that moves
the money, and the rows of both accounts are locked in one order.

    cargo run -- example transaction-demo --in python

FastAPI and asyncpg. In reading order: `once`, `transfer`, `entries`. Amounts are whole cents: a float cannot hold 0.1.
"""

import json
import re
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Request, Response
from pydantic import Field

import edge
from edge import Key, Line, Model, Problem

SCHEMA = """
create table if not exists accounts (
    id bigint generated always as identity primary key,
    owner text not null,
    -- The sum of the account's entries.
    balance_cents bigint not null,
    created_at timestamptz not null default now(),
    -- Whatever the code forgets, nobody is ever overdrawn. Below 2^53, so that every reader of JSON reads it exactly.
    constraint accounts_balance check (balance_cents between 0 and 9007199254740991)
);
create table if not exists transfers (
    id bigint generated always as identity primary key,
    from_account bigint not null references accounts,
    to_account bigint not null references accounts,
    amount_cents bigint not null check (amount_cents > 0)
);
create table if not exists entries (
    -- Drawn while the account's row is locked, so an account's entries have ids in the order of their commits.
    id bigint generated always as identity primary key,
    account_id bigint not null references accounts,
    -- None for the opening.
    transfer_id bigint references transfers,
    amount_cents bigint not null
);
create index if not exists entries_of_account on entries (account_id, id);
create table if not exists idempotency_keys (
    scope text collate "C" not null,
    key text collate "C" not null,
    fingerprint bytea not null,
    status int,
    location text,
    body text,
    -- This index decides which request acts. A second insert of the key waits here until the first is committed.
    primary key (scope, key)
);
"""

MOST = 2**53 - 1


class NewAccount(Model):
    owner: Annotated[Line, Field(max_length=200)]
    balance_cents: Annotated[int, Field(ge=0, le=MOST)]


class NewTransfer(Model):
    # Account 0 is nobody's, and a number beyond this is none of PostgreSQL's.
    payer: Annotated[int, Field(alias="from", ge=1, lt=2**63)]
    payee: Annotated[int, Field(alias="to", ge=1, lt=2**63)]
    amount_cents: Annotated[int, Field(ge=1, le=MOST)]


@asynccontextmanager
async def lifespan(app):
    app.state.pool = await edge.pool(SCHEMA)
    yield
    await app.state.pool.close()


app = edge.app(lifespan, lambda: app.state.pool.fetchval("select 1"))


# ANCHOR: once
async def once(scope: str, key: str, body: Model, act) -> Response:
    """Answers as `act` says: with a status, a path and a body. The same key again gets the same answer. Both are committed
    together with what `act` does, so no kill comes between them."""
    fingerprint = edge.fingerprint(body)
    async with app.state.pool.acquire() as connection, connection.transaction():
        claimed = await connection.fetchval(
            """
            insert into idempotency_keys (scope, key, fingerprint)
            values ($1, $2, $3)
            on conflict do nothing
            returning true
            """,
            scope, key, fingerprint,
        )  # fmt: skip
        if claimed:
            status, location, answer = await act(connection, body)
            text = json.dumps(answer)
            await connection.execute(
                "update idempotency_keys set status = $3, location = $4, body = $5 where scope = $1 and key = $2",
                scope, key, status, location, text,
            )  # fmt: skip
        else:
            known = await connection.fetchrow("select * from idempotency_keys where scope = $1 and key = $2", scope, key)
            if known["fingerprint"] != fingerprint:
                raise Problem(422, "This key was sent with another body before.")
            status, location, text = known["status"], known["location"], known["body"]
    if status >= 400:
        refusal = json.loads(text)
        raise Problem(status, refusal["detail"], refusal["field"])
    return Response(text, status, {"Location": location}, "application/json")
# ANCHOR_END: once


def refused(status: int, detail: str, field: str | None = None):
    """A refusal is an answer too, and stays the answer of its key: it is committed, and not raised."""
    return status, None, {"detail": detail, "field": field}


@app.post("/accounts")
async def open_account(account: NewAccount, key: Key):
    async def act(connection, account):
        row = await connection.fetchrow(
            "insert into accounts (owner, balance_cents) values ($1, $2) returning *", account.owner, account.balance_cents
        )
        if account.balance_cents:
            await connection.execute(
                "insert into entries (account_id, amount_cents) values ($1, $2)", row["id"], account.balance_cents
            )
        return 201, f"/accounts/{row['id']}", shown(row)

    return await once("accounts", key, account, act)


@app.post("/transfers")
async def transfer(transfer: NewTransfer, key: Key):
    # That body is never good, so the key is not used up.
    if transfer.payer == transfer.payee:
        raise Problem(422, "must be another account", "to")
    return await once("transfers", key, transfer, move)


async def move(connection, transfer: NewTransfer):
    # In the order of their numbers, whoever pays whom: two transfers in opposite directions would wait for each other.
    # The lock is the one that an update takes. `for update` would also hold up foreign keys that refer to these rows.
    locked = await connection.fetch(
        "select id, balance_cents from accounts where id = any($1) order by id for no key update",
        [transfer.payer, transfer.payee],
    )
    balances = {row["id"]: row["balance_cents"] for row in locked}
    for account, field in ((transfer.payer, "from"), (transfer.payee, "to")):
        if account not in balances:
            return refused(422, "There is no such account.", field)
    if balances[transfer.payer] < transfer.amount_cents:
        return refused(409, "There is not enough money.")
    if balances[transfer.payee] + transfer.amount_cents > MOST:
        return refused(409, "That is more than an account can hold.")
    number = await connection.fetchval(
        """
        with made as (
            insert into transfers (from_account, to_account, amount_cents) values ($1, $2, $3) returning id
        ), moved as (
            update accounts
            set balance_cents = balance_cents + case when id = $1 then -$3::bigint else $3 end
            where id in ($1, $2)
        )
        insert into entries (account_id, transfer_id, amount_cents)
        select account, made.id, amount from made, (values ($1, -$3::bigint), ($2, $3)) as both_sides (account, amount)
        returning transfer_id
        """,
        transfer.payer, transfer.payee, transfer.amount_cents,
    )  # fmt: skip
    return 201, f"/transfers/{number}", {"id": number} | transfer.model_dump(by_alias=True)


def shown(row) -> dict:
    account = {name: row[name] for name in ("id", "owner", "balance_cents")}
    return account | {"created_at": edge.moment(row["created_at"])}


async def found(query: str, number: int):
    row = await app.state.pool.fetchrow(query, number)
    if not row:
        raise Problem(404, "There is nothing of this number.")
    return row


@app.api_route("/accounts/{account:number}", methods=["GET", "HEAD"])
async def look_at(account: int):
    return shown(await found("select * from accounts where id = $1", account))


@app.api_route("/transfers/{number:number}", methods=["GET", "HEAD"])
async def receipt(number: int):
    row = await found("select * from transfers where id = $1", number)
    return {"id": row["id"], "from": row["from_account"], "to": row["to_account"], "amount_cents": row["amount_cents"]}


@app.api_route("/accounts/{account:number}/entries", methods=["GET", "HEAD"])
async def entries(account: int, request: Request):
    given = dict(request.query_params)
    numbers = {name: int(value) for name, value in given.items() if re.fullmatch("[0-9]{1,19}", value)}
    if set(given) - {"limit", "after"} or set(given) - set(numbers) or len(request.query_params.multi_items()) > len(given):
        raise Problem(400, "The parameters are `limit` and `after`, which are numbers.")
    limit, after = numbers.get("limit", 50), numbers.get("after", 0)
    if not 1 <= limit <= 200:
        raise Problem(422, "must be 1 to 200", "limit")
    await found("select id from accounts where id = $1", account)
    # From the last one seen, and not by a number of rows to leave out, which costs more on each page.
    rows = await app.state.pool.fetch(
        """
        select id, transfer_id as transfer, amount_cents
        from entries
        where account_id = $1 and id > $2
        order by id
        limit $3
        """,
        account, min(after, 2**63 - 1), limit + 1,
    )  # fmt: skip
    page = [{"transfer": row["transfer"], "amount_cents": row["amount_cents"]} for row in rows[:limit]]
    more = len(rows) > limit
    following = f"/accounts/{account}/entries?limit={limit}&after={rows[limit - 1]['id']}" if more else None
    return {"entries": page, "next": following}


if __name__ == "__main__":
    edge.serve(app)
