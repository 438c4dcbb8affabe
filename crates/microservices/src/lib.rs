//! "What are microservices and their pros/cons?"
//!
//! One shop in two shapes: five modules in one process, or each in a process of its own with a database of its own. The
//! split buys isolation, and separate deployment and scaling. Every boundary costs calls that are slow, that fail, and
//! that no transaction spans, so each call has a deadline, a budget for retries, a breaker, and perhaps a fallback.
//!
//! In reading order: the naive version ([`whiteboard`]); the modules and what they tell each other ([`module`]); what
//! travels with a call ([`call`]), how another service is asked ([`peer`]), and a module that is here or there ([`reach`]);
//! the modules themselves ([`catalogue`], [`pricing`], [`payments`], [`orders`], [`recommendations`]); how copies are kept
//! ([`events`]); the pages made of all ([`shop`]); HTTP ([`error`], [`api`]). Contract tests, the broker and the strangler
//! are in [`experiments::compare`], and so is pricing over gRPC.

pub mod whiteboard;
pub mod module;
pub mod call;
pub mod peer;
pub mod reach;
pub mod catalogue;
pub mod pricing;
pub mod payments;
pub mod orders;
pub mod recommendations;
pub mod events;
pub mod shop;
pub mod error;
pub mod api;
pub mod cases;
pub mod experiments;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use axum::Router;
use lab::{Answer, Serve, Service, Serving};

pub use module::MIGRATIONS;

use crate::call::Spans;
use crate::catalogue::Catalogue;
use crate::events::{Listener, Outbox, Parties};
use crate::experiments::compare::{Beside, grpc};
use crate::module::{Database, Module, connect};
use crate::orders::Orders;
use crate::payments::Payments;
use crate::peer::{Patience, Peer};
use crate::pricing::Pricing;
use crate::reach::Reach;
use crate::recommendations::Recommendations;
use crate::shop::Shop;

/// What `serve` understands.
#[derive(clap::Args, Clone, Debug)]
struct Options {
    /// Runs only this module, as a service, instead of all
    #[arg(long, value_name = "MODULE", value_enum)]
    only: Option<Module>,
    /// Where a module is, if not here: pricing=http://host:port. Again for each further instance
    #[arg(long = "at", value_name = "MODULE=URL", value_parser = named)]
    places: Vec<(Module, String)>,
    /// A database with the schema, if not the answer's own
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Requests of clients that may be at work at once; others wait
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    beside: Beside,
}

/// `pricing=http://…`
fn named(text: &str) -> Result<(Module, String), String> {
    let (name, url) = text.split_once('=').unwrap_or_default();
    let module = Module::SERVICES.into_iter().find(|module| module.name() == name);
    let url = url.strip_suffix('/').unwrap_or(url).to_owned();
    module
        .zip(url.starts_with("http://").then_some(url))
        .ok_or_else(|| "must be as pricing=http://…".into())
}

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: "microservices",
        question: "What are microservices and their pros/cons?",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[Service::Postgres],
        migrations: Some(&MIGRATIONS),
        try_it: &[
            r#"curl -s -X PUT {url}/products/7 -H 'content-type: application/json' -d '{"name":"tea","cents":1000}'"#,
            r#"curl -si {url}/orders -H "idempotency-key: $(date +%s)" -H 'content-type: application/json' -d '{"customer":1,"product":7,"quantity":3}'"#,
            "curl -s {url}/products/7 -H 'traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'",
            "curl -s {url}/trace/4bf92f3577b34da6a3ce929d0e0e4736",
            "curl -s {url}/customers/1/history?by=copy",
            "curl -s {url}/topology",
        ],
        serve: Serve::new(serve).whiteboard(serve_whiteboard),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    let url = serving.url().as_str().trim_end_matches('/').to_owned();
    let router = whiteboard::router(&serving.database().await?, &url).await?;
    serving.run(router).await
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    if let Some(strangler) = options.beside.strangler()? {
        return serving.run(strangler).await;
    }
    let (router, parties, spans) = options.open(&serving).await?;
    let broker = options.beside.broker(&serving).await?;
    let exporting = tokio::spawn(async move { options.beside.export(spans).await });
    let carrying = tokio::spawn(async move {
        let (broker, parties) = (&broker, &parties);
        events::carry(|| async move {
            match broker {
                Some(broker) => broker.carry(parties).await,
                None if options.only.is_none() => parties.carry_within().await,
                // What is to be told waits in the outbox.
                None => std::future::pending().await,
            }
        })
        .await;
    });
    serving.run(router).await?;
    // What it has not sent is in the outbox.
    carrying.abort();
    exporting.abort();
    Ok(())
}

