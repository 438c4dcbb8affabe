"""What must a participant promise, so that a saga can stand on it? Each call can be repeated, each undoing comes to the same
whether its action came before, comes later or never, and a refusal stays a refusal.

In reading order: `once`, `first`, `reserve`, `undo`.
"""

import json
import re
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, Field
from starlette.convertors import register_url_convertor

import edge
from edge import Line, Model, Problem

SCHEMA = """
create table if not exists stock (
    sku text collate "C" primary key,
    available bigint not null check (available >= 0),
    reserved bigint not null default 0 check (reserved >= 0),
    sold bigint not null default 0
);
create table if not exists reservations (
    order_id uuid not null,
    sku text collate "C" not null references stock,
    quantity bigint not null,
    primary key (order_id, sku)
);
-- The answers, by participant and key.
create table if not exists answers (
    participant text not null,
    key text collate "C" not null,
    fingerprint bytea not null,
    refusal text,
    primary key (participant, key)
);
-- Which steps an order has had. An undoing writes the step as well, so that its action, if it comes later, is refused.
create table if not exists had (order_id uuid not null, step text not null, primary key (order_id, step));
create table if not exists effects (
    number bigint generated always as identity primary key,
    participant text not null,
    order_id uuid not null,
    kind text not null,
    request text not null,
    at timestamptz not null default now(),
    unique (order_id, kind)
);
"""

