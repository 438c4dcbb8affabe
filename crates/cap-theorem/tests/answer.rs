//! What needs a fault, or a look inside. It also runs the experiments, with quick parameters, and the cases.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context, ensure};
use cap_theorem::{
    cases::client::Client,
    checker::check,
    draw::{Marks, draw},
    experiments::{fixture::Cluster, published::porcupine},
};
use conform::{
    expect::json_of,
    http::{lives_and_is_ready, problem},
    target::{Target, eventually},
};
use lab::{
    child::Child,
    fault::{Fault, Side},
    harness::{Outcome, Served, run},
    skip,
};
use reqwest::Method;
use serde_json::json;
use tokio::sync::mpsc;

const NAME: &str = "cap-theorem";

fn main() -> ExitCode {
    run(cap_theorem::answer(), || Box::pin(serve_for_cases()), tests())
}

/// The program as its cases want it: node 0, which starts the other two.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let home = tempfile::tempdir()?;
    let child = Child::serve(NAME).arg("--home").arg(home.path()).start().await?;
    Ok(Served::new(child, home))
}

lab::tests![
    nothing_acknowledged_by_a_quorum_is_lost_in_kills_and_cuts,
    a_torn_last_record_is_cut_off_and_a_damaged_log_is_refused,
    a_node_with_another_nodes_data_does_not_start,
    a_node_joins_once,
    one_process_counts_as_one_node,
    a_home_of_three_nodes_is_not_taken_for_one_of_five,
    a_write_whose_client_hangs_up_reaches_the_others_and_the_history,
    a_full_disk_is_told_and_takes_nothing_that_was_acknowledged,
    a_stranger_is_no_node,
    in_a_cluster_of_two_a_majority_is_both,
    one_direction_of_a_link_can_be_cut,
    a_paused_node_hears_of_it_later,
    the_drawing_in_the_chapter_is_ours,
    the_service_says_that_it_lives_and_is_ready_and_stops_cleanly,
];

/// Each node is killed once and cut off once, while a client writes through each node.
async fn nothing_acknowledged_by_a_quorum_is_lost_in_kills_and_cuts() -> Outcome {
    let mut cluster = Cluster::three().await?;
    let mut acknowledged = Vec::new();
    for round in 0..6 {
        let harmed = round % 3;
        let kills = round < 3;
        // It has room for all writes of a round, so no client waits for us.
        let (told, mut heard) = mpsc::channel(100);
        let mut writers = Vec::new();
        for (number, client) in cluster.clients.iter().cloned().enumerate() {
            let told = told.clone();
            writers.push(tokio::spawn(async move {
                for n in 0..5 {
                    // Few keys, so that the nodes' versions of them have to be merged.
                    let (key, value) = (format!("key-{n}"), format!("{round} {number} {n}"));
                    let put = client.put(&key, "w=quorum", &json!({ "value": value })).await;
                    if put.is_ok_and(|answer| answer.status() == 200) {
                        told.send((key, value)).await?;
                    }
                }
                anyhow::Ok(())
            }));
        }
        drop(told);
        // One write has its answer, and others are under way.
        acknowledged.extend(heard.recv().await);
        if kills {
            cluster.nodes[harmed].kill().await?;
        } else {
            cluster.isolate(harmed);
        }
        while let Some(written) = heard.recv().await {
            acknowledged.push(written);
        }
        for writer in writers {
            writer.await??;
        }
        if kills {
            cluster.nodes[harmed].restart().await?;
        }
        cluster.heal().await?;
    }
    // The two nodes that are not harmed take 60.
    ensure!(acknowledged.len() >= 40, "a majority takes writes: {}", acknowledged.len());
    for client in &cluster.clients {
        for (key, value) in &acknowledged {
            let (values, _) = client.read(key, "r=quorum").await?;
            ensure!(values.contains(value), "{value} of {key} is not in {values:?}");
        }
    }
    Ok(())
}

async fn a_torn_last_record_is_cut_off_and_a_damaged_log_is_refused() -> Outcome {
    let mut cluster = Cluster::three().await?;
    let client = cluster.clients[1].clone();
    for value in ["one", "two"] {
        client.write("key", "w=all", value, None).await?;
    }
    cluster.nodes[1].kill().await?;
    let path = cluster.home().join("node-1/log");
    let whole = fs::read(&path)?;
    // The beginning of a frame, as a kill leaves it.
    File::options().append(true).open(&path)?.write_all(&[200, 0, 0, 0, 1, 2, 3, 4, b'{'])?;
    cluster.nodes[1].restart().await?;
    ensure!(fs::read(&path)? == whole, "the torn record is still there");
    ensure!(client.read("key", "r=1").await?.0 == ["one", "two"]);

    cluster.nodes[1].kill().await?;
    let mut damaged = whole;
    // In the first of the two writes. The first frame says whose log it is.
    damaged[100] ^= 1;
    fs::write(&path, damaged)?;
    let error = cluster.nodes[1].restart().await.err().context("it started")?.to_string();
    ensure!(error.contains("the log is damaged at byte"), "{error}");
    Ok(())
}

