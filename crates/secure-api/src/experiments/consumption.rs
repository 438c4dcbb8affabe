//! API4: one client asks for as much as it can. What does it get, and what is left for the others?

use std::{
    io::{ErrorKind, Write},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::ensure;

use flate2::{Compression, write::GzEncoder};
use futures_util::future::join_all;
use lab::{
    Experiment, Lab, Sabotage, Target as Aim,
    child::Child,
    load::{self, Outcome, http::Connection},
    open_files,
};
use reqwest::Method;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet, time::timeout};

use super::fixture::{Fixture, NOBODY};
use crate::cases::client::{ADA, Client, GIL};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Bodies of 10 MB that are sent at once
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    bodies: u32,
    /// Clients that begin a request and do not end it
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    slow: u32,
    /// Exports that are asked for at once
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(8..=1_000))]
    exports: u32,
    /// Seconds for which another client is measured, alone and during the attacks
    #[arg(long, default_value_t = 4.0, value_parser = lab::experiment::seconds)]
    seconds: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "consumption",
        "No page is longer than its limit, bodies of 10 MB take little memory and no bomb becomes an invoice, four exports \
         at most are at the database however many are asked for, and another client is answered while thousands of slow \
         ones hold a connection",
        &["--bodies", "24", "--slow", "300", "--exports", "24", "--seconds", "0.3"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/frame.rs",
        replace: "const MAX_BODY: usize = 64 * 1_024;",
        with: "const MAX_BODY: usize = 64 * 1_024 * 1_024;",
        check: "memory that bodies of 10 MB took, in MB",
    })
    .sabotage(Sabotage {
        file: "src/lib.rs",
        replace: "Semaphore::new(4)",
        with: "Semaphore::new(400)",
        check: "exports that were at the database at once",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    open_files::allow_many();
    let fixture = Fixture::of(&lab).await?;
    let (child, target) = fixture.start(NOBODY).await?;
    let (ada, gil) = (Client::login(&target, ADA).await?, Client::login(&target, GIL).await?);
    for n in 0..30 {
        ada.invoice(&format!("Tea {n}")).await?;
    }
    pages(&lab, &ada).await?;
    lab.progress(1, 4, "bodies and bombs");
    bodies(params, &lab, &child, &ada).await?;
    bombs(&lab, &ada).await?;
    lab.progress(2, 4, "exports");
    exports(params, &lab, &fixture, &ada).await?;
    lab.progress(3, 4, "slow clients");
    others(params, &lab, &child, &ada, &gil).await
}

/// Pages and texts that are longer than anybody needs.
async fn pages(lab: &Lab, ada: &Client) -> anyhow::Result<()> {
    let long = "x ".repeat(20_000);
    // Quotation marks and brackets that do not close, for a search that tries all ways to read them.
    let nested = "\"(".repeat(5_000);
    let mut given = Vec::new();
    for path in [
        "invoices?limit=1000000000".to_owned(),
        "invoices?limit=101".to_owned(),
        "invoices?limit=-1".to_owned(),
        "exports?limit=1000000000".to_owned(),
        "exports?limit=1001".to_owned(),
        format!("invoices?search={}", long.replace(' ', "+")),
        format!("invoices?search={}", nested.replace('"', "%22")),
    ] {
        let answer = ada.get(&path).await?;
        if answer.status().is_success() {
            given.push(format!("{path:.40}"));
        }
    }
    lab.text(given.join(" "));
    lab.check_eq("pages and searches beyond the limits that were answered", 0, given.len());
    Ok(())
}

/// Megabytes that a process has more than before.
fn grown(before: u64, now: u64) -> u64 {
    now.saturating_sub(before) / 1_000_000
}

/// Bodies of 10 MB, all sent but for their end, so that a server that keeps them has them all at once.
async fn bodies(params: Params, lab: &Lab, child: &Child, ada: &Client) -> anyhow::Result<()> {
    let before = child.memory().await?;
    let token = ada.token.as_deref().unwrap_or_default();
    let body = format!("{{\"amount_cents\":1,\"title\":\"{}", "x".repeat(10_000_000));
    let head = format!(
        "POST /invoices HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len() + 2
    );
    let send = async || {
        let mut stream = TcpStream::connect(child.address()).await?;
        // A server that has heard enough closes the connection, and the rest cannot be written.
        let _ = timeout(Duration::from_secs(20), async {
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body.as_bytes()).await
        })
        .await;
        anyhow::Ok(stream)
    };
    let streams = join_all((0..params.bodies).map(|_| send())).await;
    // What was written may still be on its way: wait until the server grows no more.
    let (mut last, mut most) = (0, child.memory().await?);
    while most > last {
        last = most;
        tokio::time::sleep(Duration::from_millis(100)).await;
        most = most.max(child.memory().await?);
    }
    drop(streams);
    let (name, seen) = ("memory that bodies of 10 MB took, in MB", grown(before, most));
    lab.check(name, "64 at most", seen, seen <= 64);
    Ok(())
}