SKU = r"(?!\.{1,2}$)[!-.0-~]{1,64}"
Uuid = Annotated[str, Field(pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


def printable(text: str) -> str:
    if not any(letter.isalnum() for letter in text):
        raise ValueError("must have a letter or a digit")
    return text


def each_once(items):
    if len({item.sku for item in items}) < len(items):
        raise ValueError("must have each sku once")
    return items


AddressLine = Annotated[Line, Field(max_length=200), AfterValidator(printable)]
Amount = Annotated[int, Field(ge=1, le=10_000_000_000)]
Method = Annotated[Line, Field(max_length=200)]


class Item(Model):
    sku: Annotated[str, Field(pattern=r"^[!-.0-~]{1,64}$"), AfterValidator(lambda sku: a_name(sku))]
    quantity: Annotated[int, Field(ge=1, le=1_000_000)]


def a_name(sku: str) -> str:
    if not re.fullmatch(SKU, sku):
        raise ValueError("must not be . or ..")
    return sku


class Address(Model):
    name: AddressLine
    street: AddressLine
    city: AddressLine
    country: Annotated[str, Field(pattern="^[A-Z]{2}$")]


Items = Annotated[list[Item], Field(min_length=1, max_length=100), AfterValidator(each_once)]


class ForOrder(Model):
    order_id: Uuid


class Reserve(ForOrder):
    items: Items


class Charge(ForOrder):
    amount_cents: Amount
    payment_method: Method


class Book(ForOrder):
    address: Address


class Quantity(Model):
    quantity: Annotated[int, Field(ge=0, le=1_000_000)]


register_url_convertor("sku", edge.InPath(SKU))


def idempotency_key(request: Request) -> str:
    keys = request.headers.getlist("idempotency-key")
    if len(keys) != 1 or not re.fullmatch("[ -~]{1,128}", keys[0]) or not keys[0].strip():
        raise Problem(400, "Send one `Idempotency-Key` of 1 to 128 printable ASCII characters.")
    return keys[0]


Key = Annotated[str, Depends(idempotency_key)]
router = APIRouter(route_class=edge.StrictRoute)


class Refused(Exception):
    """It is committed as the answer of its key, so it must not roll back."""


async def once(request: Request, key: str, body: ForOrder, act) -> Response:
    _, participant, action = request.url.path.split("/")
    # The same body for another action is another request.
    fingerprint = edge.fingerprint(body) + action.encode()
    async with request.app.state.pool.acquire() as connection, connection.transaction():
        claimed = await connection.fetchval(
            "insert into answers values ($1, $2, $3) on conflict do nothing returning true", participant, key, fingerprint
        )
        if claimed:
            try:
                # What it has done before it refuses is undone.
                async with connection.transaction():
                    await act(connection, body)
                refusal = None
            except Refused as refused:
                refusal = str(refused)
                await connection.execute(
                    "update answers set refusal = $3 where participant = $1 and key = $2", participant, key, refusal
                )
        else:
            query = "select * from answers where participant = $1 and key = $2"
            known = await connection.fetchrow(query, participant, key)
            if known["fingerprint"] != fingerprint:
                raise Problem(422, "This key was sent with another request before.")
            refusal = known["refusal"]
    if refusal:
        raise Problem(409, refusal, order_id=body.order_id)
    return JSONResponse({"order_id": body.order_id, "outcome": "done"})


async def first(connection, order_id: str, step: str) -> bool:
    """Whether the order has not had this step. The index decides; whoever comes second waits until the first is committed."""
    insert = "insert into had values ($1, $2) on conflict do nothing returning true"
    return bool(await connection.fetchval(insert, order_id, step))


async def do(connection, order_id: str, step: str) -> None:
    if not await first(connection, order_id, step):
        raise Refused(f"The order has had its {step}, or it was undone before.")


async def happened(connection, participant: str, order_id: str, kind: str, request: dict) -> None:
    await connection.execute(
        "insert into effects (participant, order_id, kind, request) values ($1, $2, $3, $4)",
        participant, order_id, kind, json.dumps(request),
    )  # fmt: skip


async def undo(connection, participant: str, order_id: str, step: str, undoing: str) -> None:
    """Undoes a step once, if there was one, and keeps it from happening later."""
    await first(connection, order_id, step)
    done = await connection.fetchval("select request from effects where order_id = $1 and kind = $2", order_id, step)
    if done and await first(connection, order_id, undoing):
        await happened(connection, participant, order_id, undoing, json.loads(done))


@router.post("/inventory/reserve")
async def reserve(body: Reserve, key: Key, request: Request):
    async def act(connection, body):
        await do(connection, body.order_id, "reserve")
        # In one order, whatever the order of the items: two reservations would wait for each other.
        for item in sorted(body.items, key=lambda item: item.sku):
            taken = await connection.fetchval(
                """
                update stock set available = available - $2, reserved = reserved + $2
                where sku = $1 and available >= $2
                returning true
                """,
                item.sku, item.quantity,
            )  # fmt: skip
            if not taken:
                raise Refused(f"There is not so much of {item.sku}.")
            await connection.execute("insert into reservations values ($1, $2, $3)", body.order_id, item.sku, item.quantity)

    return await once(request, key, body, act)


async def end_reservation(connection, order_id: str, column: str) -> int:
    """Moves what is reserved for the order to this column of the stock."""
    rows = await connection.fetch("delete from reservations where order_id = $1 returning sku, quantity", order_id)
    for row in sorted(rows, key=lambda row: row["sku"]):
        await connection.execute(
            f"update stock set reserved = reserved - $2, {column} = {column} + $2 where sku = $1", row["sku"], row["quantity"]
        )
    return len(rows)


@router.post("/inventory/release")
async def release(body: ForOrder, key: Key, request: Request):
    async def act(connection, body):
        await first(connection, body.order_id, "reserve")
        await end_reservation(connection, body.order_id, "available")

    return await once(request, key, body, act)


@router.post("/inventory/sell")
async def sell(body: ForOrder, key: Key, request: Request):
    async def act(connection, body):
        if not await end_reservation(connection, body.order_id, "sold"):
            raise Refused("Nothing is reserved for this order.")

    return await once(request, key, body, act)


@router.post("/payment/charge")
async def charge(body: Charge, key: Key, request: Request):
    async def act(connection, body):
        await do(connection, body.order_id, "charge")
        if body.payment_method != "pm_card_visa":
            raise Refused("The card is declined.")
        await happened(connection, "payment", body.order_id, "charge", {"amount_cents": body.amount_cents})

    return await once(request, key, body, act)


@router.post("/payment/refund")
async def refund(body: ForOrder, key: Key, request: Request):
    return await once(request, key, body, lambda connection, body: undo(connection, "payment", body.order_id, "charge", "refund"))


@router.post("/shipping/book")
async def book(body: Book, key: Key, request: Request):
    async def act(connection, body):
        await do(connection, body.order_id, "book")
        if body.address.country == "XX":
            raise Refused("Nothing is shipped there.")
        await happened(connection, "shipping", body.order_id, "book", {"address": body.address.model_dump()})

    return await once(request, key, body, act)


@router.post("/shipping/cancel")
async def cancel(body: ForOrder, key: Key, request: Request):
    return await once(request, key, body, lambda connection, body: undo(connection, "shipping", body.order_id, "book", "cancel"))


@router.put("/inventory/stock/{sku:sku}")
async def put_stock(sku: str, body: Quantity, request: Request):
    row = await request.app.state.pool.fetchrow(
        "insert into stock values ($1, $2) on conflict (sku) do update set available = $2 returning *", sku, body.quantity
    )
    return dict(row)


@router.api_route("/inventory/stock/{sku:sku}", methods=["GET", "HEAD"])
async def show_stock(sku: str, request: Request):
    row = await request.app.state.pool.fetchrow("select * from stock where sku = $1", sku)
    if not row:
        raise Problem(404, "This was never put in.")
    return dict(row)


async def shown_effects(participant: str, id: str, request: Request):
    query = "select * from effects where participant = $1 and order_id = $2 order by number"
    rows = await request.app.state.pool.fetch(query, participant, id)
    effects = [{"kind": row["kind"], "request": json.loads(row["request"]), "at": edge.moment(row["at"])} for row in rows]
    return {"order_id": id, "effects": effects}


@router.api_route("/payment/effects/{id:id}", methods=["GET", "HEAD"])
async def payments(id: str, request: Request):
    return await shown_effects("payment", id, request)


@router.api_route("/shipping/effects/{id:id}", methods=["GET", "HEAD"])
async def shipments(id: str, request: Request):
    return await shown_effects("shipping", id, request)