async fn a_node_with_another_nodes_data_does_not_start() -> Outcome {
    let mut cluster = Cluster::three().await?;
    cluster.nodes[1].kill().await?;
    let folder = |number: u8| cluster.home().join(format!("node-{number}/log"));
    fs::copy(folder(0), folder(1))?;
    let error = cluster.nodes[1].restart().await.err().context("it started")?.to_string();
    ensure!(error.contains("this is the log of {\"cluster\""), "{error}");
    Ok(())
}

async fn a_node_joins_once() -> Outcome {
    let cluster = Cluster::three().await?;
    let second = Child::serve(NAME)
        .args(&["--node", "1"])
        .arg("--home")
        .arg(cluster.home())
        .env("CAP_CLUSTER_KEY", "of an experiment");
    let error = second.start().await.err().context("it started")?.to_string();
    ensure!(error.contains("another process is this node already"), "{error}");
    Ok(())
}

async fn one_process_counts_as_one_node() -> Outcome {
    let home = tempfile::tempdir()?;
    let node = |number: &str| {
        let child = Child::serve(NAME).args(&["--node", number]).arg("--home").arg(home.path());
        child.env("CAP_CLUSTER_KEY", "of a test")
    };
    let one = node("1").start().await?;
    let [itself, again] = ["1", "2"].map(|number| format!("{number}={}", one.url()));
    let zero = node("0").args(&["--peer", &itself, "--peer", &again]).start().await?;
    let client = Client::at(zero.url())?;
    client.write("key", "w=quorum", "v", None).await?;
    let body = problem(client.put("key", "w=all", &json!({ "value": "w" })).await?, 503).await?;
    ensure!((&body["answered"], &body["needed"]) == (&json!(2), &json!(3)), "{body}");
    Ok(())
}

async fn a_home_of_three_nodes_is_not_taken_for_one_of_five() -> Outcome {
    let home = tempfile::tempdir()?;
    let serve = |nodes| Child::serve(NAME).args(&["--nodes", nodes]).arg("--home").arg(home.path());
    let mut three = serve("3").start().await?;
    Client::at(three.url())?.write("key", "kind=atomic", "v", None).await?;
    three.stop().await?;
    let error = serve("5").start().await.err().context("it started")?.to_string();
    ensure!(error.contains("each size of the cluster"), "{error}");
    Ok(())
}

async fn a_write_whose_client_hangs_up_reaches_the_others_and_the_history() -> Outcome {
    let cluster = Cluster::three().await?;
    let client = cluster.clients[0].clone();
    client.write("before", "w=all", "v", None).await?;
    let [one, two] = [cluster.link(0, 1)?, cluster.link(0, 2)?];
    let caught = [one, two].map(|link| link.at_message(link.messages() + 1, Side::Before));
    let writing = {
        let client = client.clone();
        tokio::spawn(async move { client.put("key", "w=quorum", &json!({ "value": "v" })).await })
    };
    let [one, two] = caught;
    let held = (one.await?, two.await?);
    writing.abort();
    ensure!(writing.await.is_err(), "it had an answer");
    // The node has time to notice.
    for _ in 0..20 {
        client.read("before", "r=1").await?;
    }
    drop(held);
    ensure!(cluster.everywhere("key", "siblings", "v").await, "it did not reach the others");
    eventually("the history has it", async || {
        let path = "history?key=siblings/key";
        let seen = json_of(client.target.get(path).await?, 200).await?;
        Ok((seen["operations"][0]["action"]["write"] == "v").then_some(()))
    })
    .await
}

/// A small file system of memory, until this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&at)?;
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&at).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(at)),
            _ => Err(skip("it needs the right to mount a small disk")),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

async fn a_full_disk_is_told_and_takes_nothing_that_was_acknowledged() -> Outcome {
    let home = tempfile::tempdir()?;
    let _disk = SmallDisk::mount(home.path().join("node-0"))?;
    let serve = Child::serve(NAME).args(&["--node", "0"]).arg("--home").arg(home.path());
    let mut child = serve.start().await?;
    let client = Client::at(child.url())?;
    let value = "x".repeat(10_000);
    let mut acknowledged = Vec::new();
    let refused = loop {
        let key = format!("key-{}", acknowledged.len());
        let answer = client.put(&key, "w=1", &json!({ "value": value })).await?;
        if answer.status() != 200 {
            break answer;
        }
        acknowledged.push(key);
        ensure!(acknowledged.len() < 100, "this disk is too large");
    };
    problem(refused, 503).await?;
    for restart in [false, true] {
        if restart {
            child.kill().await?;
            child.restart().await?;
        }
        ensure!(acknowledged.len() > 10, "{}", acknowledged.len());
        for key in &acknowledged {
            ensure!(client.read(key, "r=1").await?.0 == [value.as_str()], "{key}, {restart}");
        }
        let refused = format!("key-{}", acknowledged.len());
        ensure!(client.read(&refused, "r=1").await?.0.is_empty(), "it was refused");
    }
    Ok(())
}

