//! A lease gives a lock to one owner. What if the owner is held up until its lease has ended, and then goes on?

use std::time::Duration;

use anyhow::Context;
use conform::target::within;
use lab::{
    Experiment, Lab, Need, Sabotage, Service,
    fault::{Proxy, Side},
    keys::Keys,
};
use redis::aio::MultiplexedConnection;
use serde_json::json;
use tokio::task::JoinHandle;

use super::fixture::Cluster;
use crate::cases::client::Client;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// How often it is played with each kind of storage
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=50))]
    rounds: u64,
    /// Milliseconds until the lease of an owner ends
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(50..=10_000))]
    lease_ms: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "stale-leader",
        "When a lease ends while its owner's write is under way, a second owner gets the lock, and the late write replaces \
         the newer one. Version vectors keep both. A storage that checks fencing tokens refuses the late one",
        &["--rounds", "1"],
        run,
    )
    .needs(&[Need::Shared(Service::Redis)])
    .sabotage(Sabotage {
        file: "src/version.rs",
        replace: "counter: known.counter(node) + 1",
        with: "counter: known.counter(node).min(past.counter(node)) + 1",
        check: "version vectors: rounds that ended with both values",
    })
}

/// For a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the lock protects.
#[derive(Clone, Copy)]
enum Storage {
    /// A register of ours, of this kind.
    Register(&'static str),
    /// A Redis that remembers the greatest token.
    Fenced,
}

const STORAGES: [(&str, Storage); 3] = [
    ("last write wins", Storage::Register("lww")),
    ("version vectors", Storage::Register("siblings")),
    ("fencing tokens", Storage::Fenced),
];

/// What was seen in a round.
struct Played {
    /// The first owner still had the lease when its write was under way.
    owned: bool,
    /// The first owner's write was taken.
    late_is_taken: bool,
    /// What is stored in the end.
    values: Vec<String>,
}

/// A write that the network holds.
type Late = JoinHandle<anyhow::Result<bool>>;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let keys = lab.keys().await?;
    let cluster = Cluster::three().await?;
    let rounds = params.rounds;
    let mut rows = Vec::new();
    let mut of_each = Vec::new();
    let mut owned = 0_u32;
    for (step, (name, storage)) in (0..).zip(STORAGES) {
        let (mut taken, mut ends) = (0, Vec::new());
        for round in 0..rounds {
            lab.progress(step * rounds + round, 3 * rounds, name);
            let key = format!("{name} {round}").replace(' ', "-");
            let played = play(&keys, &cluster, storage, &key, params.lease_ms).await?;
            owned += u32::from(played.owned);
            taken += u64::from(played.late_is_taken);
            ends.push(played.values.join(" and "));
        }
        let ended_with = |values: &str| ends.iter().filter(|it| *it == values).count() as u64;
        let last = ends.last().cloned().unwrap_or_default();
        rows.push(vec![name.to_owned(), format!("{taken} of {rounds}"), last]);
        of_each.push((taken, ["late", "newer", "late and newer"].map(ended_with)));
    }
    let [(lww, lww_ends), (vectors, vectors_ends), (fenced, fenced_ends)] = of_each[..] else {
        anyhow::bail!("three kinds of storage");
    };
    lab.check_eq("last write wins: late writes that were taken", rounds, lww);
    lab.check_eq("last write wins: rounds that ended with the late value", rounds, lww_ends[0]);
    lab.check_eq("version vectors: late writes that were taken", rounds, vectors);
    lab.check_eq("version vectors: rounds that ended with both values", rounds, vectors_ends[2]);
    lab.check_eq("fencing tokens: late writes that were taken", 0, fenced);
    lab.check_eq("fencing tokens: rounds that ended with the newer value", rounds, fenced_ends[1]);
    // It depends on how busy the machine is.
    let name = "rounds in which the first owner had the lease when its write was under way";
    lab.figure(name, f64::from(owned), "");
    lab.table("The late owner", &["storage", "late writes taken", "stored in the end"], rows);
    Ok(())
}

