//! What is left of the acknowledged transfers when the primary is lost for good, and a standby takes over?

use std::time::{Duration, Instant};

use anyhow::Context;
use lab::{
    Experiment, Lab, Need, Sabotage,
    fault::{Fault, Proxy},
    group::{
        PostgresGroup, ServerGroup,
        postgres::{ASYNCHRONOUS, PRIMARY, SYNCHRONOUS},
        until,
    },
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::{task::JoinSet, time::sleep};

use super::{
    books::Books,
    fixture::Fixture,
    paying::{ENOUGH, Paying, kept},
};
use crate::cases::client::{Client, Payment, said};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Milliseconds that a byte needs from the primary to the asynchronous standby
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(5..=1_000))]
    line_ms: u64,
    /// Seconds of load before the primary is lost
    #[arg(long, default_value_t = 1.0, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Clients that pay
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=64))]
    clients: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "failover",
        "When the primary is lost for good, an asynchronous standby lacks acknowledged transfers and a synchronous one \
         lacks none. A paused synchronous standby holds up every commit; cancelling the wait commits all the same",
        &["--seconds", "0.3", "--clients", "8"],
        run,
    )
    .needs(&[Need::Group(PostgresGroup::GROUP)])
    .sabotage(Sabotage {
        file: "src/store/keys.rs",
        replace: "for key share",
        with: "",
        check: "a payment that is sent again while the standby is paused",
    })
    .sabotage(Sabotage {
        file: "src/database.rs",
        replace: r#""begin isolation level read committed""#,
        with: r#""begin isolation level read committed; set local synchronous_commit = local""#,
        check: "payments that wait for the paused standby",
    })
}

const ACCOUNTS: usize = 20;
const START: i64 = 100_000_000;
/// A bank gives up after four seconds. What is to wait is seen to wait before that.
const PATIENCE: Duration = Duration::from_secs(3);

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    lab.progress(0, 3, "a primary with two standbys is made");
    let group = lab.group::<PostgresGroup>().await?;
    let primary = group.members[PRIMARY].url()?;
    let line = Proxy::to_url(&primary).await?;
    line.set(Fault::Delay(Duration::from_millis(params.line_ms)));
    follow_through(&group, &line.url(&primary)?).await?;
    let fixture = Fixture::on(&primary).await?;
    let (_bank, client) = fixture.start(&[]).await?;
    let accounts = client.open_all(ACCOUNTS, START).await?;
    lab.progress(1, 3, "the synchronous standby is paused");
    pause_the_standby(&lab, &group, &fixture, &client, &accounts).await?;
    lab.progress(2, 3, "the primary is lost");
    lose_the_primary(&params, &lab, group, &fixture, &line, &client, &accounts).await?;
    // Its lock is on a connection to the server that we killed; the servers go with the experiment.
    drop(fixture);
    Ok(())
}

/// Lets the asynchronous standby follow its primary over the line.
async fn follow_through(group: &PostgresGroup, primary: &str) -> anyhow::Result<()> {
    let url = url::Url::parse(primary)?;
    let conninfo = format!(
        "host=127.0.0.1 port={} user={} password={} application_name=far",
        url.port().context("no port")?,
        url.username(),
        url.password().unwrap_or_default(),
    );
    let mut standby = PgConnection::connect(&group.members[ASYNCHRONOUS].url()?).await?;
    // It takes no parameters. The password is one that the lab has made, of hexadecimal digits.
    let set = AssertSqlSafe(format!("alter system set primary_conninfo = '{conninfo}'"));
    sqlx::query(set).execute(&mut standby).await?;
    sqlx::query("select pg_reload_conf()").execute(&mut standby).await?;
    until("the standby to follow over the line", Duration::from_secs(20), async || {
        let mut primary = PgConnection::connect(primary).await?;
        let streams = "select pid from pg_stat_replication \
                       where application_name = 'far' and state = 'streaming'";
        Ok(sqlx::query_scalar::<_, i32>(streams).fetch_optional(&mut primary).await?)
    })
    .await
    .map(drop)
}

