//! API7: a customer names an address inside our network, in dozens of ways, and lets us call it.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use edge::lookup::Lookup;
use lab::{Experiment, Lab, Sabotage, skip};
use reqwest::Method;
use serde_json::json;

use super::{
    fixture::{Fixture, id_of},
    receiver::Receiver,
};
use crate::cases::client::{ADA, Client};
use crate::webhook::Webhooks;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Calls of a name whose address changes between them
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(4..=1_000))]
    flips: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "ssrf",
        "No spelling, scheme, redirect or name leads a webhook to an address inside our network, while the one address that \
         was allowed is called",
        &["--flips", "8"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/webhook.rs",
        replace: "Some(address) if !self.may_call(address) => Err(\"must be a public address\"),",
        with: "Some(_) if url.cannot_be_a_base() => Err(\"must be a public address\"),",
        check: "addresses inside our network that were accepted",
    })
    .sabotage(Sabotage {
        file: "src/webhook.rs",
        replace: "if !found.iter().all(|address| self.may_call(*address)) {",
        with: "if found.is_empty() {",
        check: "calls of a changing name that came to the address that was not allowed",
    })
    .sabotage(Sabotage {
        file: "src/webhook.rs",
        replace: "self.allowed == Some(address) || is_public(address.ip())",
        with: "self.allowed.is_some() || is_public(address.ip())",
        check: "connections to a service inside, by spelling",
    })
}

/// Spellings of this machine, with the port of a service inside for `{}`. With `https`, so that not the scheme is refused.
const LOOPBACK: [&str; 25] = [
    "https://127.0.0.1:{}/",
    "https://localhost:{}/",
    "https://LOCALHOST:{}/",
    "https://localhost.:{}/",
    "https://127.0.0.1.:{}/",
    "https://127.1:{}/",
    "https://127.0.1:{}/",
    "https://0x7f.0.0.1:{}/",
    "https://0x7f000001:{}/",
    "https://0177.0.0.1:{}/",
    "https://017700000001:{}/",
    "https://2130706433:{}/",
    "https://0:{}/",
    "https://0.0.0.0:{}/",
    "https://[::1]:{}/",
    "https://[::]:{}/",
    "https://[::ffff:127.0.0.1]:{}/",
    "https://[::ffff:7f00:1]:{}/",
    "https://[0:0:0:0:0:ffff:127.0.0.1]:{}/",
    "https://１２７.０.０.１:{}/",
    "https://①②⑦.0.0.1:{}/",
    "https://127%2e0%2e0%2e1:{}/",
    "https://ada:secret@127.0.0.1:{}/",
    "https://127.0.0.1:{}/#@hooks.example.com",
    "http://127.0.0.1:{}/",
];

