//! How many links have to move when a shard is added, and is every one found afterwards?

use futures_util::future::try_join_all;
use lab::{Experiment, Lab, Sabotage};

use super::fixture::{Fixture, UNLIMITED, lost};
use crate::{
    cases::client::Client,
    code,
    ring::{Ring, VIRTUAL_NODES},
};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Shards before one is added. With few, one point each may divide the ring evenly by luck
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=32))]
    shards: u32,
    /// Codes to place by calculation
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1_000..=5_000_000))]
    codes: u32,
    /// Links to create, move and look up on real databases
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    links: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "sharding",
        "Adding a shard to n moves about 1/(n+1) of the links with the ring and n/(n+1) with modulo; \
         virtual nodes even out the load; on real databases, after the move every link resolves",
        &["--shards", "2", "--codes", "50000", "--links", "300"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/ring.rs",
        replace: "self.points.partition_point(|&(point, _)| point < place)",
        with: "(place % self.points.len() as u64) as usize",
        check: "with the ring about 1/3 of the codes move",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    moved(&params, &lab);
    spread(&params, &lab);
    on_real_databases(&params, &lab).await
}

fn codes(count: u32) -> impl Iterator<Item = code::Code> {
    (0..count).map(|n| code::crc32_code(&format!("https://example.com/page/{n}"), 0))
}

/// The share of codes whose shard changes, by ring and by modulo.
fn moved(params: &Params, lab: &Lab) {
    let n = params.shards as usize;
    let (before, after) = (Ring::new(n, VIRTUAL_NODES), Ring::new(n + 1, VIRTUAL_NODES));
    let (mut by_ring, mut astray, mut by_modulo) = (0_u32, 0_u32, 0_u32);
    for code in codes(params.codes) {
        let (from, to) = (before.shard_of(&code), after.shard_of(&code));
        by_ring += u32::from(from != to);
        astray += u32::from(from != to && to != n);
        let hash = crc32fast::hash(code.as_str().as_bytes()) as usize;
        by_modulo += u32::from(hash % n != hash % (n + 1));
    }
    let share = |count: u32| f64::from(count) / f64::from(params.codes);
    let fair = 1.0 / (n as f64 + 1.0);
    lab.figure("share moved by the ring", share(by_ring) * 100.0, "%");
    lab.figure("share moved by modulo", share(by_modulo) * 100.0, "%");
    lab.check(
        format!("with the ring about 1/{} of the codes move", n + 1),
        format!("{:.1} % ± a quarter of it", fair * 100.0),
        format!("{:.1} %", share(by_ring) * 100.0),
        (share(by_ring) - fair).abs() < fair / 4.0,
    );
    lab.check_eq("codes that move between old shards, for nothing", 0, astray);
    lab.check(
        format!("with modulo about {n}/{} of them move", n + 1),
        format!("{:.1} % ± 2 %", (1.0 - fair) * 100.0),
        format!("{:.1} %", share(by_modulo) * 100.0),
        (share(by_modulo) - (1.0 - fair)).abs() < 0.02,
    );
}

/// The load of the fullest shard, by the number of virtual nodes.
fn spread(params: &Params, lab: &Lab) {
    let codes: Vec<_> = codes(params.codes).collect();
    let mut rows = Vec::new();
    let mut fullest = Vec::new();
    for virtual_nodes in [1, 4, 16, 64, 256] {
        let ring = Ring::new(params.shards as usize + 1, virtual_nodes);
        let mut loads = vec![0_u32; params.shards as usize + 1];
        for code in &codes {
            loads[ring.shard_of(code)] += 1;
        }
        let mean = codes.len() as f64 / loads.len() as f64;
        let of_mean = |load: Option<u32>| f64::from(load.unwrap_or(0)) / mean;
        let (least, most) =
            (of_mean(loads.iter().min().copied()), of_mean(loads.iter().max().copied()));
        rows.push(vec![virtual_nodes.to_string(), format!("{least:.2}"), format!("{most:.2}")]);
        fullest.push(most);
        let axes = (
            "virtual nodes per shard, as a power of two",
            "fullest shard, as a multiple of the mean",
        );
        lab.point(
            "Virtual nodes even out the load",
            axes,
            "fullest",
            (f64::from(virtual_nodes).log2(), most),
        );
        lab.point(
            "Virtual nodes even out the load",
            axes,
            "emptiest",
            (f64::from(virtual_nodes).log2(), least),
        );
    }
    let columns = ["virtual nodes", "emptiest shard ÷ mean", "fullest shard ÷ mean"];
    lab.table("Load by the number of virtual nodes", &columns, rows);
    let (one, many) = (fullest[0], fullest[fullest.len() - 1]);
    lab.check(
        "256 virtual nodes load the fullest shard less than one does",
        format!("below {one:.2}"),
        format!("{many:.2}"),
        many < one,
    );
    // The deviation of a shard's share is about 1/√(virtual nodes): 6 % of the mean, so 25 % is four of them.
    let even = many < 1.25;
    lab.check("and it is within a quarter of the mean", "below 1.25", format!("{many:.2}"), even);
}

/// Creates links on n shards, adds one, moves what has to move, and follows every link.
async fn on_real_databases(params: &Params, lab: &Lab) -> anyhow::Result<()> {
    let mut fixture = Fixture::of(lab).await?;
    for _ in 1..params.shards {
        fixture.add_shard().await?;
    }
    let (mut child, client) = fixture.start(&UNLIMITED).await?;
    let links = create(&client, params.links, lab).await?;
    child.stop().await?;

    fixture.add_shard().await?;
    // If the service started without the move, it would not find some links, and others could take their codes.
    let hides = fixture.start(&[]).await.is_ok();
    let (_child, client) = fixture.start(&["--reshard"]).await?;
    let new = fixture.shards[fixture.shards.len() - 1].pool().await?;
    let moved: i64 = sqlx::query_scalar("select count(*) from links").fetch_one(&new).await?;
    new.close().await;
    let lost = lost(&client, &links).await?;

    let n = params.shards as usize;
    let share = moved as f64 / f64::from(params.links);
    let fair = 1.0 / (n as f64 + 1.0);
    // The ring is uneven by itself, and with few links chance matters too.
    let tolerance = fair / 4.0 + 4.0 * (fair * (1.0 - fair) / f64::from(params.links)).sqrt();
    lab.figure("links moved between real databases", moved as f64, "");
    lab.check(
        format!("about 1/{} of the links moved", n + 1),
        format!("{:.1} % ± {:.1} %", fair * 100.0, tolerance * 100.0),
        format!("{:.1} %", share * 100.0),
        (share - fair).abs() < tolerance,
    );
    lab.check(
        "a start with the new shard and without the move",
        "refused",
        if hides { "served" } else { "refused" },
        !hides,
    );
    lab.check_eq("links not found after the move", 0, lost);
    Ok(())
}

/// Creates the links, eight at a time; returns the code and the URL of each.
async fn create(client: &Client, links: u32, lab: &Lab) -> anyhow::Result<Vec<(String, String)>> {
    let workers = (0..8).map(|worker| async move {
        let mut made = Vec::new();
        for n in (worker..links).step_by(8) {
            let url = format!("https://example.com/page/{n}");
            made.push((client.shorten(&url).await?, url));
            if worker == 0 {
                lab.progress(n.into(), links.into(), "links created");
            }
        }
        anyhow::Ok(made)
    });
    Ok(try_join_all(workers).await?.concat())
}