/// Bodies that are small when they are sent, and large when they are read.
async fn bombs(lab: &Lab, ada: &Client) -> anyhow::Result<()> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(b"{\"amount_cents\":1,\"title\":\"")?;
    for _ in 0..5_000 {
        gzip.write_all(&[b'x'; 10_000])?;
    }
    gzip.write_all(b"\"}")?;
    let fields = (0..5_000).map(|n| format!(",\"a{n}\":0")).collect::<String>();
    let bombs = [
        ("50 MB of letters, as gzip", Some("gzip"), gzip.finish()?),
        ("arrays in arrays, 20,000 deep", None, "[".repeat(20_000).into_bytes()),
        ("objects in objects, 10,000 deep", None, "{\"a\":".repeat(10_000).into_bytes()),
        (
            "an invoice with 5,000 fields",
            None,
            format!("{{\"title\":\"x\",\"amount_cents\":1{fields}}}").into_bytes(),
        ),
        (
            "a number of 60,000 digits",
            None,
            format!("{{\"title\":\"x\",\"amount_cents\":{}}}", "9".repeat(60_000)).into_bytes(),
        ),
    ];
    let (mut rows, mut taken) = (Vec::new(), 0);
    for (name, encoding, bomb) in bombs {
        let size = bomb.len();
        let mut request = ada.request(Method::POST, "invoices").body(bomb);
        request = request.header("content-type", "application/json").header("connection", "close");
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        let status = ada.target.send(request).await?.status();
        taken += u32::from(status.is_success());
        rows.push(vec![name.to_owned(), size.to_string(), status.as_u16().to_string()]);
    }
    lab.table("Bombs", &["what", "bytes sent", "status"], rows);
    lab.check_eq("bombs that were taken for an invoice", 0, taken);
    Ok(())
}

