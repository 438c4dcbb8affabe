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

use super::{
    compare::{library, transfers::Transfers},
    fixture::Fixture,
};
use crate::layer::{Form, Inner};

/// Most transfers are half done by then. Where they are not, because the machine is busy, the limit is doubled.
const LIMIT: Duration = Duration::from_millis(40);
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
        "A time-out drops the handler at its next await: no transfer that was cut between its two updates goes on. With two \
         statements each has lost its money then, and with a transaction none. A task of its own goes on after the 503. A \
         handler that blocks is not cut",
        &["--transfers", "64"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/timeout.rs",
        replace: "let next = timeout(self.limit, self.inner.clone().oneshot(request));",
        with: "let next = tokio::spawn(self.inner.clone().oneshot(request));
        let next = timeout(self.limit, async { next.await.unwrap_or_else(|_| Ok(too_slow())) });",
        check: "two statements: cut transfers that went on",
    })
}

struct Bank {
    transfers: Transfers,
    form: Form,
    pool: PgPool,
}

impl Bank {
    /// Empty accounts in pairs.
    async fn open(pool: &PgPool, form: Form) -> anyhow::Result<Self> {
        let open = r#"
            drop table if exists accounts;
            create table accounts (id int primary key, balance bigint not null default 0);
            insert into accounts (id) select generate_series(0, 31);
        "#;
        sqlx::raw_sql(open).execute(pool).await?;
        Ok(Self { transfers: Transfers::new(pool.clone()), form, pool: pool.clone() })
    }

    /// The calls behind our layer.
    async fn behind(&self, limit: Duration) -> anyhow::Result<Here> {
        let calls = Inner::new(self.transfers.router());
        let service = match self.form {
            Form::Library => library::timeout(limit, calls),
            form => crate::timeout::layer(form, limit, calls),
        };
        here(axum::Router::new().fallback_service(service)).await
    }

    fn half_done(&self) -> u64 {
        self.transfers.half_done.load(Ordering::SeqCst)
    }

    fn begun(&self) -> u64 {
        self.transfers.begun.load(Ordering::SeqCst)
    }

    fn finished(&self) -> u64 {
        self.transfers.finished.load(Ordering::SeqCst)
    }

    fn alive(&self) -> u64 {
        self.transfers.alive.load(Ordering::SeqCst)
    }

    /// The sum of all balances: 0, unless money was lost.
    async fn missing(&self) -> anyhow::Result<i64> {
        let sum = "select -sum(balance)::bigint from accounts";
        Ok(sqlx::query_scalar(sum).fetch_one(&self.pool).await?)
    }

    /// Sends transfers until so many were cut while they waited between their updates, where nothing but the time limit
    /// ends them. Returns how many got another answer than 503.
    async fn cut(&self, kind: &str, transfers: u64, lab: &Lab) -> anyhow::Result<u64> {
        let (mut limit, mut other) = (LIMIT, 0);
        let mut server = self.behind(limit).await?;
        while self.half_done() < transfers && limit < Duration::from_secs(2) {
            lab.progress(self.half_done(), transfers, format!("cut transfers: {kind}"));
            let (before, clients) = (self.half_done(), Pool::of(&server.host));
            let pairs = stream::iter(0..CLIENTS)
                .map(async |pair| clients.post(&format!("/{kind}/{pair}"), "{}").await);
            let answers: Vec<_> = pairs.buffer_unordered(CLIENTS).collect().await;
            other += answers.iter().filter(|answer| !matches!(answer, Ok(503))).count() as u64;
            if self.half_done() - before < CLIENTS as u64 / 2 {
                limit *= 2;
                server = self.behind(limit).await?;
            }
        }
        Ok(other)
    }
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let most = u32::try_from(CLIENTS + 2)?;
    // A `begin` that is cut leaves its transaction open: sqlx knows of it when PostgreSQL has answered.
    let pool = PgPoolOptions::new().after_release(|connection, _| {
        Box::pin(async move { sqlx::raw_sql("rollback").execute(connection).await.map(|_| true) })
    });
    let pool = pool.min_connections(most).max_connections(most);
    let pool = pool.connect(fixture.database.url()).await?;
    let (mut rows, mut not_503, mut in_transactions) = (Vec::new(), 0, [0, 0]);
    // The three forms cut alike, so two of them get by with fewer.
    let (all, few) = (params.transfers, params.transfers.min(CLIENTS as u64));
    for (kind, form, transfers) in [
        ("two-statements", Form::ByHand, all),
        ("transaction", Form::ByHand, all),
        ("transaction", Form::FromFn, few),
        ("transaction", Form::Library, few),
        ("spawn", Form::ByHand, few),
    ] {
        let bank = Bank::open(&pool, form).await?;
        not_503 += bank.cut(kind, transfers, &lab).await?;
        let half_done = bank.half_done();
        // What they wait for comes. Whoever was dropped does not hear of it.
        bank.transfers.let_go_on();
        let all = async || Ok((bank.alive() == 0).then_some(()));
        eventually("every transfer is finished or dropped", all).await?;
        let (finished, lost) = (bank.finished(), bank.missing().await?);
        let numbers = [half_done, finished].map(|count| count.to_string());
        rows.push(
            [vec![format!("{kind}, {form:?}")], numbers.to_vec(), vec![lost.to_string()]].concat(),
        );
        match kind {
            // A few more than were half done may be missing: some were cut before they heard of their first update.
            "two-statements" => {
                let half_done = i64::try_from(half_done)?;
                let expected = format!("{half_done} at least, as many as were cut half done");
                let all = lost >= half_done && half_done > 0;
                lab.check("two statements: units that are missing", expected, lost, all);
                lab.check_eq("two statements: cut transfers that went on", 0, finished);
            }
            "transaction" => {
                in_transactions[0] += lost;
                in_transactions[1] += i64::try_from(finished)?;
            }
            _ => {
                let name = "a task of its own: cut transfers that were made all the same";
                lab.check_eq(name, bank.begun(), finished);
                lab.check_eq("a task of its own: units that are missing", 0, lost);
            }
        }
    }
    let columns = ["how", "cut between the updates", "finished all the same", "money missing"];
    lab.table("Transfers of one unit each", &columns, rows);
    let [lost, finished] = in_transactions;
    lab.check_eq("a transaction: units that are missing", 0, lost);
    lab.check_eq("a transaction: cut transfers that were made all the same", 0, finished);
    lab.check_eq("cut requests that were answered with anything but 503", 0, not_503);
    blocking(&lab, &pool).await
}

/// A thread that sleeps reaches no `await`, so nobody can drop it there.
async fn blocking(lab: &Lab, pool: &PgPool) -> anyhow::Result<()> {
    let (mut answered, asked) = (0, 6);
    for form in [Form::FromFn, Form::ByHand, Form::Library] {
        let bank = Bank::open(pool, form).await?;
        let server = bank.behind(LIMIT).await?;
        let clients = Pool::of(&server.host);
        for _ in 0..asked / 3 {
            answered += u32::from(clients.post("/blocking/0", "{}").await? == 200);
        }
    }
    let name = "handlers that blocked for three times the limit, and were not cut";
    lab.check_eq(name, asked, answered);
    Ok(())
}