async fn a_stranger_is_no_node() -> Outcome {
    let cluster = Cluster::three().await?;
    let client = &cluster.clients[0];
    let slot = json!({ "kind": "siblings", "key": "key" });
    let forged = json!([{ "value": "forged", "dot": { "node": 1, "counter": 9 }, "past": {} }]);
    let exchange = json!({ "slot": slot, "record": { "versions": forged } });
    for key in [None, Some("of somebody else")] {
        let request = client.target.request(Method::POST, "replica").json(&exchange);
        let request = match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        problem(client.target.send(request).await?, 401).await?;
    }
    ensure!(client.read("key", "r=all").await?.0.is_empty());
    // With the key it is one of us.
    let request = client.target.request(Method::POST, "replica").json(&exchange);
    let request = request.bearer_auth("of an experiment");
    json_of(client.target.send(request).await?, 200).await?;
    ensure!(client.read("key", "r=1").await?.0 == ["forged"]);
    Ok(())
}

async fn in_a_cluster_of_two_a_majority_is_both() -> Outcome {
    let cluster = Cluster::start(&[&[], &[]]).await?;
    let [one, other] = [0, 1].map(|node| &cluster.clients[node]);
    one.write("key", "w=quorum", "old", None).await?;
    cluster.isolate(0);
    for client in [one, other] {
        let put = client.put("key", "w=quorum", &json!({ "value": "refused" })).await?;
        let body = problem(put, 503).await?;
        ensure!((&body["answered"], &body["needed"]) == (&json!(1), &json!(2)), "{body}");
        problem(client.get("key", "r=quorum").await?, 503).await?;
        client.write("key", "w=1", "new", None).await?;
    }
    cluster.heal().await?;
    // What was refused may have taken effect all the same.
    let expected = ["new", "new", "old", "refused", "refused"];
    ensure!(one.read("key", "r=quorum").await?.0 == expected);
    Ok(())
}

/// Node 0 cannot call the others, and they can call node 0.
async fn one_direction_of_a_link_can_be_cut() -> Outcome {
    let cluster = Cluster::three().await?;
    for to in [1, 2] {
        cluster.link(0, to)?.set(Fault::Cut);
    }
    let put = cluster.clients[0].put("key", "w=quorum", &json!({ "value": "v" })).await?;
    problem(put, 503).await?;
    cluster.clients[1].write("key", "w=all", "w", None).await?;
    ensure!(cluster.clients[0].read("key", "r=1").await?.0 == ["v", "w"]);
    let seen = json_of(cluster.clients[0].target.get("cluster").await?, 200).await?;
    let reachable: Vec<_> =
        seen["others"].as_array().into_iter().flatten().map(|it| it["reachable"].clone()).collect();
    ensure!(reachable == [json!(false), json!(false)], "{seen}");
    Ok(())
}

async fn a_paused_node_hears_of_it_later() -> Outcome {
    let cluster = Cluster::three().await?;
    cluster.nodes[2].pause()?;
    for kind in ["siblings", "lww", "atomic"] {
        cluster.clients[0].write("key", &format!("kind={kind}"), "v", None).await?;
        ensure!(
            cluster.clients[1].read("key", &format!("kind={kind}")).await?.0 == ["v"],
            "{kind}"
        );
    }
    cluster.nodes[2].resume()?;
    for kind in ["siblings", "lww", "atomic"] {
        eventually("the node has it too", async || {
            let path = format!("keys/key/versions?kind={kind}");
            let seen = json_of(cluster.clients[2].target.get(&path).await?, 200).await?;
            Ok((seen["versions"][0]["value"] == "v").then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn the_drawing_in_the_chapter_is_ours() -> Outcome {
    let chapter = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/chapter.md"))?;
    let judged = porcupine().into_iter().find(|it| !it.linearizable).context("an example")?;
    let violation = check(&judged.history).err().context("it is linearizable")?;
    let svg = draw(&judged.history, Marks { partition: None, anomaly: Some(violation.at) });
    ensure!(chapter.contains(&svg), "the chapter should have this drawing:\n{svg}");
    Ok(())
}

async fn the_service_says_that_it_lives_and_is_ready_and_stops_cleanly() -> Outcome {
    let home = tempfile::tempdir()?;
    let mut child = Child::serve(NAME).arg("--home").arg(home.path()).start().await?;
    lives_and_is_ready(&Target::new(child.url(), None)?).await?;
    Client::at(child.url())?.write("key", "w=all", "v", None).await?;
    let status = child.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    Ok(())
}
