//! What may be done with an order now? An order is a state machine, and its links are the moves that it allows.

use edge::{Mistakes, text::is_line};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, serde::rfc3339};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::links::{self, Linked};

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
/// A move of an order: its name, where the order has to stand, and where it stands then. The links of an order are made of
/// these, and a move that starts elsewhere gets 409: so no client needs a copy of the rules.
pub type Move = (&'static str, State, State);

/// Somebody does not want it any more.
pub const CANCEL: Move = ("cancellation", State::Open, State::Cancelled);
/// It leaves.
pub const SHIP: Move = ("shipment", State::Open, State::Shipped);

impl Order {
    /// As clients see it: with a link for each move that it allows now.
    pub fn linked(self) -> Linked<Self> {
        let (order, user, state) = (links::order(self.id), links::user(self.user_id), self.state);
        let moves = [CANCEL, SHIP].into_iter().filter(|(_, from, _)| *from == state);
        let moves = moves.map(|(name, ..)| (name, format!("{order}/{name}")));
        Linked::new(self, moves.chain([("self", order.clone()), ("user", user)]))
    }
}
// ANCHOR_END: moves

/// A row of `orders`.
#[derive(Clone, Debug, Serialize, sqlx::FromRow, ToSchema)]
pub struct Order {
    /// Ours.
    pub id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// What was ordered.
    pub item: String,
    /// And how many of it.
    pub quantity: i32,
    /// Where it stands.
    pub state: State,
    /// Another one after each move.
    pub version: i64,
    /// When it was ordered.
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
    pub fn parse(self) -> Result<(String, i32)> {
        let mut mistakes = Mistakes::default();
        let item = mistakes.note("item", short_line(&self.item, 200));
        let few = (1..=1_000).contains(&self.quantity).then_some(self.quantity);
        let quantity = mistakes.note("quantity", few.ok_or("must be from 1 to 1000"));
        mistakes.finish(item.map(str::to_owned).zip(quantity)).map_err(Error::Invalid)
    }
}

/// One printable line, which is not blank.
pub fn short_line(text: &str, longest: usize) -> std::result::Result<&str, String> {
    let fits = !text.trim().is_empty() && text.chars().count() <= longest && is_line(text);
    fits.then_some(text).ok_or_else(|| format!("must be one line of 1 to {longest} characters"))
}
