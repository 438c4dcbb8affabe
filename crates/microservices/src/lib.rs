//! "What are microservices and their pros/cons?"
//!
//! One shop in two shapes: five modules in one process, or each in a process of its own with a database of its own. The
//! split buys isolation, and separate deployment and scaling. Every boundary costs calls that are slow, that fail, and
//! that no transaction spans, so each call has a deadline, a budget for retries, a breaker, and perhaps a fallback.
//!
//! In reading order: the naive version ([`whiteboard`]); the modules and what they tell each other ([`module`]); what
//! travels with a call ([`call`]) and how another service is asked ([`peer`]); the modules themselves ([`catalogue`],
//! [`pricing`], [`payments`], [`orders`], [`recommendations`]); how copies are kept ([`events`]); the pages made of all
//! ([`shop`]); HTTP ([`error`], [`api`]). Contract tests, the broker and the strangler are in [`experiments::compare`].

pub mod whiteboard;
pub mod module;
pub mod call;
pub mod peer;
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
use tokio::sync::Semaphore;

pub use module::MIGRATIONS;

use crate::call::Spans;
use crate::catalogue::Catalogue;
use crate::events::{Listener, Outbox, Parties};
use crate::experiments::compare::Beside;
use crate::module::{Database, Module, connect};
use crate::orders::Orders;
use crate::payments::Payments;
use crate::peer::{Patience, Peer, Reach};
use crate::pricing::Pricing;
use crate::recommendations::Recommendations;
use crate::shop::{Shop, Style};

/// What `serve` understands.
#[derive(clap::Args, Clone, Debug)]
struct Options {
    /// Runs only these modules, separated by commas, instead of all
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<Module>,
    /// Where a module is, if not here: pricing=http://host:port. Again for each further instance
    #[arg(long = "at", value_name = "MODULE=URL", value_parser = named)]
    places: Vec<(Module, String)>,
    /// Who moves the money of payments; without one it is only noted
    #[arg(long, value_name = "URL")]
    bank: Option<String>,
    /// A database with the schema, for the modules of this process, if not those beside the answer's own
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Requests of clients that may be at work at once; others wait
    #[arg(long, default_value_t = 64)]
    in_flight: u16,
    /// Keep no spans
    #[arg(long)]
    no_trace: bool,
    /// Let `PUT /admin/services/{name}` say where a service is. For a gateway that only operators can reach
    #[arg(long)]
    admin: bool,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    style: Style,
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
    let (router, databases, parties) = options.open(&serving).await?;
    let router = options.beside.add(router, &serving, databases.first()).await?;
    let broker = options.beside.broker(&serving).await?;
    let is_monolith = options.only.is_empty();
    let carrying = tokio::spawn(async move {
        let (broker, parties) = (&broker, &parties);
        events::carry(|| async move {
            match broker {
                Some(broker) => broker.carry(parties).await,
                None if is_monolith => parties.carry_within().await,
                // What is to be told waits in the outbox.
                None => std::future::pending().await,
            }
        })
        .await;
    });
    serving.run(router).await?;
    // What it has not sent is in the outbox.
    carrying.abort();
    Ok(())
}

impl Options {
    fn runs(&self, module: Module) -> bool {
        self.only.is_empty() || self.only.contains(&module)
    }

    /// Those that run elsewhere.
    fn peers(&self) -> anyhow::Result<BTreeMap<Module, Arc<Peer>>> {
        let elsewhere = Module::SERVICES.into_iter().filter(|it| !self.runs(*it));
        let peer = |module: Module| -> anyhow::Result<_> {
            let longest = match module {
                Module::Recommendations => self.patience.optional_timeout_ms,
                // They ask others in turn.
                Module::Orders => self.patience.timeout_ms,
                _ => self.patience.call_timeout_ms,
            };
            let places = self.places.iter().filter(|(its, _)| *its == module);
            let urls = places.map(|(_, url)| url.clone()).collect();
            Ok((module, Arc::new(Peer::new(module.name(), urls, longest, &self.patience)?)))
        };
        elsewhere.map(peer).collect()
    }

