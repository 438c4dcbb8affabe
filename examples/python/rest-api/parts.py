"""What does a resource need beside its table? Patches, versions by media type, cursors, a graph with bounds; and the orders, whose
states are moves.

In reading order: `patched`, `chosen`, `cursor_of`, `schema`, `cost_of`, `move`.
"""

import base64
import json
import re
import uuid
from typing import Annotated

import asyncpg
import jsonpatch
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from graphql import (
    FragmentSpreadNode,
    GraphQLArgument,
    GraphQLError,
    GraphQLField,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLString,
    Visitor,
    execute,
    parse,
    validate,
    visit,
)
from jsonpointer import JsonPointerException
from pydantic import Field

import edge
from edge import Line, Model, Problem

MERGE_PATCH, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"
V1, JSON = "application/vnd.worked-answers.v1+json", "application/json"
MOST_OPERATIONS, LARGEST_DOCUMENT = 100, 16 * 1024


def merged(target, patch):
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = merged(target.get(name), value)
    return target


def patched(document: dict, media_type: str, patch) -> dict:
    if media_type == MERGE_PATCH:
        if not isinstance(patch, dict):
            raise Problem(422, "A merge patch is an object here.")
        return merged(document, patch)
    if not isinstance(patch, list) or not all(isinstance(operation, dict) for operation in patch):
        raise Problem(422, "A JSON Patch is a list of operations.")
    if len(patch) > MOST_OPERATIONS:
        raise Problem(422, f"A patch has at most {MOST_OPERATIONS} operations.")
    for operation in patch:
        if any(str(operation.get(name, "")).count("/") > 2 for name in ("path", "from")):
            raise Problem(422, "A path has at most two levels.")
        try:
            document = jsonpatch.apply_patch(document, [operation])
        except jsonpatch.JsonPatchTestFailed as error:
            raise Problem(409, f"A test does not hold: {error}") from None
        except (jsonpatch.JsonPatchException, JsonPointerException, KeyError, TypeError, ValueError, RecursionError):
            raise Problem(422, "An operation cannot be done.") from None
        # After each: a copy of a copy doubles the document again and again.
        if len(json.dumps(document)) > LARGEST_DOCUMENT:
            raise Problem(422, "The patch makes the document too large.")
    if not isinstance(document, dict):
        raise Problem(422, "The patch makes something that is no user.")
    return document


def chosen(accept: str | None) -> str:
    """Of the media types that we have, the one that the client likes best. The most specific range that fits counts."""
    ranges = {}
    for part in (accept or "*/*").split(","):
        name, *parameters = (it.strip().lower() for it in part.split(";"))
        quality = next((it[2:] for it in parameters if it.startswith("q=")), "1")
        if re.fullmatch(r"[^/\s]+/[^/\s]+", name) and re.fullmatch(r"0(\.\d{0,3})?|1(\.0{0,3})?", quality):
            ranges[name] = float(quality)
    liked = {ours: next((ranges[it] for it in (ours, "application/*", "*/*") if it in ranges), 0) for ours in (JSON, V1)}
    best = max(liked, key=liked.get)
    if not liked[best]:
        raise Problem(406, f"There is {JSON} and {V1}.", headers={"Vary": "Accept"}, title="Not acceptable")
    return best


def cursor_of(query: list, value: str, id: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([query, value, id]).encode()).decode().rstrip("=")


def place_of(cursor: str, query: list) -> list[str]:
    """A place in one order means nothing in another, so the cursor says which it is of."""
    try:
        of, value, id = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True))
        if of != query or not isinstance(value, str) or not re.fullmatch("[0-9a-f-]{36}", id) or "\0" in value:
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise Problem(422, "must be the one of the `Link` to the next page", "cursor") from None
    return [value, id]


FIRST, MOST_FIRST, MOST_DEPTH, MOST_COST, MOST_SPREADS, MOST_TOKENS = 20, 200, 5, 1000, 10, 1000
first = {"first": GraphQLArgument(GraphQLNonNull(GraphQLInt), default_value=FIRST)}


def from_dict(source, info, **arguments):
    value = source[info.field_name]
    return value[: arguments["first"]] if "first" in arguments else value


def fields(**types):
    return {name: GraphQLField(kind, resolve=from_dict) for name, kind in types.items()}


Text = GraphQLNonNull(GraphQLString)
Order = GraphQLObjectType(
    "Order",
    lambda: fields(id=Text, item=Text, quantity=GraphQLNonNull(GraphQLInt), state=Text, user=User),
)
User = GraphQLObjectType(
    "User",
    lambda: fields(id=Text, name=Text, email=Text) | {"orders": GraphQLField(GraphQLList(Order), first, from_dict)},
)


def schema(users) -> GraphQLSchema:
    """`users` is a function of a number: so many users, each with its orders. One query for all of them, and not one for each."""

    async def resolve(_source, _info, first):
        return await users(first)

    return GraphQLSchema(GraphQLObjectType("Query", {"users": GraphQLField(GraphQLList(User), first, resolve)}))


class Spreads(Visitor):
    def __init__(self):
        super().__init__()
        self.count = 0

    def enter_fragment_spread(self, _node: FragmentSpreadNode, *_):
        self.count += 1