impl Options {
    fn runs(&self, module: Module) -> bool {
        self.only.is_none_or(|only| only == module)
    }

    /// Another service.
    fn peer(&self, module: Module) -> anyhow::Result<Arc<Peer>> {
        let longest = match module {
            Module::Recommendations => self.patience.optional_timeout_ms,
            // They ask others in turn.
            Module::Orders => self.patience.timeout_ms,
            _ => self.patience.call_timeout_ms,
        };
        let places = self.places.iter().filter(|(its, _)| *its == module);
        let urls: Vec<_> = places.map(|(_, url)| url.clone()).collect();
        let is_asked = self.only.is_some_and(|only| only.asks().contains(&module));
        ensure!(!is_asked || !urls.is_empty(), "say where it is: --at {}=URL", module.name());
        Ok(Arc::new(Peer::new(module.name(), urls, longest, &self.patience)?))
    }

    /// The database of this process, if it keeps anything.
    async fn own_database(&self, serving: &Serving) -> anyhow::Result<Option<Database>> {
        let url = match (self.only.map(|only| (only.name(), only.migrations())), &self.database) {
            (Some((_, None)), _) => return Ok(None),
            (_, Some(url)) => url.clone(),
            (None, None) => serving.database().await?,
            (Some((name, Some(own))), None) => serving.database_named(name, &own).await?,
        };
        Ok(Some(connect(&url)?))
    }

    /// Opens the modules that run here, and finds the others.
    async fn open(&self, serving: &Serving) -> anyhow::Result<(Router, Parties, Arc<Spans>)> {
        let database = self.own_database(serving).await?;
        let mut peers = BTreeMap::new();
        for module in Module::SERVICES.into_iter().filter(|it| !self.runs(*it)) {
            peers.insert(module, self.peer(module)?);
        }
        fn reach<M>(peer: Option<&Arc<Peer>>, here: Option<M>) -> anyhow::Result<Reach<M>> {
            let there = peer.map(|peer| Reach::There(Arc::clone(peer)));
            there.or(here.map(Reach::Here)).context("it keeps something, and has no database")
        }
        let here = || database.clone();
        let its = |module| peers.get(&module);
        let catalogue =
            reach(its(Module::Catalogue), here().map(|database| Catalogue { database }))?;
        let pricing = reach(its(Module::Pricing), Some(Pricing))?;
        let payments = here().map(|database| Payments { database });
        let payments = reach(its(Module::Payments), payments)?;
        let orders = here().map(|database| Orders {
            database,
            catalogue: catalogue.clone(),
            pricing: pricing.clone(),
            payments: payments.clone(),
        });
        let orders = reach(its(Module::Orders), orders)?;
        let recommendations = here().map(|database| Recommendations { database });
        let recommendations = reach(its(Module::Recommendations), recommendations)?;
        let name = self.only.map_or("monolith", Module::name);
        let (spans, patience) = (Spans::new(name), self.patience.clone());
        let longest = Duration::from_millis(patience.timeout_ms);
        let door = api::Door { spans: Arc::clone(&spans), longest };
        let moving = peers.clone();
        let shop =
            Shop { catalogue, pricing, orders, payments, recommendations, peers, patience, spans };
        let parties = self.parties(&shop, database.as_ref());
        let router = match self.only {
            Some(Module::Catalogue) => api::service(name, &shop.catalogue, Catalogue::answer),
            Some(Module::Pricing) => grpc::with(api::service(name, &shop.pricing, Pricing::answer)),
            Some(Module::Payments) => api::service(name, &shop.payments, Payments::answer),
            Some(Module::Orders) => api::service(name, &shop.orders, Orders::answer),
            Some(Module::Recommendations) => {
                api::service(name, &shop.recommendations, Recommendations::answer)
            }
            Some(Module::Gateway) | None => api::clients(shop, self.in_flight),
        };
        let whole = api::whole(router, &door, name, database.clone());
        let whole = self.beside.add(whole, serving, database.as_ref(), moving).await?;
        Ok((whole, parties, door.spans))
    }

    /// Who has something to tell here, and who listens.
    fn parties(&self, shop: &Shop, database: Option<&Database>) -> Parties {
        let here = Module::TELLING.into_iter().filter(|it| self.runs(*it));
        let outbox = |module| Some(Outbox { module, database: database.cloned()? });
        let outboxes = here.filter_map(outbox).collect();
        let mut listeners = Vec::new();
        if let Reach::Here(it) = &shop.orders {
            listeners.push(Listener::Orders(it.clone()));
        }
        if let Reach::Here(it) = &shop.recommendations {
            listeners.push(Listener::Recommendations(it.clone()));
        }
        Parties { outboxes, listeners }
    }
}