    /// Opens every module that runs here, and finds the others.
    async fn open(&self, serving: &Serving) -> anyhow::Result<(Router, Vec<Database>, Parties)> {
        use Module::{Catalogue as C, Gateway, Orders as O, Payments as P, Recommendations as R};
        let peers = self.peers()?;
        let asked = [O, Gateway].into_iter().filter(|it| self.runs(*it)).flat_map(Module::asks);
        for module in asked {
            let known = peers.get(module).is_none_or(|peer| !peer.urls().is_empty());
            ensure!(known, "say where it is: --at {}=URL", module.name());
        }
        let is_monolith = self.only.is_empty();
        let shared = match &self.database {
            Some(url) => Some(connect(url)?),
            None if is_monolith => Some(connect(&serving.database().await?)?),
            None => None,
        };
        let mut databases = Vec::from_iter(shared.clone());
        let mut database = async |module: Module| -> anyhow::Result<Option<Database>> {
            let Some(own) = module.migrations().filter(|_| self.runs(module)) else {
                return Ok(None);
            };
            if shared.is_none() {
                databases.push(connect(&serving.database_named(module.name(), &own).await?)?);
            }
            Ok(databases.last().cloned())
        };
        fn reach<M>(peer: Option<&Arc<Peer>>, here: Option<M>) -> anyhow::Result<Reach<M>> {
            let there = peer.map(|peer| Reach::There(Arc::clone(peer)));
            here.map(Reach::Here).or(there).context("a module is either here or elsewhere")
        }
        let bank = self
            .bank
            .clone()
            .map(|url| Peer::new("bank", vec![url], self.patience.call_timeout_ms, &self.patience));
        let bank = bank.transpose()?.map(Arc::new);
        let [c, o, p, r] =
            [database(C).await?, database(O).await?, database(P).await?, database(R).await?];
        let mut parties = Parties::default();
        let catalogue = reach(peers.get(&C), c.clone().map(|database| Catalogue { database }))?;
        let priced = self.runs(Module::Pricing).then_some(Pricing);
        let pricing = reach(peers.get(&Module::Pricing), priced)?;
        let payments = reach(peers.get(&P), p.clone().map(|database| Payments { database, bank }))?;
        let orders = o.clone().map(|database| Orders {
            database,
            catalogue: catalogue.clone(),
            pricing: pricing.clone(),
            payments: payments.clone(),
        });
        let orders = reach(peers.get(&O), orders)?;
        let recommendations = reach(peers.get(&R), r.map(|database| Recommendations { database }))?;
        parties.outboxes.extend(c.map(Outbox::catalogue));
        parties.outboxes.extend(o.map(Outbox::orders));
        parties.outboxes.extend(p.map(Outbox::payments));
        if let Reach::Here(it) = &orders {
            parties.listeners.push(Listener::Orders(it.clone()));
        }
        if let Reach::Here(it) = &recommendations {
            parties.listeners.push(Listener::Recommendations(it.clone()));
        }
        let mut router = Router::new();
        if !is_monolith {
            router = router
                .merge(api::service("catalogue", &catalogue, Catalogue::answer))
                .merge(api::service("pricing", &pricing, Pricing::answer))
                .merge(api::service("payments", &payments, Payments::answer))
                .merge(api::service("orders", &orders, Orders::answer))
                .merge(api::service("recommendations", &recommendations, Recommendations::answer));
        }
        let names: Vec<_> = self.only.iter().map(|it| it.name()).collect();
        let name = if is_monolith { "monolith".to_owned() } else { names.join("+") };
        let door = api::Door {
            spans: Spans::new(name.clone(), !self.no_trace),
            longest: Duration::from_millis(self.patience.timeout_ms),
            places: Arc::new(Semaphore::new(self.in_flight.into())),
        };
        if self.runs(Gateway) {
            let (style, spans) = (self.style, Arc::clone(&door.spans));
            let shop =
                Shop { catalogue, pricing, orders, payments, recommendations, peers, style, spans };
            router = router.merge(api::clients(shop, &door, self.admin));
        }
        Ok((api::whole(router, &door, &name, databases.clone()), databases, parties))
    }
}
