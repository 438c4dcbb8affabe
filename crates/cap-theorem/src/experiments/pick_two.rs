//! Can one pick consistency and availability, and leave the network to itself? A single server seems to do that, until
//! the network between it and its clients is cut.

use lab::{
    Experiment, Lab, Need, Sabotage, Service,
    fault::{Fault, Proxy},
};
use sqlx::{Connection, PgConnection};

use super::{fixture::Cluster, recording::Recording};
use crate::{cases::client::Client, checker::check, history::Action};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Requests before the cut, during it, and afterwards, each from both sides; half of them write
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=500))]
    requests: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "pick-two",
        "\"CA\" is no choice: a single PostgreSQL, and a cluster of one node, are linearizable and answer everything while \
         they can be reached. While a network is cut, clients on their side are answered, and the others are not",
        &["--requests", "6"],
        run,
    )
    .needs(&[Need::Own(Service::Postgres)])
    .sabotage(Sabotage {
        file: "src/coordinator.rs",
        replace: "Self::Quorum => nodes / 2 + 1,",
        with: "Self::Quorum => nodes.div_ceil(2) + 1,",
        check: "one node of ours, connected: requests that were answered",
    })
}

/// A way to a server.
enum Single {
    Postgres(String),
    Ours(Client),
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let server = lab.own_server(Service::Postgres).await?;
    let url = server.url()?;
    let mut connection = PgConnection::connect(&url).await?;
    sqlx::query("create table register (key text primary key, value text not null)")
        .execute(&mut connection)
        .await?;
    let proxy = Proxy::to_url(&url).await?;
    let ways = [Single::Postgres(proxy.url(&url)?), Single::Postgres(url)];
    cut(&lab, &params, "a single PostgreSQL", &ways, &proxy).await?;

    let cluster = Cluster::start(&[&[]]).await?;
    let proxy = Proxy::to(cluster.nodes[0].address()).await?;
    let far = Client::at(&format!("http://{}", proxy.address()))?;
    let ways = [Single::Ours(far), Single::Ours(cluster.clients[0].clone())];
    cut(&lab, &params, "one node of ours", &ways, &proxy).await
}

/// Sends requests before the cut, during it, and after it: through the network that is cut, and beside it.
async fn cut(
    lab: &Lab,
    params: &Params,
    name: &str,
    [far, near]: &[Single; 2],
    proxy: &Proxy,
) -> anyhow::Result<()> {
    let recording = Recording::default();
    for (network, fault, expected) in [
        ("connected", Fault::None, params.requests),
        ("cut off", Fault::Cut, 0),
        ("connected again", Fault::None, params.requests),
    ] {
        proxy.set(fault);
        let (mut answered, mut beside) = (0, 0);
        for n in 0..params.requests {
            let value = |client: u32| (n % 2 == 0).then(|| format!("{n} of {client}, {network}"));
            answered += u64::from(ask(far, &recording, 0, value(0)).await?);
            beside += u64::from(ask(near, &recording, 1, value(1)).await?);
        }
        let of = format!("{name}, {network}: requests that were answered");
        let both = |far, near| format!("{far}, and {near} on its own side");
        lab.check_eq(of, both(expected, params.requests), both(answered, beside));
    }
    let verdict = check(&recording.history()).is_ok();
    lab.check_eq(format!("{name}: the history is linearizable"), true, verdict);
    Ok(())
}

/// Writes this value, or reads. Returns whether an answer came.
async fn ask(
    way: &Single,
    recording: &Recording,
    client: u32,
    value: Option<String>,
) -> anyhow::Result<bool> {
    let url = match (way, &value) {
        (Single::Ours(node), Some(value)) => {
            return Ok(
                recording.write(client, node, "key", "kind=atomic", value).await?.status == 200
            );
        }
        (Single::Ours(node), None) => {
            return Ok(recording.read(client, node, "key", "kind=atomic").await?.status == 200);
        }
        (Single::Postgres(url), _) => url,
    };
    let called = recording.tick();
    let answer = match &value {
        Some(value) => postgres_write(url, value).await.map(|()| None),
        None => postgres_read(url).await,
    };
    let answered = answer.is_ok();
    match (value, answer) {
        (Some(value), _) => recording.note(client, "key", Action::Write(value), called, answered),
        (None, Ok(seen)) => recording.note(client, "key", Action::Read(seen), called, true),
        // A read without an answer says nothing.
        (None, Err(_)) => {}
    }
    Ok(answered)
}

async fn postgres_write(url: &str, value: &str) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    let write = r#"
        insert into register (key, value)
        values ('key', $1)
        on conflict (key) do update set value = excluded.value
    "#;
    sqlx::query(write).bind(value).execute(&mut connection).await?;
    Ok(())
}

async fn postgres_read(url: &str) -> sqlx::Result<Option<String>> {
    let mut connection = PgConnection::connect(url).await?;
    let read = sqlx::query_scalar("select value from register where key = 'key'");
    read.fetch_optional(&mut connection).await
}
