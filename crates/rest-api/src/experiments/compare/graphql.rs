//! The same question in another way: the client says what it wants, in a query that it has made up. GraphQL, and the
//! limits without which nobody knows what a query costs.

use std::sync::Arc;

use async_graphql::{
    Context, EmptyMutation, EmptySubscription, Object, Request, Response, Result, Schema,
    ServerError,
};
use axum::Extension;
use edge::Json;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::Error,
    order::{Order, State},
    page::PageQuery,
    store::Store,
    user::User,
};

/// The schema of queries.
type Api = Schema<Query, EmptyMutation, EmptySubscription>;

/// Its one call.
pub fn calls(store: Store, limited: bool) -> OpenApiRouter<Store> {
    OpenApiRouter::new().routes(routes!(graphql)).layer(Extension(schema(store, limited)))
}

// ANCHOR: limits
/// A query of the graph. Its own errors come with 200, as GraphQL clients expect it.
#[utoipa::path(post, path = "/graphql", request_body = Object, responses((status = 200, body = Object), Error))]
async fn graphql(Extension(api): Extension<Api>, Json(query): Json<Request>) -> Json<Response> {
    // The price is computed by walking each fragment wherever it is spread. Thirty, each of which spreads the next one three
    // times, would never be priced.
    if query.query.matches("...").count() > 10 {
        let error = ServerError::new("a query spreads at most ten fragments", None);
        return Json(Response::from_errors(vec![error]));
    }
    Json(api.execute(query).await)
}

/// The schema, with limits unless an experiment wants to see what happens without.
fn schema(store: Store, limited: bool) -> Api {
    let schema = Schema::build(Query, EmptyMutation, EmptySubscription).data(store);
    // Both are computed from the query, before any of it is done. Depth alone would let `users(first: 200)` of orders of
    // a hundred through; complexity alone is hard to explain to a client.
    if limited { schema.limit_depth(4).limit_complexity(10_000) } else { schema }.finish()
}

/// What a list costs: what is asked of each item, as often as there may be items. The bound keeps the sum a number.
fn many(first: i32, each: usize) -> usize {
    usize::try_from(first).unwrap_or(0).saturating_mul(each).min(1_000_000)
}
// ANCHOR_END: limits

/// Where a query begins.
struct Query;

#[Object]
impl Query {
    /// The users, the oldest first.
    #[graphql(complexity = "many(first, 1 + child_complexity)")]
    async fn users(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 20)] first: i32,
    ) -> Result<Vec<UserNode>> {
        // All orders in one statement, and only if they are asked for. A resolver that asks for each user by itself is
        // the N+1 of REST again, inside the server.
        let orders = if ctx.look_ahead().field("orders").exists() { "&include=orders" } else { "" };
        let page = PageQuery::parse(&format!("limit={first}{orders}"))?;
        let mut users = ctx.data::<Store>()?.page(&page).await?;
        users.truncate(usize::try_from(first)?);
        Ok(users.into_iter().map(|user| UserNode(Arc::new(user))).collect())
    }
}

#[derive(Clone)]
struct UserNode(Arc<User>);

/// A user.
#[Object(name = "User")]
impl UserNode {
    async fn id(&self) -> String {
        self.0.id.to_string()
    }

    async fn name(&self) -> &str {
        &self.0.name
    }

    async fn email(&self) -> &str {
        &self.0.email
    }

    #[graphql(complexity = "many(first, 1 + child_complexity)")]
    async fn orders(&self, #[graphql(default = 20)] first: i32) -> Vec<OrderNode> {
        let orders = self.0.orders.iter().flatten().take(usize::try_from(first).unwrap_or(0));
        orders
            .map(|order| OrderNode { order: order.resource.clone(), user: self.clone() })
            .collect()
    }
}

struct OrderNode {
    order: Order,
    user: UserNode,
}

/// An order.
#[Object(name = "Order")]
impl OrderNode {
    async fn id(&self) -> String {
        self.order.id.to_string()
    }

    async fn item(&self) -> &str {
        &self.order.item
    }

    async fn quantity(&self) -> i32 {
        self.order.quantity
    }

    async fn state(&self) -> &'static str {
        match self.order.state {
            State::Open => "open",
            State::Shipped => "shipped",
            State::Cancelled => "cancelled",
        }
    }

    /// Whose it is: from here a query can go round in circles.
    async fn user(&self) -> UserNode {
        self.user.clone()
    }
}