/// Three payments between accounts of their own wait for the standby. One stops waiting, because we cancel its wait.
async fn pause_the_standby(
    lab: &Lab,
    group: &PostgresGroup,
    fixture: &Fixture,
    client: &Client,
    accounts: &[i64],
) -> anyhow::Result<()> {
    let mut connection = fixture.connect().await?;
    let standby = &group.members[SYNCHRONOUS];
    standby.pause().await?;
    let mut sent = JoinSet::new();
    for pair in accounts[..6].chunks(2) {
        let key = format!("waits-{}", pair[0]);
        sent.spawn(send(client.clone(), Payment { key, from: pair[0], to: pair[1], cents: 5 }));
    }
    let waiting = until_waiting(&mut connection, 3, || false).await?;
    lab.check_eq("payments that wait for the paused standby", 3, waiting.len());
    let visible = transfers(&mut connection).await?;
    lab.check_eq("of these, transfers that others can see", 0, visible);
    if let Some(pid) = waiting.first() {
        sqlx::query("select pg_cancel_backend($1)").bind(pid).execute(&mut connection).await?;
    }
    let (payment, status) = sent.join_next().await.context("three were sent")???;
    lab.check_eq("the answer for the payment whose wait was cancelled", 201, status);
    let behind: i64 = sqlx::query_scalar(
        r#"
        select pg_wal_lsn_diff(pg_current_wal_flush_lsn(), flush_lsn)::bigint
        from pg_stat_replication
        where sync_state = 'sync'
        "#,
    )
    .fetch_one(&mut connection)
    .await?;
    let name = "bytes of the log that the standby has not confirmed at that moment";
    lab.check(name, "1 or more", behind, behind > 0);
    // A repeated request must not be told of a transfer that a failover would lose.
    let two_wait = sent.len();
    let again = sent.spawn(send(client.clone(), payment.clone()));
    let waiting = until_waiting(&mut connection, two_wait + 1, || again.is_finished()).await?;
    let seen = if waiting.len() <= two_wait { "answered" } else { "waits" };
    let name = "a payment that is sent again while the standby is paused";
    lab.check_eq(name, "waits".to_owned(), seen.to_owned());
    standby.resume().await?;
    let mut paid = 0;
    while let Some(answer) = sent.join_next().await {
        paid += u32::from(answer??.1 == 201);
    }
    lab.check_eq("payments that are answered with 201 when the standby goes on", 3, paid);
    Ok(())
}

/// Sends the payment until it is decided.
async fn send(client: Client, payment: Payment) -> anyhow::Result<(Payment, u16)> {
    let (status, _) = said(client.send_until_decided(&payment).await?).await?;
    Ok((payment, status))
}

/// Waits until this many commits wait for a standby, or it is too late for that. Returns who waits.
async fn until_waiting(
    connection: &mut PgConnection,
    wanted: usize,
    too_late: impl Fn() -> bool,
) -> anyhow::Result<Vec<i32>> {
    let begun = Instant::now();
    loop {
        let waiting: Vec<i32> = sqlx::query_scalar(
            r#"
            select pid
            from pg_stat_activity
            where datname = current_database() and wait_event = 'SyncRep'
            "#,
        )
        .fetch_all(&mut *connection)
        .await?;
        if waiting.len() >= wanted || too_late() || begun.elapsed() > PATIENCE {
            return Ok(waiting);
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Transfers between customers.
async fn transfers(connection: &mut PgConnection) -> anyhow::Result<i64> {
    let count = sqlx::query_scalar("select count(*) from transfers where from_account > 0");
    Ok(count.fetch_one(connection).await?)
}

/// Kills the primary under load. Then each of the standbys is promoted: this is what would be left.
async fn lose_the_primary(
    params: &Params,
    lab: &Lab,
    mut group: PostgresGroup,
    fixture: &Fixture,
    line: &Proxy,
    client: &Client,
    accounts: &[i64],
) -> anyhow::Result<()> {
    let paying = Paying::start(client, accounts, params.clients, 0);
    sleep(Duration::from_secs_f64(params.seconds)).await;
    paying.enough().await?;
    // What is on the line goes with the primary's data centre.
    line.set(Fault::Cut);
    group.members[PRIMARY].kill().await?;
    let acknowledged = paying.ended().await;
    let all = acknowledged.len();
    lab.check("transfers that were acknowledged", format!("{ENOUGH} or more"), all, all >= ENOUGH);
    let mut rows = Vec::new();
    for (standby, member) in [("synchronous", SYNCHRONOUS), ("asynchronous", ASYNCHRONOUS)] {
        group.promote(member).await?;
        let mut url = url::Url::parse(fixture.database.url())?;
        let port = group.members[member].port()?;
        url.set_port(Some(port)).ok().context("this URL can have no port")?;
        let mut connection = PgConnection::connect(url.as_str()).await?;
        let kept = kept(&mut connection).await?;
        let lost = acknowledged.iter().filter(|(key, _)| !kept.contains(key)).count();
        rows.push(vec![standby.to_owned(), all.to_string(), lost.to_string()]);
        let name = format!("acknowledged transfers that the {standby} standby lacks");
        if member == SYNCHRONOUS {
            lab.check_eq(name, 0, lost);
        } else {
            lab.check(name.clone(), "1 or more", lost, lost > 0);
            lab.figure(name, lost as f64, "");
        }
        let right = Books::right(START * i64::try_from(ACCOUNTS)?).words();
        let name = format!("the books of the {standby} standby");
        lab.check_eq(name, right, Books::read(&mut connection).await?.words());
    }
    let columns = ["the new primary was", "acknowledged before", "lacking of these"];
    lab.table("One primary is lost; who takes over?", &columns, rows);
    Ok(())
}
