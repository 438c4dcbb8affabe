//! Who does what when which event comes? To see which step follows which, one has to read all of this: that is the price
//! when nobody is in charge.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{asked, events, set_status};
use crate::{order::Order, participant::perform, saga::Call, store::calls::Answer};

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
                "stock.not_sold",
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
    async fn react(
        self,
        connection: &mut PgConnection,
        event: &Event,
    ) -> sqlx::Result<Option<&'static str>> {
        let (call, done, refused) = match (self, event.kind.as_str()) {
            (Self::Inventory, "order.placed") => (Call::Reserve, "stock.reserved", "stock.refused"),
            (Self::Payment, "stock.reserved") => {
                (Call::Charge, "payment.charged", "payment.declined")
            }
            (Self::Shipping, "payment.charged") => {
                (Call::Book, "shipment.booked", "shipment.refused")
            }
            (Self::Inventory, "shipment.booked") => (Call::Sell, "stock.sold", "stock.not_sold"),
            (Self::Payment, "shipment.refused") => {
                (Call::Refund, "payment.refunded", "payment.refunded")
            }
            (Self::Inventory, "payment.declined" | "payment.refunded") => {
                (Call::Release, "stock.released", "stock.released")
            }
            (Self::Orders, kind) => {
                let status = match kind {
                    "stock.sold" => "confirmed",
                    "stock.refused" | "stock.released" => "cancelled",
                    // A parcel is booked for items that nobody reserved: a human has to look.
                    "stock.not_sold" => "stuck",
                    _ => "cancelling",
                };
                set_status(connection, event.order_id, status).await?;
                return Ok(None);
            }
            _ => return Ok(None),
        };
        let asked = asked(call, event.order_id, &event.order);
        let is_done = perform(connection, call, &asked).await? == Answer::Done;
        Ok(Some(if is_done { done } else { refused }))
    }
    // ANCHOR_END: reactions

    /// Reacts to an event, unless that was done before, and puts the event that follows into the outbox.
    pub async fn receive(self, connection: &mut PgConnection, event: &Event) -> sqlx::Result<()> {
        if events::receive(connection, event.id).await?
            && let Some(next) = self.react(connection, event).await?
        {
            let next = Event::new(next, event.order_id, event.order.clone());
            events::put(connection, &next.to_json()).await?;
        }
        Ok(())
    }
}