def cost_of(selection_set, fragments: dict, variables: dict, depth: int = 1) -> int:
    """How much a query asks for, before anything is fetched: each list counts its `first` times."""
    if depth > MOST_DEPTH:
        raise GraphQLError(f"The query is more than {MOST_DEPTH} deep.")
    cost = 0
    for node in selection_set.selections:
        if node.kind == "fragment_spread":
            cost += cost_of(fragments[node.name.value].selection_set, fragments, variables, depth)
        elif node.kind == "inline_fragment":
            cost += cost_of(node.selection_set, fragments, variables, depth)
        else:
            times = 1
            if node.name.value in ("users", "orders"):
                given = next((it.value for it in node.arguments or () if it.name.value == "first"), None)
                is_variable = given is not None and given.kind == "variable"
                times = variables.get(given.name.value, FIRST) if is_variable else int(given.value) if given else FIRST
                if not isinstance(times, int) or not 0 <= times <= MOST_FIRST:
                    raise GraphQLError(f"`first` is 0 to {MOST_FIRST}.")
            inner = cost_of(node.selection_set, fragments, variables, depth + 1) if node.selection_set else 0
            cost += times * (1 + inner) if node.selection_set else 1
    return cost


async def answered(schema: GraphQLSchema, query: str, variables: dict) -> dict:
    try:
        document = parse(query, max_tokens=MOST_TOKENS)
        spreads = Spreads()
        visit(document, spreads)
        # Before the validation, which follows fragments as well.
        if spreads.count > MOST_SPREADS:
            raise GraphQLError(f"The query spreads more than {MOST_SPREADS} fragments.")
        if errors := validate(schema, document):
            return {"data": None, "errors": [{"message": error.message} for error in errors]}
        fragments = {it.name.value: it for it in document.definitions if it.kind == "fragment_definition"}
        costs = [cost_of(it.selection_set, fragments, variables) for it in document.definitions if it.kind != "fragment_definition"]
        if sum(costs) > MOST_COST:
            raise GraphQLError(f"The query asks for {sum(costs)}, and {MOST_COST} is the most.")
        result = execute(schema, document, variable_values=variables)
        result = await result if hasattr(result, "__await__") else result
    except (GraphQLError, RecursionError) as error:
        return {"data": None, "errors": [{"message": getattr(error, "message", "The query is too deep.")}]}
    errors = [{"message": error.message} for error in result.errors or []]
    return {"data": result.data} | ({"errors": errors} if errors else {})


orders = APIRouter(route_class=edge.StrictRoute)


class NewOrder(Model):
    item: Annotated[Line, Field(max_length=200)]
    quantity: Annotated[int, Field(ge=1, le=1000)]


def order_shown(row) -> dict:
    path = f"/orders/{row['id']}"
    links = {"self": {"href": path}} | ({"cancellation": {"href": f"{path}/cancellation"}} if row["state"] == "open" else {})
    return {"id": str(row["id"])} | {name: row[name] for name in ("item", "quantity", "state")} | {"_links": links}


async def orders_of(pool, users: list) -> dict[str, list]:
    rows = await pool.fetch("select * from orders where user_id = any($1) order by number desc", users)
    found = {}
    for row in rows:
        found.setdefault(str(row["user_id"]), []).append(order_shown(row))
    return found


@orders.post("/users/{id:id}/orders")
async def order(id: str, order: NewOrder, request: Request):
    try:
        row = await request.app.state.pool.fetchrow(
            "insert into orders (id, user_id, item, quantity) values ($1, $2, $3, $4) returning *",
            uuid.uuid4(), id, order.item, order.quantity,
        )  # fmt: skip
    except asyncpg.ForeignKeyViolationError:
        raise Problem(404, "There is no such user.") from None
    return JSONResponse(order_shown(row), 201, {"Location": f"/orders/{row['id']}"})


@orders.api_route("/users/{id:id}/orders", methods=["GET", "HEAD"])
async def list_orders(id: str, request: Request):
    pool = request.app.state.pool
    if not await pool.fetchval("select exists (select from users where id = $1)", id):
        raise Problem(404, "There is no such user.")
    return {"items": (await orders_of(pool, [id])).get(id, [])}


@orders.api_route("/orders/{id:id}", methods=["GET", "HEAD"])
async def read_order(id: str, request: Request):
    row = await request.app.state.pool.fetchrow("select * from orders where id = $1", id)
    if not row:
        raise Problem(404, "There is no such order.")
    return order_shown(row)


async def move(request: Request, id: str, state: str):
    """Again is the same. Of two moves at once, the second one waits for the row and then sees the first."""
    row = await request.app.state.pool.fetchrow(
        "update orders set state = $2 where id = $1 and state in ('open', $2) returning *", id, state
    )
    if not row:
        raise Problem(409, f"This order is {(await read_order(id, request))['state']}.")
    return order_shown(row)


@orders.post("/orders/{id:id}/cancellation")
async def cancel(id: str, request: Request):
    return await move(request, id, "cancelled")


@orders.post("/orders/{id:id}/shipment")
async def ship(id: str, request: Request):
    return await move(request, id, "shipped")


async def users_with_orders(pool, most: int) -> list[dict]:
    rows = await pool.fetch("select id, name, email from users order by created_at, id limit $1", most)
    found = await orders_of(pool, [row["id"] for row in rows])
    users = [dict(row) | {"id": str(row["id"]), "orders": found.get(str(row["id"]), [])} for row in rows]
    for user in users:
        user["orders"] = [order | {"user": user} for order in user["orders"]]
    return users
