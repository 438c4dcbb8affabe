//! Two thousand want one of a hundred items, and others only look around. Who gets what?

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lab::{Experiment, Lab, Sabotage, Target};
use tokio::time::sleep;

use super::fixture::{Clients, Fixture, at_rate, capacity, percentile, product};
use crate::cases::client::new_key;

const CONNECTIONS: u32 = 16;
/// Each way to the database and back.
const DELAY: Duration = Duration::from_millis(10);
/// Half of them are sent twice, and most need three statements: the order, its key, and the product. So they alone are more
/// than twice the capacity: buyers are refused too, and come back later.
const CHECKOUTS_PER_SECOND: f64 = 600.0;
/// Of the capacity for one statement each.
const BROWSING: f64 = 0.5;
/// What is on sale.
const ON_SALE: i64 = 100;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Clients who want one item each
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(50..=20_000))]
    clients: u32,
    /// Items on sale
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    items: i32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "sale-day",
        "Two thousand clients want one of a hundred items at nearly the same time, and half of them send their order twice. A \
         hundred items are sold, none twice; and those who look around are refused before those who buy",
        &["--clients", "180", "--items", "12"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store.rs",
        replace: "where id = $2 and stock >= $3 and not exists",
        with: "where id = $2 and not exists",
        check: "items sold",
    })
}

/// What the buyers have counted.
#[derive(Debug, Default)]
struct Buyers {
    bought: AtomicU64,
    refused: AtomicU64,
    sent: AtomicU64,
    differently: AtomicU64,
    /// Of the attempt of each order that was answered, in milliseconds.
    took: Mutex<Vec<f64>>,
    /// Of each buyer, from the wish to yes or no, with all attempts and pauses.
    waited: Mutex<Vec<f64>>,
}

/// The latencies that were noted here: their 99th percentile.
fn p99(noted: &Mutex<Vec<f64>>) -> f64 {
    let mut all = std::mem::take(&mut *noted.lock().unwrap_or_else(PoisonError::into_inner));
    all.sort_by(f64::total_cmp);
    all.get(all.len().saturating_sub(1) * 99 / 100).copied().unwrap_or(f64::NAN)
}

/// Notes how long this took, in milliseconds.
fn note(begun: Instant, noted: &Mutex<Vec<f64>>) {
    let took = begun.elapsed().as_secs_f64() * 1e3;
    noted.lock().unwrap_or_else(PoisonError::into_inner).push(took);
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, params.items).await?;
    let words = ["--in-flight", "16", "--waiting", "64"];
    let far = fixture.far(CONNECTIONS, DELAY, &words).await?;
    let capacity = capacity(CONNECTIONS, DELAY);
    let time = Duration::from_secs_f64(f64::from(params.clients) / CHECKOUTS_PER_SECOND);
    lab.progress(0, 1, "the sale");
    let buyers = Arc::new(Buyers::default());
    let buying = at_rate(CHECKOUTS_PER_SECOND, time, |number| {
        let (clients, buyers) = (Arc::clone(&far.clients), Arc::clone(&buyers));
        async move { buy(&clients, &buyers, number).await }
    });
    let looking = at_rate(BROWSING * capacity, time, |number| {
        let clients = Arc::clone(&far.clients);
        async move { Ok(clients.get(&product(number)).await? == 200) }
    });
    let (buying, looking) = tokio::try_join!(buying, looking)?;
    let count = |it: &AtomicU64| it.load(Ordering::Relaxed);
    lab.check_eq("items sold", i64::from(params.items), fixture.sold().await?);
    lab.check_eq("items left", 0, fixture.stock(ON_SALE).await?);
    lab.check_eq(
        "clients who were told that they have one",
        i64::from(params.items).unsigned_abs(),
        count(&buyers.bought),
    );
    lab.check_eq(
        "orders that were sent twice and answered differently",
        0,
        count(&buyers.differently),
    );
    let given_up = buying.iter().filter(|it| !it.good).count();
    lab.check_eq("clients who heard neither yes nor no", 0, given_up);
    let looked = looking.len() as f64;
    let shed_looking = looking.iter().filter(|it| !it.good).count() as f64 / looked;
    let shed_buying = count(&buyers.refused) as f64 / count(&buyers.sent).max(1) as f64;
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    lab.check(
        "of those who buy, a smaller share is refused than of those who look around",
        format!("less than {}", percent(shed_looking)),
        percent(shed_buying),
        shed_buying < shed_looking,
    );
    lab.figure("of those who look around, refused", shed_looking * 100.0, "%");
    lab.figure("of those who buy, refused", shed_buying * 100.0, "%");
    let (order, buyer) = (p99(&buyers.took), p99(&buyers.waited));
    lab.figure("an order: p99 of the attempt that was answered", order, "ms");
    let name = "a buyer: p99 from the wish to yes or no, with all attempts";
    lab.figure_with_target(name, buyer, "ms", Target::AtMost(5_000.0));
    let look = percentile(&looking, 99);
    // Perhaps nobody who only looks was answered.
    if !look.is_nan() {
        lab.figure("a look: p99 of those that were answered", look, "ms");
    }
    let row = |name: &str, sent: f64, shed: f64, p99: f64| {
        let p99 = if p99.is_nan() { "-".to_owned() } else { format!("{p99:.0}") };
        vec![name.to_owned(), format!("{sent:.0}"), percent(shed), p99]
    };
    let rows = vec![
        row("orders", count(&buyers.sent) as f64, shed_buying, order),
        row("looks", looked, shed_looking, look),
    ];
    lab.table("The sale", &["requests", "sent", "refused with 503", "p99 of an answer (ms)"], rows);
    Ok(())
}

/// Buys one item. Every second client does not hear the first answer, and asks again. Whether it heard a yes or a no.
async fn buy(clients: &Clients, buyers: &Buyers, number: u64) -> anyhow::Result<bool> {
    let key = new_key();
    let begun = Instant::now();
    let first = answered(clients, buyers, &key, number).await?;
    note(begun, &buyers.waited);
    if first == Some(201) {
        buyers.bought.fetch_add(1, Ordering::Relaxed);
    }
    if number.is_multiple_of(2) {
        let second = answered(clients, buyers, &key, number + 1).await?;
        buyers.differently.fetch_add(u64::from(first != second), Ordering::Relaxed);
    }
    Ok(matches!(first, Some(201 | 409)))
}

/// Sends the order until the answer is not: come back later.
async fn answered(
    clients: &Clients,
    buyers: &Buyers,
    key: &str,
    number: u64,
) -> anyhow::Result<Option<u16>> {
    for attempt in 0..20 {
        let begun = Instant::now();
        let status = clients.order(ON_SALE, key).await?;
        buyers.sent.fetch_add(1, Ordering::Relaxed);
        if status != 503 {
            note(begun, &buyers.took);
            return Ok(Some(status));
        }
        buyers.refused.fetch_add(1, Ordering::Relaxed);
        // As told, then longer each time, and not all at once.
        sleep(Duration::from_millis((1_000 << attempt.min(3)) + number % 10 * 50)).await;
    }
    Ok(None)
}