/// The first owner gets the lock and writes, and the network holds its message until the second owner has written. For
/// the storage it is the same as if the process had been paused just before it sent.
async fn play(
    keys: &Keys,
    cluster: &Cluster,
    storage: Storage,
    key: &str,
    lease_ms: u64,
) -> anyhow::Result<Played> {
    let mut redis = keys.connection().await?;
    let lock = format!("{}lock-{key}", keys.prefix());
    let fenced = format!("{}{key}", keys.prefix());
    let node = &cluster.clients[0];
    let way = match storage {
        Storage::Register(_) => Proxy::to(cluster.nodes[0].address()).await?,
        Storage::Fenced => Proxy::to_url(keys.url()).await?,
    };
    let slow_node = Client::at(&format!("http://{}", way.address()))?;
    if let Storage::Register(kind) = storage {
        node.write(key, &format!("w=all&kind={kind}"), "first", None).await?;
    }
    let token = acquire(&mut redis, &lock, lease_ms).await?.context("the lock is taken")?;
    // Both owners read what is there, and write on.
    let mut late_redis = None;
    let context = match storage {
        Storage::Register(kind) => slow_node.read(key, &format!("kind={kind}")).await?.1,
        Storage::Fenced => {
            // The network holds its message for a whole lease.
            let patience = Some(PATIENCE + Duration::from_millis(lease_ms));
            let patient = redis::AsyncConnectionConfig::new()
                .set_connection_timeout(patience)
                .set_response_timeout(patience);
            let client = redis::Client::open(way.url(keys.url())?)?;
            late_redis = Some(client.get_multiplexed_async_connection_with_config(&patient).await?);
            String::new()
        }
    };
    let caught = way.at_message(way.messages() + 1, Side::Before);
    let late: Late = {
        let (slow_node, key, context, fenced) =
            (slow_node, key.to_owned(), context.clone(), fenced.clone());
        tokio::spawn(async move {
            match (storage, late_redis) {
                (Storage::Fenced, Some(mut redis)) => {
                    write_fenced(&mut redis, &fenced, token, "late").await
                }
                (Storage::Register(kind), _) => {
                    write_register(&slow_node, &key, kind, "late", &context).await
                }
                _ => anyhow::bail!("no connection"),
            }
        })
    };
    let held = caught.await?;
    let owned = redis::cmd("EXISTS").arg(&lock).query_async(&mut redis).await?;
    let lease = async || acquire(&mut redis.clone(), &lock, lease_ms).await;
    let second = within(PATIENCE, "the lease ends", lease).await?;
    match storage {
        Storage::Fenced => drop(write_fenced(&mut redis, &fenced, second, "newer").await?),
        Storage::Register(kind) => {
            write_register(node, key, kind, "newer", &context).await?;
        }
    }
    drop(held);
    let late_is_taken = late.await??;
    let values = match storage {
        Storage::Register(kind) => node.read(key, &format!("r=all&kind={kind}")).await?.0,
        Storage::Fenced => {
            let mut command = redis::cmd("HGET");
            vec![command.arg(&fenced).arg("value").query_async(&mut redis).await?]
        }
    };
    Ok(Played { owned, late_is_taken, values })
}

/// Takes the lock, if nobody has it, and returns a token that is greater than all before.
async fn acquire(
    redis: &mut MultiplexedConnection,
    lock: &str,
    lease_ms: u64,
) -> anyhow::Result<Option<u64>> {
    // In one step: an owner that was held up between the lock and the token would get a greater token than the next owner.
    const LOCK_AND_COUNT: &str = r"
        if redis.call('set', KEYS[1], 'taken', 'NX', 'PX', ARGV[1]) then
            return redis.call('incr', KEYS[2])
        end
        return false
    ";
    let mut command = redis::cmd("EVAL");
    command.arg(LOCK_AND_COUNT).arg(2).arg(lock).arg(format!("{lock}-token")).arg(lease_ms);
    Ok(command.query_async(redis).await?)
}

/// Writes, unless an owner with a greater token has written before. Returns whether it has.
async fn write_fenced(
    redis: &mut MultiplexedConnection,
    key: &str,
    token: u64,
    value: &str,
) -> anyhow::Result<bool> {
    const CHECK_AND_WRITE: &str = r"
        if tonumber(redis.call('hget', KEYS[1], 'token') or 0) > tonumber(ARGV[1]) then
            return 0
        end
        redis.call('hset', KEYS[1], 'token', ARGV[1], 'value', ARGV[2])
        return 1
    ";
    let mut command = redis::cmd("EVAL");
    command.arg(CHECK_AND_WRITE).arg(1).arg(key).arg(token).arg(value);
    Ok(command.query_async(redis).await?)
}

/// Writes with the context of what was read, if this kind takes one. Returns whether the write was taken.
async fn write_register(
    node: &Client,
    key: &str,
    kind: &str,
    value: &str,
    context: &str,
) -> anyhow::Result<bool> {
    let body = match kind {
        "siblings" => json!({ "value": value, "context": context }),
        _ => json!({ "value": value }),
    };
    Ok(node.put(key, &format!("kind={kind}"), &body).await?.status() == 200)
}
