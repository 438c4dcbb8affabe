//! API6: a bot wants to buy all that is scarce, and is faster than people. What can a limit do, and what can it not?

use futures_util::{StreamExt, stream};
use lab::{Experiment, Lab, Sabotage};
use sha2::{Digest, Sha256};
use sqlx::PgPool;

use super::fixture::{Fixture, quarter};
use crate::{error::Error, login::Count, store::Store};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Tickets that there are
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(10..=1_000))]
    tickets: u32,
    /// Accounts, addresses and cards of a bot that has many
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(50..=100_000))]
    many: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "business-flow",
        "A limit stops a bot that has only one of what the limit counts, also when its purchases come at once; and a bot with \
         many accounts, addresses and cards gets everything under every limit",
        &["--tickets", "20", "--many", "100"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store.rs",
        replace: "for (key, most) in counts {",
        with: "for (key, most) in counts.iter().take(1) {",
        check: "tickets of a bot that has one of something that a limit counts, at most",
    })
}

/// Tickets for each of what a limit counts.
const EACH: i32 = 2;
/// People who want one, after the bot was there.
const PEOPLE: u32 = 50;
/// What a limit may count.
const KINDS: [&str; 3] = ["account", "address", "card"];
/// How many of these a limit counts.
const LIMITS: [(&str, usize); 4] =
    [("no limit", 0), ("by account", 1), ("and by address", 2), ("and by card", 3)];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let shop = Shop { store: fixture.store()?, pool: fixture.pool.clone(), params };
    sqlx::raw_sql("create table tickets (id int primary key, buyer text)")
        .execute(&fixture.pool)
        .await?;
    // How many accounts, addresses and cards each has.
    let many = params.many;
    let bots = [
        ("one of each", [1, 1, 1]),
        ("many accounts", [many, 1, 1]),
        ("many accounts and addresses", [many, many, 1]),
        ("many of each", [many, many, many]),
    ];
    let (mut rows, mut limited, mut unlimited, mut people) = (Vec::new(), 0, params.tickets, 0);
    for (n, (name, has)) in bots.into_iter().enumerate() {
        let mut row = vec![name.to_owned()];
        for (limit, (_, counted)) in LIMITS.into_iter().enumerate() {
            let done = n * LIMITS.len() + limit;
            lab.progress(done as u64, 16, "a bot, and then people");
            let begun = quarter();
            let sale = format!("{n} {limit}");
            let [bot, others] = shop.sale(&sale, counted, has).await?;
            row.push(format!("{bot} ({others})"));
            if has[..counted].contains(&1) {
                // What is counted begins anew with each quarter of an hour.
                limited = limited.max(bot.div_ceil(1 + u32::try_from(quarter() - begun)?));
            } else {
                unlimited = unlimited.min(bot);
                people = people.max(others);
            }
        }
        rows.push(row);
    }
    let columns: Vec<_> = ["a bot with"].into_iter().chain(LIMITS.map(|limit| limit.0)).collect();
    lab.table("Tickets of the bot, and of people (in brackets)", &columns, rows);
    let check = "tickets of a bot that has one of something that a limit counts, at most";
    lab.check_eq(check, u32::try_from(EACH)?, limited);
    let check = "tickets of a bot that has many of all that a limit counts, at least";
    lab.check_eq(check, params.tickets, unlimited);
    lab.check_eq("tickets of people then", 0, people);
    draw(&lab, &fixture.pool, params).await
}

struct Shop {
    store: Store,
    pool: PgPool,
    params: Params,
}

impl Shop {
    /// How many tickets a bot gets, which has so many accounts, addresses and cards, and how many people get after it.
    async fn sale(&self, sale: &str, counted: usize, has: [u32; 3]) -> anyhow::Result<[u32; 2]> {
        let tickets = i32::try_from(self.params.tickets)?;
        sqlx::query("delete from tickets").execute(&self.pool).await?;
        sqlx::query("insert into tickets (id) select generate_series(1, $1)")
            .bind(tickets)
            .execute(&self.pool)
            .await?;
        // The bot knows what is counted, and uses each of its own in turn. It sends all of them at once.
        let tries = 0..self.params.tickets * 2;
        let tries = tries.map(|n| self.buy(sale, counted, "bot", has.map(|most| n % most)));
        let bot = self.bought(tries).await?;
        let people = (0..PEOPLE).map(|n| self.buy(sale, counted, "person", [n, n, n]));
        Ok([bot, self.bought(people).await?])
    }

    async fn bought(
        &self,
        tries: impl Iterator<Item = impl Future<Output = anyhow::Result<bool>>>,
    ) -> anyhow::Result<u32> {
        let mut tries = stream::iter(tries).buffer_unordered(12);
        let mut bought = 0;
        while let Some(got) = tries.next().await {
            bought += u32::from(got?);
        }
        Ok(bought)
    }

    /// Whether somebody got a ticket: counted as the answer counts logins, and then taken from those that are left.
    async fn buy(
        &self,
        sale: &str,
        counted: usize,
        who: &str,
        with: [u32; 3],
    ) -> anyhow::Result<bool> {
        let count = |(kind, n): (&str, u32)| -> Count {
            (Sha256::digest(format!("{sale} {who} {kind} {n}")).to_vec(), EACH)
        };
        let counts: Vec<Count> = KINDS.into_iter().zip(with).take(counted).map(count).collect();
        match self.store.attempt(&counts).await {
            Err(Error::NotNow(429, ..)) => return Ok(false),
            counted => counted?,
        }
        let take = "update tickets set buyer = $1
                    where id = (select id from tickets where buyer is null limit 1 for update skip locked)";
        let taken = sqlx::query(take).bind(who).execute(&self.pool).await?;
        Ok(taken.rows_affected() == 1)
    }
}

/// Nobody is first: all register, and the tickets are drawn.
async fn draw(lab: &Lab, pool: &PgPool, params: Params) -> anyhow::Result<()> {
    // As many people as the bot has accounts.
    let draw = r#"
        with registered as (
            select 'bot' as who from generate_series(1, $1)
            union all select 'person' from generate_series(1, $1)
        ), drawn as (select who from registered order by random() limit $2)
        select count(*) from drawn where who = 'bot'
    "#;
    let (mut bot, rounds) = (0, 20);
    for _ in 0..rounds {
        let drawn = sqlx::query_scalar(draw).bind(i32::try_from(params.many)?);
        let drawn: i64 = drawn.bind(i64::from(params.tickets)).fetch_one(pool).await?;
        bot += drawn;
    }
    let percent = bot as f64 * 100.0 / f64::from(params.tickets * rounds);
    // A figure: it says what chance does, and nothing of the answer.
    lab.figure("drawn tickets of a bot whose accounts are half of all", percent, "%");
    Ok(())
}
