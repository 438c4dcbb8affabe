//! Where is what? Every URL that a client sees is made here, so it needs to build none.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// Links by their relation: `{"self": {"href": "/users/…"}}`, as in HAL.
pub type Links = BTreeMap<&'static str, Link>;

/// Where a link leads.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Link {
    /// A path on this server.
    pub href: String,
}

// ANCHOR: urls
/// The URLs of this server, all of them below one prefix.
#[derive(Clone, Debug)]
pub struct Urls(pub String);

impl Urls {
    /// This path, below the prefix.
    pub fn to(&self, path: &str) -> Link {
        Link { href: format!("{}{path}", self.0) }
    }

    /// From the entry point: all that a client has to know.
    pub fn of_entry(&self) -> Links {
        let calls =
            [("self", "/"), ("users", "/users"), ("graphql", "/graphql"), ("docs", "/docs")];
        calls.map(|(relation, path)| (relation, self.to(path))).into()
    }

    /// From a user.
    pub fn of_user(&self, id: Uuid) -> Links {
        let user = format!("/users/{id}");
        [("self", self.to(&user)), ("orders", self.to(&format!("{user}/orders")))].into()
    }

    /// From the list of a user's orders.
    pub fn of_orders(&self, user: Uuid) -> Links {
        let user = format!("/users/{user}");
        [("self", self.to(&format!("{user}/orders"))), ("user", self.to(&user))].into()
    }

    /// From an order, with a link for each move that it allows.
    pub fn of_order(
        &self,
        id: Uuid,
        user: Uuid,
        moves: impl Iterator<Item = &'static str>,
    ) -> Links {
        let order = format!("/orders/{id}");
        let moves = moves.map(|name| (name, self.to(&format!("{order}/{name}"))));
        let always = [("self", self.to(&order)), ("user", self.to(&format!("/users/{user}")))];
        moves.chain(always).collect()
    }
}
// ANCHOR_END: urls
