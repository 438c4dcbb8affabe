//! "Handle distributed transactions without 2PC."
//!
//! An order is a saga over three services: each step is a local transaction with a compensation, and every decision
//! is in a log before its effect is asked for. Whoever claims the order goes on from the log; a fencing token keeps
//! out whoever lost it. A time-out is not a refusal: the same step is asked for again under the same key.
//!
//! In reading order: what comes in ([`order`]), the saga as data ([`saga`], [`log`], [`next`]), what is kept ([`database`],
//! [`store`]), who is called and what the answer means ([`participants`]), who drives it ([`orchestrator`]); the other
//! side of the calls ([`participant`], [`inventory`], [`payment`], [`shipping`]); how it is put together
//! ([`service`]) and speaks HTTP ([`error`], [`view`], [`api`]). To compare: [`choreography`] and [`two_phase_commit`].

pub mod order;
pub mod saga;
pub mod log;
pub mod next;
pub mod database;
pub mod store;
pub mod participants;
pub mod orchestrator;
pub mod participant;
pub mod inventory;
pub mod payment;
pub mod shipping;
pub mod service;
pub mod error;
pub mod view;
pub mod api;
pub mod choreography;
pub mod two_phase_commit;
pub mod cases;
pub mod experiments;

use std::time::Duration;

use anyhow::Context;
use lab::{Answer, Serve, Service, Serving, database::migrate};
use sqlx::migrate::Migrator;
use url::Url;

use crate::{
    database::Databases,
    orchestrator::Patience,
    participants::Addresses,
    service::{App, Flow},
};

pub use store::{
    MIGRATIONS, inventory::MIGRATIONS as INVENTORY, payment::MIGRATIONS as PAYMENT,
    shipping::MIGRATIONS as SHIPPING,
};

/// The services that `serve` can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Orchestrator,
    Inventory,
    Payment,
    Shipping,
}

/// How orders find their way.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Way {
    /// An orchestrator asks each service in turn
    #[default]
    Orchestration,
    /// The services react to each other's events, over RabbitMQ
    Choreography,
    /// One transaction over all databases, to see what is wrong with it
    TwoPhaseCommit,
}

/// What `serve` understands.
#[derive(clap::Args, Clone, Debug)]
struct Options {
    /// Runs only these services, separated by commas, instead of all four
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// How orders find their way
    #[arg(long, value_enum, default_value_t)]
    flow: Way,
    /// The inventory's database, if not the one beside the orchestrator's
    #[arg(long, value_name = "URL")]
    inventory_database: Option<String>,
    /// The payment service's database
    #[arg(long, value_name = "URL")]
    payment_database: Option<String>,
    /// The shipping service's database
    #[arg(long, value_name = "URL")]
    shipping_database: Option<String>,
    /// Where the inventory is served, if not here: http://host:port/inventory
    #[arg(long, value_name = "URL")]
    inventory_url: Option<Url>,
    /// Where the payment service is
    #[arg(long, value_name = "URL")]
    payment_url: Option<Url>,
    /// Where the shipping service is
    #[arg(long, value_name = "URL")]
    shipping_url: Option<Url>,
    /// How long an order is claimed for; another orchestrator takes it over after that long a silence
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    lease_ms: u64,
    /// How long a participant may take to answer
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    call_timeout_ms: u64,
    /// How long a step is tried before the order is cancelled, or a compensation before it is stuck
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(0..=3_600_000))]
    deadline_ms: u64,
    /// The first pause after a failure; each further one is twice as long, with jitter
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    backoff_ms: u64,
    /// The longest pause
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    longest_backoff_ms: u64,
    /// How often to look for orders, or events, that others left behind
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(5..=60_000))]
    poll_ms: u64,
    /// How many sagas at a time
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    concurrency: u16,
    /// Choreography: what the names of the exchange and the queues begin with
    #[arg(long, default_value = "worked-answers.saga-orchestrator.")]
    queue_prefix: String,
    /// Choreography: the broker, if not the one that is found
    #[arg(long, value_name = "URL")]
    amqp_url: Option<String>,
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
        serve: Serve::new(serve),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    let databases = databases(&options, &serving).await?;
    let app = App::start(&databases, flow(options, &serving).await?)?;
    serving.run(api::router(&app)).await?;
    app.stop().await;
    Ok(())
}

/// The databases of the services that run here: those given, or those beside the orchestrator's.
async fn databases(options: &Options, serving: &Serving) -> anyhow::Result<Databases> {
    let runs = |part| options.only.is_empty() || options.only.contains(&part);
    let participant = async |part, name, given: &Option<String>, migrations: &'static Migrator| {
        anyhow::Ok(match given {
            _ if !runs(part) => None,
            Some(url) => {
                migrate(url, migrations).await?;
                Some(url.clone())
            }
            None => Some(serving.database_named(name, migrations).await?),
        })
    };
    let orders = if runs(Part::Orchestrator) { Some(serving.database().await?) } else { None };
    Ok(Databases {
        orders,
        inventory: participant(
            Part::Inventory,
            "inventory",
            &options.inventory_database,
            &INVENTORY,
        )
        .await?,
        payment: participant(Part::Payment, "payment", &options.payment_database, &PAYMENT).await?,
        shipping: participant(Part::Shipping, "shipping", &options.shipping_database, &SHIPPING)
            .await?,
    })
}

async fn flow(options: Options, serving: &Serving) -> anyhow::Result<Flow> {
    let address = |given: Option<Url>, path: &str| match given {
        Some(url) => Ok(url),
        None => serving.url().join(path).context("this service's own address"),
    };
    let time = Duration::from_millis;
    Ok(match options.flow {
        Way::TwoPhaseCommit => Flow::TwoPhaseCommit,
        Way::Choreography => Flow::Choreography(choreography::Config {
            amqp: match options.amqp_url {
                Some(url) => url,
                None => serving.server(Service::RabbitMq).await?,
            },
            prefix: options.queue_prefix,
            poll: time(options.poll_ms),
        }),
        Way::Orchestration => Flow::Saga(
            Box::new(Addresses {
                inventory: address(options.inventory_url, "inventory")?,
                payment: address(options.payment_url, "payment")?,
                shipping: address(options.shipping_url, "shipping")?,
            }),
            Patience {
                lease: time(options.lease_ms),
                deadline: time(options.deadline_ms),
                backoff: time(options.backoff_ms),
                longest_backoff: time(options.longest_backoff_ms),
                poll: time(options.poll_ms),
                concurrency: options.concurrency.into(),
            },
            time(options.call_timeout_ms),
        ),
    })
}
