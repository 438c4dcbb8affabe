// What does a resource need beside its table? Patches, versions by media type, cursors, a graph with bounds; and the orders, whose
// states are moves.
//
// In reading order: `patched`, `chosen`, `cursorOf`, `schema`, `costOf`, `move`.

import jsonPatch from "fast-json-patch";
import {
  GraphQLError, GraphQLInt, GraphQLList, GraphQLNonNull, GraphQLObjectType, GraphQLSchema, GraphQLString, execute, parse, validate,
  visit,
} from "graphql";
import { randomUUID } from "node:crypto";
import * as edge from "../edge.mjs";

const { Problem } = edge;

export const [MERGE_PATCH, JSON_PATCH] = ["application/merge-patch+json", "application/json-patch+json"];
export const [V1, JSON_TYPE] = ["application/vnd.worked-answers.v1+json", "application/json"];
const [MOST_OPERATIONS, LARGEST_DOCUMENT] = [100, 16 * 1024];
const isObject = (it) => it !== null && typeof it === "object" && !Array.isArray(it);

/** RFC 7396. */
function merged(target, patch) {
  if (!isObject(patch)) return patch;
  const fields = new Map(Object.entries(isObject(target) ? target : {}));
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) fields.delete(name);
    else fields.set(name, merged(fields.get(name), value));
  }
  return Object.fromEntries(fields);
}

export function patched(document, mediaType, patch) {
  if (mediaType === MERGE_PATCH) {
    if (!isObject(patch)) throw new Problem(422, "A merge patch is an object here.");
    return merged(document, patch);
  }
  if (!Array.isArray(patch) || !patch.every(isObject)) throw new Problem(422, "A JSON Patch is a list of operations.");
  if (patch.length > MOST_OPERATIONS) throw new Problem(422, `A patch has at most ${MOST_OPERATIONS} operations.`);
  for (const operation of patch) {
    const levels = [operation.path, operation.from].map((it) => String(it ?? "").split("/").length - 1);
    if (Math.max(...levels) > 2) throw new Problem(422, "A path has at most two levels.");
    try {
      // It checks the operation, does not change what it is given, and refuses `__proto__`.
      document = jsonPatch.applyOperation(document, operation, true, false, true).newDocument;
    } catch (error) {
      if (error.name === "TEST_OPERATION_FAILED") throw new Problem(409, "A test does not hold.");
      throw new Problem(422, "An operation cannot be done.");
    }
    // After each: a copy of a copy doubles the document again and again.
    if ((JSON.stringify(document) ?? "").length > LARGEST_DOCUMENT) throw new Problem(422, "The patch makes the document too large.");
  }
  if (!isObject(document)) throw new Problem(422, "The patch makes something that is no user.");
  return document;
}

/** Of the media types that we have, the one that the client likes best. The most specific range that fits counts. */
export function chosen(accept = "*/*") {
  const ranges = new Map();
  for (const part of accept.split(",")) {
    const [name, ...parameters] = part.split(";").map((it) => it.trim().toLowerCase());
    const quality = parameters.find((it) => it.startsWith("q="))?.slice(2) ?? "1";
    if (/^[^/\s]+\/[^/\s]+$/.test(name) && /^(0(\.\d{0,3})?|1(\.0{0,3})?)$/.test(quality)) ranges.set(name, Number(quality));
  }
  const liking = (type) => ranges.get([type, "application/*", "*/*"].find((it) => ranges.has(it))) ?? 0;
  const best = liking(V1) > liking(JSON_TYPE) ? V1 : JSON_TYPE;
  if (!liking(best)) throw new Problem(406, `There is ${JSON_TYPE} and ${V1}.`, { headers: { vary: "Accept" } });
  return best;
}

export const cursorOf = (query, value, id) => Buffer.from(JSON.stringify([query, value, id])).toString("base64url");

/** A place in one order means nothing in another, so the cursor says which it is of. */
export function placeOf(cursor, query) {
  try {
    const bytes = Buffer.from(cursor, "base64url");
    const [of, value, id] = JSON.parse(bytes);
    const good = typeof value === "string" && !value.includes("\0") && new RegExp(`^${edge.UUID}$`).test(id);
    // Node's decoder leaves out what is no base64.
    if (!good || JSON.stringify(of) !== JSON.stringify(query) || bytes.toString("base64url") !== cursor) throw new Error();
    return [value, id];
  } catch {
    throw new Problem(422, "must be the one of the `Link` to the next page", { field: "cursor" });
  }
}

const [FIRST, MOST_FIRST, MOST_DEPTH, MOST_COST, MOST_SPREADS, MOST_TOKENS] = [20, 200, 5, 1000, 10, 1000];
const text = { type: new GraphQLNonNull(GraphQLString) };
const args = { first: { type: new GraphQLNonNull(GraphQLInt), defaultValue: FIRST } };
const Order = new GraphQLObjectType({
  name: "Order",
  fields: () => ({
    id: text, item: text, quantity: { type: new GraphQLNonNull(GraphQLInt) }, state: text, user: { type: User },
  }),
});
const User = new GraphQLObjectType({
  name: "User",
  fields: {
    id: text, name: text, email: text,
    orders: { type: new GraphQLList(Order), args, resolve: ({ orders }, { first }) => orders.slice(0, first) },
  },
});

/** `users` is a function of a number: so many users, each with its orders. One query for all of them, and not one for each. */
export const schema = (users) =>
  new GraphQLSchema({
    query: new GraphQLObjectType({
      name: "Query",
      fields: { users: { type: new GraphQLList(User), args, resolve: (_source, { first }) => users(first) } },
    }),
  });