/// Exports while the table is locked, so that each that is begun stays until we have counted.
async fn exports(params: Params, lab: &Lab, fixture: &Fixture, ada: &Client) -> anyhow::Result<()> {
    let waiting = "select count(*) from pg_locks
                   where not granted and relation = 'invoices'::regclass
                     and database = (select oid from pg_database where datname = current_database())";
    let mut lock = fixture.pool.begin().await?;
    sqlx::query("lock table invoices in access exclusive mode").execute(&mut *lock).await?;
    let mut asking = JoinSet::new();
    for _ in 0..params.exports {
        let ada = ada.clone();
        asking.spawn(async move {
            let answer = ada.target.send(ada.request(Method::GET, "exports")).await?;
            anyhow::Ok(answer.text().await?.contains("too many documents"))
        });
    }
    let (mut most, mut refused, begun) = (0, 0, Instant::now());
    // Until all but four are refused, or more than four wait for the lock; or for as long as the program itself waits.
    while most <= 4 && (asking.len() > 4 || most < 4) && begun.elapsed() < Duration::from_secs(4) {
        let now: i64 = sqlx::query_scalar(waiting).fetch_one(&fixture.pool).await?;
        most = most.max(now);
        while let Some(answer) = asking.try_join_next() {
            refused += u32::from(answer??);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    lock.rollback().await?;
    while let Some(answer) = asking.join_next().await {
        refused += u32::from(answer??);
    }
    lab.text(format!("{} exports at once, of which {refused} were refused.", params.exports));
    let check = "exports that were at the database at once";
    lab.check(check, "1 to 4", most, (1..=4).contains(&most));
    Ok(())
}

/// Another client, alone and while others hold connections and ask for exports without a pause.
async fn others(
    params: Params,
    lab: &Lab,
    child: &Child,
    ada: &Client,
    gil: &Client,
) -> anyhow::Result<()> {
    let path = format!("/invoices/{}", gil.invoice("an invoice of the other client").await?);
    let alone = measured(params, child, gil, &path).await?;
    let before = child.memory().await?;
    let slow = slow_clients(params, child).await?;
    let held = grown(before, child.memory().await?);
    let most = 64 + u64::from(params.slow) / 25;
    let check = "memory that slow clients took, in MB";
    lab.check(check, format!("{most} at most"), held, held <= most);
    let flood = async || {
        loop {
            let _ = ada.target.send(ada.request(Method::GET, "exports")).await;
        }
    };
    let flood = join_all((0..16).map(|_| flood()));
    let attacked = tokio::select! {
        attacked = pin!(measured(params, child, gil, &path)) => attacked?,
        _ = flood => return Ok(()),
    };
    let rows = [("alone", &alone), ("during the attacks", &attacked)];
    let rows = rows.map(|(when, it)| [vec![when.to_owned()], it.open_cells()].concat());
    lab.table("Another client", &[&["when"][..], &Outcome::OPEN_COLUMNS].concat(), rows.to_vec());
    let ratio = attacked.percentile(99.0) / alone.percentile(99.0);
    let name = "p99 of another client during the attacks ÷ alone";
    lab.figure_with_target(name, ratio, "", Aim::AtMost(20.0));
    lab.check_eq("requests of another client that failed during the attacks", 0, attacked.failed);
    let (open, all) = (slow.iter().filter(|stream| is_open(stream)).count(), slow.len());
    let check = "slow clients that still held a connection";
    lab.check(check, format!("nine of ten of {all}"), open, open * 10 >= all * 9);
    Ok(())
}

/// Connections with the beginning of a request.
async fn slow_clients(params: Params, child: &Child) -> anyhow::Result<Vec<TcpStream>> {
    // Several at once, so that the last one comes long before the server has lost patience with the first.
    let mut opening = JoinSet::new();
    for n in 0..8 {
        let address = child.address().to_owned();
        // An eighth of all. The first tasks take what is left over.
        let share = (params.slow + 7 - n) / 8;
        opening.spawn(async move {
            let mut slow = Vec::new();
            for _ in 0..share {
                let mut stream = TcpStream::connect(&address).await?;
                // One that is cut off already is counted at the end.
                let _ = stream.write_all(b"GET /invoices HTTP/1.1\r\nhost: x\r\nx-slow: ").await;
                slow.push(stream);
            }
            anyhow::Ok(slow)
        });
    }
    let mut slow = Vec::new();
    while let Some(opened) = opening.join_next().await {
        slow.extend(opened??);
    }
    Ok(slow)
}

/// Whether the server has neither answered nor closed this connection.
fn is_open(stream: &TcpStream) -> bool {
    stream.try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Twenty-five requests a second of this client.
async fn measured(
    params: Params,
    child: &Child,
    who: &Client,
    path: &str,
) -> anyhow::Result<Outcome> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
        who.token.as_deref().unwrap_or_default()
    );
    let (host, free) = (child.address().to_owned(), Arc::new(Mutex::new(Vec::new())));
    let time = Duration::from_secs_f64(params.seconds);
    load::open(25.0, time, 16, |_| {
        let (host, request, free) = (host.clone(), request.clone(), Arc::clone(&free));
        async move {
            let idle = || free.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = idle().pop();
            let mut connection = match taken {
                Some(connection) => connection,
                None => Connection::open(&host).await?,
            };
            let status = connection.send(request.as_bytes()).await?;
            idle().push(connection);
            ensure!(status == 200, "{status}");
            Ok(())
        }
    })
    .await
}
