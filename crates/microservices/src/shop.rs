//! How does one page become of what five modules know?
//!
//! The shop sees the modules only through [`Reach`], so the same code runs in the monolith and in the gateway.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use futures_util::{
    StreamExt, TryStreamExt,
    future::{join_all, try_join},
    stream,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::call::{Call, Span, Spans};
use crate::catalogue::{Catalogue, Product};
use crate::error::{Error, Result};
use crate::module::Module;
use crate::orders::{Line, Order, Orders};
use crate::payments::Payments;
use crate::peer::{Patience, Peer, VERSION};
use crate::pricing::{Pricing, Question};
use crate::reach::Reach;
use crate::recommendations::Recommendations;

/// How a history is put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Each order asks for its product and its payment
    Loop,
    /// All products and all payments are asked for at once
    #[default]
    Batch,
    /// From what the orders have heard
    Copy,
}

/// A product with what goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The product, with its price of now.
    #[serde(flatten)]
    pub item: Product,
    /// What others bought too. `null` if it cannot be known at the moment.
    pub recommendations: Option<Vec<Product>>,
}

/// All modules, here or elsewhere.
#[derive(Clone, Debug)]
pub struct Shop {
    /// What is sold.
    pub catalogue: Reach<Catalogue>,
    /// What it costs.
    pub pricing: Reach<Pricing>,
    /// What was ordered.
    pub orders: Reach<Orders>,
    /// What was paid.
    pub payments: Reach<Payments>,
    /// What goes with it.
    pub recommendations: Reach<Recommendations>,
    /// Those that are elsewhere.
    pub peers: BTreeMap<Module, Arc<Peer>>,
    /// How they are asked.
    pub patience: Patience,
    /// What this process did.
    pub spans: Arc<Spans>,
}

impl Shop {
    // ANCHOR: page
    /// A product's page: seven calls if two products go with it. Those that need nothing of each other are under way at the
    /// same time, so it takes as long as three. It is shown without recommendations if they fail: that sells more than no page.
    pub async fn page(&self, call: &Call, id: i64) -> Result<Page> {
        let at_once = if self.patience.one_by_one { 1 } else { 16 };
        let others = async {
            let others = self.recommendations.with(call, id).await?;
            // Whoever is asked for two and tells of thousands must not make us ask for them all.
            let items = stream::iter(others).take(10).map(|id| self.item(call, id));
            items.buffered(at_once).try_collect::<Vec<_>>().await
        };
        let unless_essential = async {
            match others.await {
                // Refused: a product that the catalogue does not have. Nobody asked for that one.
                Err(Error::Upstream(..) | Error::Refused(..)) if !self.patience.no_fallback => {
                    Ok(None)
                }
                others => others.map(Some),
            }
        };
        let item = self.item(call, id);
        let (item, recommendations) = match at_once {
            1 => (item.await?, unless_essential.await?),
            _ => try_join(item, unless_essential).await?,
        };
        Ok(Page { item, recommendations })
    }
    // ANCHOR_END: page

    /// A product with what one of it costs now.
    async fn item(&self, call: &Call, id: i64) -> Result<Product> {
        let product = self.catalogue.product(call, id).await?;
        let question = Question { cents: product.cents, quantity: 1 };
        let quote = self.pricing.quote(call, question).await?;
        Ok(Product { cents: quote.cents, ..product })
    }

    // ANCHOR: history
    /// A customer's orders, with the names of the products and whether they were paid: data of three modules.
    pub async fn history(&self, call: &Call, customer: i64, by: By) -> Result<Vec<Line>> {
        if by == By::Copy {
            return self.orders.lines(call, customer).await;
        }
        let orders = self.orders.of(call, customer).await?;
        let chunk = if by == By::Loop { 1 } else { 100 };
        let (mut names, mut paid) = (HashMap::new(), Vec::new());
        for some in orders.chunks(chunk) {
            let products: Vec<_> = some.iter().map(|it| it.product).collect();
            let payments: Vec<_> = some.iter().map(|it| it.payment).collect();
            let products = self.catalogue.products(call, products);
            let (found, known) = try_join(products, self.payments.known(call, payments)).await?;
            names.extend(found.into_iter().map(|it| (it.id, it.name)));
            paid.extend(known);
        }
        let line = |order: Order| Line {
            name: names.get(&order.product).cloned(),
            paid: paid.contains(&order.payment),
            order,
        };
        Ok(orders.into_iter().map(line).collect())
    }
    // ANCHOR_END: history

    // ANCHOR: trace
    /// All spans of a trace, from all services that answer, in the order of their beginning by their own clocks.
    pub async fn trace(&self, id: u128) -> Result<Value> {
        let path = &format!("/internal/spans/{id:032x}");
        let asked = self.peers.values().map(|peer| peer.look::<Vec<Span>>(path));
        let mut spans = self.spans.of(id);
        spans.extend(join_all(asked).await.into_iter().flatten().flatten());
        spans.sort_by_key(|it| it.at);
        let slowest = spans.iter().max_by_key(|it| own_micros(it, &spans));
        let slowest = slowest.ok_or(Error::NOT_FOUND)?.clone();
        Ok(json!({ "trace": format!("{id:032x}"), "slowest": slowest, "spans": spans }))
    }
    // ANCHOR_END: trace

    /// What runs where, and how it is. Whoever keeps another contract is as good as away.
    pub async fn topology(&self) -> Value {
        let ask = |module: Module| async move {
            let peer = self.peers.get(&module);
            let about = match peer {
                Some(peer) => peer.look("/internal/about").await.unwrap_or_default(),
                None => json!({ "version": env!("CARGO_PKG_VERSION"), "contract": VERSION }),
            };
            let urls = peer.map(|it| it.urls()).unwrap_or_default();
            let (version, healthy) = (&about["version"], about["contract"] == VERSION);
            json!({ "module": module.name(), "urls": urls, "healthy": healthy, "version": version })
        };
        json!({ "modules": join_all(Module::SERVICES.map(ask)).await })
    }
}

// ANCHOR: own
/// The time of a span without that of the longest one within it. It compares no clocks of different services.
pub fn own_micros(span: &Span, all: &[Span]) -> u64 {
    let within = all.iter().filter(|it| it.parent == span.id).map(|it| it.micros).max();
    span.micros.saturating_sub(within.unwrap_or(0))
}
// ANCHOR_END: own

#[cfg(test)]
mod tests {
    use time::{Duration, OffsetDateTime};

    use super::*;

    fn span(id: &str, parent: &str, micros: u64) -> Span {
        Span {
            id: id.into(),
            parent: parent.into(),
            service: "some".into(),
            name: id.to_owned().into(),
            // By a clock of its own: what is within the page seems to begin years before it.
            at: OffsetDateTime::UNIX_EPOCH + Duration::days(if id == "page" { 9_999 } else { 0 }),
            micros,
            failed: false,
        }
    }

    #[test]
    fn a_spans_own_time_is_without_that_of_the_longest_within_it() {
        let all = [
            span("page", "", 100),
            span("a", "page", 60),
            span("b", "page", 90),
            span("c", "b", 95),
        ];
        let own: Vec<_> = all.iter().map(|it| own_micros(it, &all)).collect();
        // The clock of another service may say that a part took longer than the whole.
        assert_eq!(own, [10, 60, 0, 95]);
    }
}
