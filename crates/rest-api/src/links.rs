//! Where is what? A client finds each URL in an answer, so it needs to build none.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// Where a link leads.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Link {
    /// A path on this server.
    href: String,
}

// ANCHOR: links
/// A resource as clients see it, with links by their relation: `{"self": {"href": "/users/…"}}`, as in HAL.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Linked<T> {
    /// The resource itself.
    #[serde(flatten)]
    pub resource: T,
    _links: BTreeMap<&'static str, Link>,
}

impl<T> Linked<T> {
    /// From this resource, each relation leads to this path.
    pub fn new(resource: T, links: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let links = links.into_iter().map(|(relation, href)| (relation, Link { href }));
        Self { resource, _links: links.collect() }
    }
}

/// The path of a user.
pub fn user(id: Uuid) -> String {
    format!("/users/{id}")
}

/// The path of an order.
pub fn order(id: Uuid) -> String {
    format!("/orders/{id}")
}
// ANCHOR_END: links

/// Resources in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Items<T> {
    /// In the order that was asked for.
    pub items: Vec<T>,
}
