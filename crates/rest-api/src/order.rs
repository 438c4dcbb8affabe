//! What may be done with an order now? An order is a state machine, and its links are the moves that it allows.

use edge::{FieldError, text::is_line};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, serde::rfc3339};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::Error;
use crate::links::{Links, Urls};

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum State {
    /// It may still be shipped or cancelled.
    Open,
    /// It has left; nothing brings it back.
    Shipped,
    /// It will never be shipped.
    Cancelled,
}

// ANCHOR: moves
impl State {
    /// The names of the moves that are allowed now, and where each leads. The links of an order are made from this, and a
    /// move that is not here gets 409: so no client needs a copy of these rules.
    pub fn moves(self) -> &'static [(&'static str, Self)] {
        match self {
            Self::Open => &[("cancellation", Self::Cancelled), ("shipment", Self::Shipped)],
            Self::Shipped | Self::Cancelled => &[],
        }
    }

    /// Whether this is where the move leads from `Open`.
    pub fn is_after(self, name: &str) -> bool {
        Self::Open.moves().contains(&(name, self))
    }
}
// ANCHOR_END: moves

/// A row of `orders`.
#[derive(Clone, Debug, Serialize, sqlx::FromRow, ToSchema)]
#[expect(missing_docs, reason = "the columns say it")]
pub struct Order {
    pub id: Uuid,
    pub user_id: Uuid,
    pub item: String,
    pub quantity: i32,
    pub state: State,
    pub version: i64,
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
}

/// What a client orders.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with `item` and `quantity`")]
pub struct OrderInput {
    #[schema(min_length = 1, max_length = 200, example = "tea")]
    item: String,
    #[schema(minimum = 1, maximum = 1000, example = 2)]
    quantity: i32,
}

impl OrderInput {
    /// The item, and how many of it.
    pub fn parse(self) -> Result<(String, i32), Error> {
        let mut errors = Vec::new();
        if !is_short_line(&self.item, 200) {
            errors.push(FieldError::new("item", "must be one line of 1 to 200 characters"));
        }
        if !(1..=1_000).contains(&self.quantity) {
            errors.push(FieldError::new("quantity", "must be from 1 to 1000"));
        }
        if errors.is_empty() { Ok((self.item, self.quantity)) } else { Err(Error::Invalid(errors)) }
    }
}

/// One printable line, which is not blank.
pub fn is_short_line(text: &str, longest: usize) -> bool {
    !text.trim().is_empty() && text.chars().count() <= longest && is_line(text)
}

/// An order, as clients see it.
#[derive(Debug, Serialize, ToSchema)]
pub struct OrderBody {
    #[serde(flatten)]
    order: Order,
    _links: Links,
}

impl OrderBody {
    /// With the moves that the order allows now.
    pub fn new(order: Order, urls: &Urls) -> Self {
        let moves = order.state.moves().iter().map(|(name, _)| *name);
        Self { _links: urls.of_order(order.id, order.user_id, moves), order }
    }
}