/// Addresses elsewhere inside. They are offered and, if they are accepted, not called: nothing here leaves this machine.
const INSIDE: [&str; 24] = [
    "https://127.0.0.1/",
    "https://[::1]/",
    "https://0x7f.1/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.168.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://0xa9fea9fe/",
    "https://2852039166/",
    "https://100.64.0.1/",
    "https://198.18.0.1/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://[fe80::1]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[64:ff9b::a00:1]/",
    "https://[2002:a00:1::]/",
    "https://[2001:db8::1]/",
    "file:///etc/passwd",
    "gopher://10.0.0.1:6379/_FLUSHALL",
    "ftp://10.0.0.1/",
    "https://hooks.example.com@10.0.0.1/",
];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let pair = two_addresses().await?;
    let fixture = Fixture::of(&lab).await?;
    let inside = Receiver::at("127.0.0.1:0", "200 OK").await?;
    let redirect = format!("302 Found\r\nlocation: http://{}/", inside.address);
    let allowed = Receiver::at("127.0.0.1:0", &redirect).await?;
    let (_child, target) = fixture.start(&allowed.address.to_string()).await?;
    let ada = Client::login(&target, ADA).await?;
    let mut accepted = Vec::new();
    for url in INSIDE {
        let answer = ada.post("webhooks", &json!({ "url": url })).await?;
        if answer.status().is_success() {
            accepted.push(url);
        }
    }
    lab.text(accepted.join(" "));
    lab.check_eq("addresses inside our network that were accepted", 0, accepted.len());
    let mut rows = Vec::new();
    for url in LOOPBACK {
        let url = url.replace("{}", &inside.address.port().to_string());
        let before = inside.connections();
        let answer = ada.post("webhooks", &json!({ "url": url })).await?;
        let offered = answer.status().as_u16();
        let called = match id_of(&answer.text().await?) {
            Some(id) => {
                let test = ada.ask(Method::POST, &format!("webhooks/{id}/test")).await?;
                test.status().as_u16().to_string()
            }
            None => "-".to_owned(),
        };
        let reached = inside.connections() - before;
        rows.push(vec![url, offered.to_string(), called, reached.to_string()]);
    }
    let columns = ["address of a service inside", "offered", "called", "connections"];
    lab.table("Spellings of this machine", &columns, rows);
    lab.check_eq("connections to a service inside, by spelling", 0, inside.connections());
    // The one that may be called answers with a redirect to the one that may not.
    let (before, of_allowed) = (inside.connections(), allowed.connections());
    let url = json!({ "url": format!("http://{}/", allowed.address) });
    let id = id_of(&ada.post("webhooks", &url).await?.text().await?).unwrap_or_default();
    let test = ada.ask(Method::POST, &format!("webhooks/{id}/test")).await?.text().await?;
    lab.check_eq("calls that the allowed receiver got", 1, allowed.connections() - of_allowed);
    lab.check_eq("redirects that were followed inside", 0, inside.connections() - before);
    lab.check_eq("answers that show what the receiver said", false, test.contains("inside"));
    flips(params, &lab, pair).await
}

/// Receivers at one port of two addresses of this machine: the one that is allowed, and one that is not.
async fn two_addresses() -> anyhow::Result<[Receiver; 2]> {
    let mut why = String::new();
    // Another program may have the port at the second address.
    for _ in 0..5 {
        let allowed = Receiver::at("127.0.0.1:0", "200 OK").await?;
        let port = allowed.address.port();
        // macOS has no 127.0.0.2, and some containers have no IPv6.
        for other in [format!("127.0.0.2:{port}"), format!("[::1]:{port}")] {
            match Receiver::at(&other, "200 OK").await {
                Ok(inside) => return Ok([allowed, inside]),
                Err(error) => why = format!("{other}: {error}"),
            }
        }
    }
    Err(skip(format!("this machine has no second address for a service inside: {why}")))
}

/// A name that is the allowed address for the first question, and another for the next, and so on. Whoever asks once to
/// check and once to connect is led inside.
async fn flips(params: Params, lab: &Lab, pair: [Receiver; 2]) -> anyhow::Result<()> {
    let [allowed, inside] = pair;
    let port = allowed.address.port();
    let (questions, addresses) = (Arc::new(AtomicU32::new(0)), [allowed.address, inside.address]);
    let counter = Arc::clone(&questions);
    let lookup: Lookup = Arc::new(move |_, _| {
        let address = addresses[counter.fetch_add(1, Ordering::SeqCst) as usize % 2];
        Box::pin(async move { Ok(vec![address]) })
    });
    let webhooks = Webhooks::new(Some(allowed.address), lookup);
    let url = format!("https://hooks.example.com:{port}/");
    for n in 0..params.flips {
        lab.progress(n.into(), params.flips.into(), "calls of a name that changes");
        // Neither side speaks TLS, so nothing is delivered. What counts is who was connected to.
        webhooks.deliver(&url, String::new()).await;
    }
    lab.check_eq("questions for the name", params.flips, questions.load(Ordering::SeqCst));
    let half = params.flips.div_ceil(2);
    lab.check_eq(
        "calls of a changing name that came to the allowed address",
        half,
        allowed.connections(),
    );
    let check = "calls of a changing name that came to the address that was not allowed";
    lab.check_eq(check, 0, inside.connections());
    Ok(())
}
