//! A transfer is cut between its two updates. Where is the money?

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::{StreamExt, stream};
use lab::{
    Experiment, Lab, Sabotage,
    harness::eventually,
    load::http::Pool,
    serve::{Here, here},
};
use sqlx::{PgPool, postgres::PgPoolOptions};

use super::{compare::transfers::Transfers, fixture::Fixture};
use crate::layer::{Form, Inner};

/// Half done by then, unless the machine is very busy; those that are not are sent again.
const LIMIT: Duration = Duration::from_millis(60);
/// Transfers at the same time, each between two rows of its own.
const CLIENTS: usize = 16;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Transfers of each kind that are cut between their two updates
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(16..=100_000))]
    transfers: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "timeout",
        "A time-out drops the handler at its next await. Of transfers that are cut between their two updates, each loses its \
         money with two statements, and none does with a transaction or in a task of its own. A handler that blocks is not cut",
        &["--transfers", "64"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/timeout.rs",
        replace: "let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, \"this took too long; try again\");",
        with: "let problem = Problem::new(StatusCode::REQUEST_TIMEOUT, \"this took too long; try again\");",
        check: "cut requests that were answered with anything but 503",
    })
}

struct Bank {
    transfers: Transfers,
    here: Here,
    pool: PgPool,
}

impl Bank {
    /// Empty accounts in pairs, and calls behind our layer.
    async fn open(pool: &PgPool, form: Form) -> anyhow::Result<Self> {
        let open = r#"
            drop table if exists accounts;
            create table accounts (id int primary key, balance bigint not null default 0);
            insert into accounts (id) select generate_series(0, 31);
        "#;
        sqlx::raw_sql(open).execute(pool).await?;
        let transfers = Transfers::new(pool.clone());
        let service = crate::timeout::layer(form, LIMIT, Inner::new(transfers.router()));
        let here = here(axum::Router::new().fallback_service(service)).await?;
        Ok(Self { transfers, here, pool: pool.clone() })
    }

    /// The sum of all balances: 0, unless money was lost.
    async fn missing(&self) -> anyhow::Result<i64> {
        let sum = "select -sum(balance)::bigint from accounts";
        Ok(sqlx::query_scalar(sum).fetch_one(&self.pool).await?)
    }

    /// Sends transfers until so many have stopped between their updates. How many got another answer than 503.
    async fn cut(&self, kind: &str, transfers: u64, lab: &Lab) -> anyhow::Result<u64> {
        let clients = Pool::of(&self.here.host);
        let half_done = || self.transfers.half_done.load(Ordering::SeqCst);
        let (mut other, mut sent) = (0, 0);
        while half_done() < transfers && sent < 4 * transfers + 100 {
            lab.progress(half_done(), transfers, &format!("cut transfers: {kind}"));
            let pairs = stream::iter(0..CLIENTS)
                .map(async |pair| clients.post(&format!("/{kind}/{pair}"), "{}").await);
            let answers: Vec<_> = pairs.buffer_unordered(CLIENTS).collect().await;
            sent += CLIENTS as u64;
            other += answers.iter().filter(|answer| !matches!(answer, Ok(503))).count() as u64;
        }
        Ok(other)
    }
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let most = u32::try_from(CLIENTS + 2)?;
    let pool = PgPoolOptions::new().max_connections(most).connect(fixture.database.url()).await?;
    let (mut rows, mut not_503) = (Vec::new(), 0);
    let mut missing = Vec::new();
    for (kind, form) in [
        ("two-statements", Form::FromFn),
        ("transaction", Form::ByHand),
        ("transaction", Form::FromFn),
        ("transaction", Form::Library),
        ("spawn", Form::ByHand),
    ] {
        let bank = Bank::open(&pool, form).await?;
        not_503 += bank.cut(kind, params.transfers, &lab).await?;
        let half_done = bank.transfers.half_done.load(Ordering::SeqCst);
        if kind == "spawn" {
            // Whatever they wait for comes, and nobody waits for them any more.
            bank.transfers.let_go_on();
            let finished = || bank.transfers.finished.load(Ordering::SeqCst);
            eventually("the tasks end", async || Ok((finished() == half_done).then_some(())))
                .await?;
        }
        let finished = bank.transfers.finished.load(Ordering::SeqCst);
        let lost = bank.missing().await?;
        let cells = [half_done, finished].map(|count| count.to_string());
        let name = format!("{kind}, {form:?}");
        rows.push([vec![name], cells.to_vec(), vec![lost.to_string()]].concat());
        missing.push((kind, half_done, finished, lost));
    }
    let columns = ["how", "cut between the updates", "finished all the same", "money missing"];
    lab.table("Transfers of one unit each", &columns, rows);
    let ((_, half_done, _, lost), rest) = (missing[0], &missing[1..]);
    // More than were half done may have been cut: some before their answer of the first update came.
    let nine_tenths = i64::try_from(half_done)? * 9 / 10;
    lab.check(
        "two statements: units that are missing",
        format!("{nine_tenths} at least, of {half_done} transfers"),
        lost,
        lost >= nine_tenths && half_done >= params.transfers,
    );
    let in_transactions: Vec<_> = rest.iter().filter(|it| it.0 == "transaction").collect();
    let lost: i64 = in_transactions.iter().map(|it| it.3).sum();
    lab.check_eq("a transaction: units that are missing", 0, lost);
    let finished: u64 = in_transactions.iter().map(|it| it.2).sum();
    lab.check_eq("a transaction: cut transfers that were made all the same", 0, finished);
    for (_, half_done, finished, lost) in rest.iter().filter(|it| it.0 == "spawn") {
        lab.check_eq(
            "a task of its own: cut transfers that were made all the same",
            half_done,
            finished,
        );
        lab.check_eq("a task of its own: units that are missing", &0, lost);
    }
    lab.check_eq("cut requests that were answered with anything but 503", 0, not_503);
    blocking(&lab, &pool).await
}

/// A thread that sleeps reaches no `await`, so nobody can drop it there.
async fn blocking(lab: &Lab, pool: &PgPool) -> anyhow::Result<()> {
    let (mut answered, asked) = (0, 6);
    for form in [Form::FromFn, Form::ByHand, Form::Library] {
        let bank = Bank::open(pool, form).await?;
        let clients = Pool::of(&bank.here.host);
        for _ in 0..asked / 3 {
            answered += u32::from(clients.post("/blocking/0", "{}").await? == 200);
        }
    }
    let name = "handlers that blocked for three times the limit, and were not cut";
    lab.check_eq(name, asked, answered);
    Ok(())
}