/** How much a query asks for, before anything is fetched: each list counts its `first` times. */
function costOf({ selections }, fragments, variables, depth = 1) {
  if (depth > MOST_DEPTH) throw new GraphQLError(`The query is more than ${MOST_DEPTH} deep.`);
  let cost = 0;
  for (const node of selections) {
    if (node.kind === "FragmentSpread") {
      cost += costOf(fragments.get(node.name.value).selectionSet, fragments, variables, depth);
    } else if (node.kind === "InlineFragment") {
      cost += costOf(node.selectionSet, fragments, variables, depth);
    } else if (!node.selectionSet) {
      cost += 1;
    } else {
      const first = node.arguments.find(({ name }) => name.value === "first")?.value;
      const given = first?.kind === "Variable" ? variables[first.name.value] : first && Number(first.value);
      const times = ["users", "orders"].includes(node.name.value) ? (given ?? FIRST) : 1;
      if (!(times >= 0 && times <= MOST_FIRST)) throw new GraphQLError(`\`first\` is 0 to ${MOST_FIRST}.`);
      cost += times * (1 + costOf(node.selectionSet, fragments, variables, depth + 1));
    }
  }
  return cost;
}

export async function answered(schema, query, variables) {
  try {
    const document = parse(query, { maxTokens: MOST_TOKENS });
    let spreads = 0;
    visit(document, { FragmentSpread: () => void (spreads += 1) });
    // Before the validation, which follows fragments as well.
    if (spreads > MOST_SPREADS) throw new GraphQLError(`The query spreads more than ${MOST_SPREADS} fragments.`);
    const errors = validate(schema, document);
    if (errors.length) return { data: null, errors: errors.map(({ message }) => ({ message })) };
    const isFragment = ({ kind }) => kind === "FragmentDefinition";
    const fragments = new Map(document.definitions.filter(isFragment).map((it) => [it.name.value, it]));
    const operations = document.definitions.filter((it) => !isFragment(it));
    const cost = operations.reduce((sum, it) => sum + costOf(it.selectionSet, fragments, variables), 0);
    if (cost > MOST_COST) throw new GraphQLError(`The query asks for ${cost}, and ${MOST_COST} is the most.`);
    const result = await execute({ schema, document, variableValues: variables });
    return { data: result.data ?? null, errors: result.errors?.map(({ message }) => ({ message })) };
  } catch (error) {
    const known = error instanceof GraphQLError || error instanceof RangeError;
    if (!known) throw error;
    return { data: null, errors: [{ message: error.message }] };
  }
}

export function orderShown({ id, item, quantity, state }) {
  const links = { self: { href: `/orders/${id}` } };
  if (state === "open") links.cancellation = { href: `/orders/${id}/cancellation` };
  return { id, item, quantity, state, _links: links };
}

export async function ordersOf(pool, users) {
  const { rows } = await pool.query("select * from orders where user_id = any($1) order by number desc", [users]);
  const found = new Map(users.map((id) => [id, []]));
  for (const row of rows) found.get(row.user_id).push(orderShown(row));
  return found;
}

export async function usersWithOrders(pool, most) {
  const { rows: users } = await pool.query("select id, name, email from users order by created_at, id limit $1", [most]);
  const found = await ordersOf(pool, users.map(({ id }) => id));
  for (const user of users) user.orders = found.get(user.id).map((order) => ({ ...order, user }));
  return users;
}

export function serveOrders(app, pool) {
  async function order({ params, body: { item, quantity } }, reply) {
    const id = randomUUID();
    try {
      const insert = "insert into orders (id, user_id, item, quantity) values ($1, $2, $3, $4) returning *";
      const { rows: [row] } = await pool.query(insert, [id, params.id, item, quantity]);
      return reply.code(201).header("location", `/orders/${id}`).send(orderShown(row));
    } catch (error) {
      throw error.constraint === "orders_user_id_fkey" ? new Problem(404, "There is no such user.") : error;
    }
  }

  async function list({ params: { id } }) {
    const { rowCount } = await pool.query("select from users where id = $1", [id]);
    if (!rowCount) throw new Problem(404, "There is no such user.");
    return { items: (await ordersOf(pool, [id])).get(id) };
  }

  async function read({ params: { id } }) {
    const { rows: [row] } = await pool.query("select * from orders where id = $1", [id]);
    if (!row) throw new Problem(404, "There is no such order.");
    return orderShown(row);
  }

  /** Again is the same. Of two moves at once, the second one waits for the row and then sees the first. */
  const move = (to) => async (request) => {
    const update = "update orders set state = $2 where id = $1 and state in ('open', $2) returning *";
    const { rows: [row] } = await pool.query(update, [request.params.id, to]);
    if (!row) throw new Problem(409, `This order is ${(await read(request)).state}.`);
    return orderShown(row);
  };

  const item = { type: "string", minLength: 1, maxLength: 200, format: "line" };
  const body = edge.object({ item, quantity: { type: "integer", minimum: 1, maximum: 1000 } });
  const ID = `:id(^${edge.UUID}$)`;
  app.post(`/users/${ID}/orders`, { schema: { body } }, order);
  app.get(`/users/${ID}/orders`, list);
  app.get(`/orders/${ID}`, read);
  app.post(`/orders/${ID}/cancellation`, move("cancelled"));
  app.post(`/orders/${ID}/shipment`, move("shipped"));
}
