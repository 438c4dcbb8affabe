//! Who does what when which event comes? To see what follows on what, all of this has to be read: that is the price
//! of nobody being in charge.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    order::Order,
    participants::body,
    payment,
    saga::Call,
    shipping,
    store::{
        calls::{Answer, Asked},
        inventory as stock, outbox, payment as ledger, shipping as parcels,
    },
};

/// Who reacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Takes orders, and hears how they ended.
    Orders,
    /// Has the stock.
    Inventory,
    /// Moves the money.
    Payment,
    /// Sends the parcel.
    Shipping,
}

/// Something that has happened. It carries the order, so that nobody has to ask back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    /// The inbox knows it by this.
    pub id: Uuid,
    /// `payment.charged`, also its routing key.
    pub kind: String,
    /// To which order.
    pub order_id: Uuid,
    /// The order.
    pub order: Order,
}

impl Event {
    /// One that has just happened.
    pub fn new(kind: &str, order_id: Uuid, order: Order) -> Self {
        Self { id: Uuid::now_v7(), kind: kind.to_owned(), order_id, order }
    }

    /// As it travels.
    pub fn to_json(&self) -> Value {
        serde_json::json!({
            "id": self.id, "kind": self.kind, "order_id": self.order_id, "order": self.order,
        })
    }
}

impl Service {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Orders, Self::Inventory, Self::Payment, Self::Shipping];

    /// The name of its queue.
    pub fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Inventory => "inventory",
            Self::Payment => "payment",
            Self::Shipping => "shipping",
        }
    }

    // ANCHOR: reactions
    /// The events that it listens to.
    pub fn listens_to(self) -> &'static [&'static str] {
        match self {
            Self::Orders => &[
                "payment.declined",
                "shipment.refused",
                "stock.refused",
                "stock.released",
                "stock.sold",
            ],
            Self::Inventory => {
                &["order.placed", "payment.declined", "payment.refunded", "shipment.booked"]
            }
            Self::Payment => &["shipment.refused", "stock.reserved"],
            Self::Shipping => &["payment.charged"],
        }
    }

    /// Reacts to an event in the transaction given; the event that follows, if one does.
    pub async fn react(
        self,
        connection: &mut PgConnection,
        event: &Event,
    ) -> sqlx::Result<Option<&'static str>> {
        let (id, order) = (event.order_id, &event.order);
        let asked = |call: Call| Asked {
            order_id: id,
            key: format!("{id}.{call}"),
            request: body(call, id, order),
        };
        let or = |answer: Answer, done, refused| {
            Some(if answer == Answer::Done { done } else { refused })
        };
        Ok(match (self, event.kind.as_str()) {
            (Self::Inventory, "order.placed") => {
                let answer = stock::reserve(connection, &asked(Call::Reserve)).await?;
                or(answer, "stock.reserved", "stock.refused")
            }
            (Self::Payment, "stock.reserved") => {
                let refusal = payment::refusal(&order.payment_method);
                let answer = ledger::charge(connection, &asked(Call::Charge), refusal).await?;
                or(answer, "payment.charged", "payment.declined")
            }
            (Self::Shipping, "payment.charged") => {
                let refusal = shipping::refusal(&order.address.country);
                let answer = parcels::book(connection, &asked(Call::Book), refusal).await?;
                or(answer, "shipment.booked", "shipment.refused")
            }
            (Self::Inventory, "shipment.booked") => {
                let answer = stock::sell(connection, &asked(Call::Sell)).await?;
                or(answer, "stock.sold", "stock.not_sold")
            }
            (Self::Payment, "shipment.refused") => {
                ledger::refund(connection, &asked(Call::Refund)).await?;
                Some("payment.refunded")
            }
            (Self::Inventory, "payment.declined" | "payment.refunded") => {
                stock::release(connection, &asked(Call::Release)).await?;
                Some("stock.released")
            }
            (Self::Orders, kind) => {
                let status = match kind {
                    "stock.sold" => "confirmed",
                    "stock.refused" | "stock.released" => "cancelled",
                    _ => "cancelling",
                };
                outbox::set_status(connection, id, status).await?;
                None
            }
            _ => None,
        })
    }
    // ANCHOR_END: reactions
}
