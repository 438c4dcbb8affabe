//! Requests for users that do not exist: what does the database see of them?

use std::time::{Duration, Instant};

use anyhow::ensure;
use lab::{
    Experiment, Lab, Sabotage,
    load::{self, Stop, http::Connection},
};

use super::fixture::{Fixture, NO_TIMEOUTS, believing};
use crate::cases::client::{Client, is_hit, name};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Requests in each run
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    requests: u32,
    /// Ids that nobody has, for which the clients ask
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=50))]
    ids: u32,
    /// Clients at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
    clients: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "missing-keys",
        "Of requests for ids that do not exist the database sees one for each id and life of its cached \
         absence, and not one for each request; against ids that are new each time this does nothing",
        &["--requests", "1500"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/ttl.rs",
        replace: "(!ttl.longest.is_zero()).then(",
        with: "(is_user && !ttl.longest.is_zero()).then(",
        check: "absences cached: queries for 1500 requests of 20 ids",
    })
    .sabotage(Sabotage {
        file: "src/write.rs",
        replace: "self.visible(self.store.insert(name, email).await?).await",
        with: "Ok(self.store.insert(name, email).await?.user)",
        check: "a user that is made where an absence was cached is found at once",
    })
}

/// Jitter takes at most a tenth off ten seconds, so no absence expires sooner than this.
const SHORTEST_LIFE: Duration = Duration::from_secs(9);
/// Nobody has these.
const FIRST: i64 = 1_000_000;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let (requests, ids) = (u64::from(params.requests), u64::from(params.ids));
    let known = run_one(&params, &lab, "10", params.ids).await?;
    let lives = 1 + known.took.as_secs() / SHORTEST_LIFE.as_secs();
    lab.check(
        format!("absences cached: queries for {requests} requests of {ids} ids"),
        format!("from {ids} to {}", ids * lives),
        known.queries,
        (ids..=ids * lives).contains(&known.queries),
    );
    let unknown = run_one(&params, &lab, "0", params.ids).await?;
    // The two runs that we compare with have room for chance: a client may find what another one has just loaded.
    let nearly_all = requests * 9 / 10..=requests;
    let expected = format!("from {} to {requests}", nearly_all.start());
    lab.check(
        "absences not cached: queries for as many",
        &expected,
        unknown.queries,
        nearly_all.contains(&unknown.queries),
    );
    // More ids than can be asked for, however unevenly the clients share the requests.
    let scan = run_one(&params, &lab, "10", params.requests * params.clients).await?;
    lab.check(
        "absences cached, but another id each time: queries",
        expected,
        scan.queries,
        nearly_all.contains(&scan.queries),
    );
    let rows =
        [("cached", ids, &known), ("not cached", ids, &unknown), ("cached", requests, &scan)];
    let row = |(absences, ids, seen): (&str, u64, &Seen)| {
        let rate = requests as f64 / seen.took.as_secs_f64();
        let cells = [ids.to_string(), requests.to_string(), seen.queries.to_string()];
        [vec![absences.to_owned()], cells.to_vec(), vec![format!("{rate:.0}")]].concat()
    };
    let columns = ["absences", "ids", "requests", "queries", "requests/s"];
    lab.table("Requests for ids that nobody has", &columns, rows.map(row).to_vec());
    lab.check(
        "a user that is made where an absence was cached is found at once",
        "200, in each of 10 cases",
        known.found.min(scan.found),
        known.found == 10 && scan.found == 10,
    );
    Ok(())
}

struct Seen {
    queries: u64,
    took: Duration,
    /// How many of ten new users were found whose ids had been asked for before.
    found: u32,
}

async fn run_one(params: &Params, lab: &Lab, ttl: &str, ids: u32) -> anyhow::Result<Seen> {
    let fixture = Fixture::of(lab).await?;
    fixture.make_users(10).await?;
    let before = fixture.queries().await?;
    // No early refreshes: on a busy machine a slow load would make some, and lives are counted here.
    let serve = fixture.serve().args(&["--absence-ttl", ttl, "--beta", "0"]).args(&NO_TIMEOUTS);
    let mut child = serve.start().await?;
    believing(&child).await?;
    let mut clients = Vec::new();
    for client in 0..params.clients {
        // Each client begins at another id. With `n` clients, each asks for every n-th id.
        let connection = Connection::open(child.address()).await?;
        clients.push((connection, client, params.clients, ids));
    }
    let begun = Instant::now();
    let stop = Stop::Count(params.requests.into());
    lab.progress(0, 0, format!("{} requests for {ids} ids, kept {ttl} s", params.requests));
    let outcome = load::closed(clients, stop, |(connection, n, step, ids)| {
        Box::pin(async move {
            let id = FIRST + i64::from(*n % *ids);
            *n += *step;
            let request = connection.get(&format!("/users/{id}"));
            let status = connection.send(&request).await?;
            ensure!(status == 404, "{status}");
            Ok(())
        })
    })
    .await?;
    let took = begun.elapsed();
    ensure!(outcome.failed == 0, "a request failed: {:?}", outcome.first_error);
    child.stop().await?;
    let queries = fixture.queries().await? - before;
    child.restart().await?;
    let client = believing(&child).await?;
    let found = made_where_nobody_was(&client, ttl != "0").await?;
    Ok(Seen { queries, took, found })
}

async fn made_where_nobody_was(client: &Client, cached: bool) -> anyhow::Result<u32> {
    let mut found = 0;
    for n in 0..10 {
        let new = format!("new{n}");
        // The next ids are known, because they are counted up.
        let id = 11 + n;
        let nobody = [client.read(id).await?, client.read(id).await?];
        ensure!(nobody.iter().all(|it| it.status() == 404), "somebody has id {id}");
        // The second read has to find the absence, or else nothing is tried.
        let tried = is_hit(&nobody[1]) == cached;
        ensure!(client.sign_up(&new).await? == id, "another id than the next");
        let read = client.read(id).await?;
        found += u32::from(tried && name(read).await.is_ok_and(|name| name == new));
    }
    Ok(found)
}
