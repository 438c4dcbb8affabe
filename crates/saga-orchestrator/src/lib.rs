//! "Handle distributed transactions without 2PC."
//!
//! An order is a saga over three services: each step is a local transaction with a compensation, and every decision
//! is in a log before it is acted on. Any orchestrator that claims the order goes on from the log; a fencing token
//! stops one that lost its claim. A time-out is not a refusal: the same step is asked for again under the same key.
//!
//! In reading order: the naive version ([`whiteboard`]), what comes in ([`order`]), the saga as data ([`saga`], [`log`],
//! [`next`]), what is kept ([`store`]), what a call's answer means ([`caller`]), who drives it ([`orchestrator`]), the
//! other side of the calls ([`participant`]), and how it speaks HTTP ([`error`], [`api`]). Choreography and two-phase
//! commit, to compare, are in [`experiments::compare`].

pub mod whiteboard;
pub mod order;
pub mod saga;
pub mod log;
pub mod next;
pub mod store;
pub mod caller;
pub mod orchestrator;
pub mod participant;
pub mod error;
pub mod api;
pub mod cases;
pub mod experiments;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use lab::{Answer, Serve, Service, Serving, database::migrate};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use crate::{
    caller::Caller,
    experiments::compare,
    orchestrator::{Orchestrator, Patience, milliseconds},
    saga::Participant,
    store::{Store, connect},
};

pub use store::{MIGRATIONS, calls::MIGRATIONS as EFFECTS, inventory::MIGRATIONS as INVENTORY};

/// What `serve` understands.
#[derive(clap::Args, Clone, Debug)]
struct Options {
    /// Runs only these parts, separated by commas, instead of all four
    #[arg(long, value_delimiter = ',', value_parser = PARTS)]
    only: Vec<String>,
    /// The database of inventory, payment or shipping, if not the one beside the orchestrator's
    #[arg(long = "database", value_name = "NAME=URL", value_parser = named)]
    databases: Vec<(Participant, Url)>,
    /// Where inventory, payment or shipping is, if not here: inventory=http://host:port/inventory
    #[arg(long = "participant", value_name = "NAME=URL", value_parser = named)]
    participants: Vec<(Participant, Url)>,
    /// How long a participant may take to answer
    #[arg(long = "call-timeout-ms", default_value = "5000", value_parser = milliseconds)]
    call_timeout: Duration,
    /// All calls must show this key, and the participants are shown it. Needed to listen on anything but loopback
    #[arg(long, env = "SAGA_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    compare: compare::Comparison,
}

const PARTS: [&str; 4] = ["orchestrator", "inventory", "payment", "shipping"];

/// `payment=http://…`
fn named(text: &str) -> Result<(Participant, Url), String> {
    let (name, value) = text.split_once('=').unwrap_or_default();
    let participant =
        Participant::ALL.into_iter().find(|participant| participant.to_string() == name);
    participant.zip(value.parse().ok()).ok_or_else(|| "must be as payment=URL".to_owned())
}

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: "saga-orchestrator",
        question: "Handle distributed transactions without 2PC",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[Service::Postgres],
        migrations: Some(&MIGRATIONS),
        try_it: &[
            r#"curl -s -X PUT {url}/inventory/stock/book -H 'content-type: application/json' -d '{"quantity":3}'"#,
            r#"curl -i -X POST {url}/orders -H 'content-type: application/json' -H "idempotency-key: order-$(date +%s)" -d '{"customer_id":"c-1","items":[{"sku":"book","quantity":1}],"amount_cents":2500,"payment_method":"pm_card_visa","address":{"name":"Ada","street":"1 Lane","city":"London","country":"GB"}}'"#,
            "curl -s {url}/orders",
            "curl -s {url}/inventory/stock/book",
        ],
        serve: Serve::new(serve).whiteboard(serve_whiteboard),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    let key = options.api_key.clone().filter(|key| !key.is_empty());
    ensure!(
        key.is_some() || serving.is_local(),
        "whoever reaches this address could have money refunded: give an --api-key"
    );
    let urls = options.databases(&serving).await?;
    let open = |url: &Option<String>| url.as_deref().map(connect).transpose();
    let databases = [open(&urls[0])?, open(&urls[1])?, open(&urls[2])?];
    let store = if options.runs("orchestrator") {
        Some(Store { database: connect(&serving.database().await?)? })
    } else {
        None
    };
    let mut router = participant::router(&databases);
    let mut all: Vec<_> = databases.iter().flatten().cloned().collect();
    all.extend(store.as_ref().map(|store| store.database.clone()));
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    if options.compare.is_asked_for() {
        let parts = compare::Parts { store, databases, urls };
        let background = compare::Background { stop: stop.clone(), tasks: tasks.clone() };
        let calls = options.compare.start(parts, options.patience.poll, &serving, background);
        router = router.merge(calls.await?);
    } else if let Some(store) = store {
        let caller = Caller::new(options.addresses(&serving)?, key.clone(), options.call_timeout)?;
        let orchestrator = Arc::new(Orchestrator::new(store, caller, options.patience));
        tasks.spawn(Arc::clone(&orchestrator).run(stop.clone()));
        router = router.merge(api::orders(orchestrator));
    }
    tasks.close();
    serving.run(api::whole(router, all, key.as_deref())).await?;
    // Each saga comes to its next record, and then the process ends.
    stop.cancel();
    tasks.wait().await;
    Ok(())
}

async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    let router = whiteboard::router(&serving.database().await?).await?;
    serving.run(router).await
}

impl Options {
    fn runs(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }

    /// The databases of the participants that run here, migrated.
    async fn databases(&self, serving: &Serving) -> anyhow::Result<[Option<String>; 3]> {
        let mut urls = [None, None, None];
        for participant in Participant::ALL.into_iter().filter(|it| self.runs(&it.to_string())) {
            let migrations = match participant {
                Participant::Inventory => &INVENTORY,
                Participant::Payment | Participant::Shipping => &EFFECTS,
            };
            let given = self.databases.iter().find(|(name, _)| *name == participant);
            urls[participant as usize] = Some(match given {
                Some((_, url)) => {
                    migrate(url.as_str(), migrations).await?;
                    url.to_string()
                }
                None => serving.database_named(&participant.to_string(), migrations).await?,
            });
        }
        Ok(urls)
    }

    /// Where the participants are: where it was said, or here.
    fn addresses(&self, serving: &Serving) -> anyhow::Result<[Url; 3]> {
        let address = |participant: Participant| match self
            .participants
            .iter()
            .find(|(name, _)| *name == participant)
        {
            Some((_, url)) => Ok(url.clone()),
            None => serving.url().join(&participant.to_string()).context("this service's address"),
        };
        let [inventory, payment, shipping] = Participant::ALL.map(address);
        Ok([inventory?, payment?, shipping?])
    }
}
