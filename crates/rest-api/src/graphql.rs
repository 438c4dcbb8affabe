//! What does one question cost that the client has made up? GraphQL, and the two limits without which it has none.

use std::sync::Arc;

use async_graphql::{Context, EmptyMutation, EmptySubscription, Object, Result, Schema};

use crate::{order::Order, store::Store, user::User};

/// The schema of queries.
pub type Api = Schema<Query, EmptyMutation, EmptySubscription>;

// ANCHOR: limits
/// The schema, with limits unless a reader wants to see what happens without.
pub fn schema(store: Store, limited: bool) -> Api {
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
#[derive(Debug)]
pub struct Query;

#[Object]
impl Query {
    /// The users, the oldest first.
    #[graphql(complexity = "many(first, 1 + child_complexity)")]
    async fn users(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 20)] first: i32,
    ) -> Result<Vec<UserNode>> {
        let store = ctx.data::<Store>()?;
        let page = crate::page::PageQuery::parse(&format!("limit={first}"))?;
        let mut users = store.page(&page).await?;
        users.truncate(usize::try_from(first)?);
        // All orders in one statement, and only if they are asked for. A resolver that asks for each user by itself is
        // the N+1 of REST again, inside the server.
        let wanted = ctx.look_ahead().field("orders").exists();
        let ids: Vec<_> = users.iter().filter(|_| wanted).map(|user| user.id).collect();
        let orders = if wanted { store.orders_of(&ids).await? } else { Vec::new() };
        let node = |user: User| {
            let orders = orders.iter().filter(|order| order.user_id == user.id).cloned();
            UserNode { orders: orders.collect(), user: Arc::new(user) }
        };
        Ok(users.into_iter().map(node).collect())
    }
}

#[derive(Clone)]
struct UserNode {
    user: Arc<User>,
    orders: Arc<[Order]>,
}

/// A user.
#[Object(name = "User")]
impl UserNode {
    async fn id(&self) -> String {
        self.user.id.to_string()
    }

    async fn name(&self) -> &str {
        &self.user.name
    }

    async fn email(&self) -> &str {
        &self.user.email
    }

    #[graphql(complexity = "many(first, 1 + child_complexity)")]
    async fn orders(&self, #[graphql(default = 20)] first: i32) -> Vec<OrderNode> {
        let orders = self.orders.iter().take(usize::try_from(first).unwrap_or(0)).cloned();
        orders.map(|order| OrderNode { order, user: self.clone() }).collect()
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

    /// Whose it is: from here a query can go round in circles.
    async fn user(&self) -> UserNode {
        self.user.clone()
    }
}
