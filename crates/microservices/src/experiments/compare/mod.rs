//! What is beside the shop, or compared with it: RabbitMQ between services ([`broker`]) and a naive writer of events
//! ([`dual_write`]), the strangler before both shapes ([`strangler`]), tests of contracts and tables ([`contract`]), bugs that
//! a module may have ([`bug`]), other programs in the place of pricing ([`pricing`]), pricing over gRPC ([`grpc`]), and a report
//! that reads others' tables ([`report`]). Spans for a collector ([`otlp`]). And where services are, if they move ([`registry`]).

pub mod broker;
pub mod bug;
pub mod contract;
pub mod dual_write;
pub mod grpc;
pub mod otlp;
pub mod pricing;
pub mod registry;
pub mod report;
pub mod strangler;

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context;
use axum::Router;
use lab::{Service, Serving};

use self::broker::Broker;
use crate::call::Spans;
use crate::module::{Database, Module};
use crate::peer::Peer;

/// What `serve` understands beside the shop itself.
#[derive(clap::Args, Clone, Debug)]
pub struct Beside {
    /// Carries events over RabbitMQ; what the names there begin with. Without it, the events of a service wait in its outbox
    #[arg(long, value_name = "PREFIX")]
    events: Option<String>,
    /// The broker, if not the one that is found
    #[arg(long, value_name = "URL")]
    amqp_url: Option<String>,
    /// Stands before a monolith and a gateway, and moves routes from this one ...
    #[arg(long, value_name = "URL", requires = "modern")]
    legacy: Option<String>,
    /// ... to this one
    #[arg(long, value_name = "URL", requires = "legacy")]
    modern: Option<String>,
    /// Adds the naive way to write an order and to tell of it: `POST /naive-orders`
    #[arg(long)]
    dual_write: bool,
    /// Adds `PUT /admin/services/{name}`, which says where a service is. For a gateway that only operators can reach
    #[arg(long)]
    admin: bool,
    /// Sends spans to a collector, as OTLP over HTTP: `http://127.0.0.1:4318`
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// Adds a module's bugs, to be set off: `POST /bug/leak`, `/bug/panic`, `/bug/abort`
    #[arg(long)]
    with_bugs: bool,
}

impl Beside {
    /// The strangler, if that is asked for.
    pub fn strangler(&self) -> anyhow::Result<Option<Router>> {
        let both = self.legacy.clone().zip(self.modern.clone());
        both.map(|(legacy, modern)| strangler::router(legacy, modern)).transpose()
    }

    /// Where events go, if they go anywhere.
    pub async fn broker(&self, serving: &Serving) -> anyhow::Result<Option<Broker>> {
        let Some(prefix) = self.events.clone() else { return Ok(None) };
        let url = match &self.amqp_url {
            Some(url) => url.clone(),
            None => serving.server(Service::RabbitMq).await?,
        };
        Ok(Some(Broker { url, prefix }))
    }

    /// Sends spans if there is a collector. It does not end.
    pub async fn export(&self, spans: Arc<Spans>) -> anyhow::Result<()> {
        match &self.otlp {
            Some(collector) => Ok(otlp::export(spans, collector.clone()).await?),
            None => std::future::pending().await,
        }
    }

    /// The calls that were asked for, beside these.
    pub async fn add(
        &self,
        router: Router,
        serving: &Serving,
        database: Option<&Database>,
        peers: BTreeMap<Module, Arc<Peer>>,
    ) -> anyhow::Result<Router> {
        let mut router = router;
        if self.admin {
            router = router.merge(registry::router(peers));
        }
        if self.dual_write {
            let broker = self.broker(serving).await?.context("the naive way needs --events")?;
            let database = database.context("the naive way needs the orders' database")?;
            router = router.merge(dual_write::router(&broker, database.clone()).await?);
        }
        Ok(if self.with_bugs { router.merge(bug::router()) } else { router })
    }
}
