//! API10: the receivers of webhooks answer with redirects, garbage, endless heads and bodies, scripts and SQL. What gets
//! through to us, and to our clients?

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::try_join_all;
use lab::{Experiment, Lab, Sabotage};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use super::fixture::{Fixture, id_of};
use crate::cases::client::{ADA, Client, new_word};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Times that each partner is called
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    calls: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "upstream",
        "Whatever a partner answers, the call ends, no word of it is shown, none of its endless answers is read to the end, \
         no redirect is followed, and only a status that says so counts as delivered",
        &["--calls", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/webhook.rs",
        replace: "        Ok(answer.status().as_u16())",
        with: "        let status = answer.status().as_u16();\n        \
               http_body_util::BodyExt::collect(answer.into_body()).await?;\n        Ok(status)",
        check: "MB that were taken of the longest answer",
    })
    .sabotage(Sabotage {
        file: "src/api.rs",
        replace: "status.is_some_and(|it| (200..300).contains(&it))",
        with: "status.is_some()",
        check: "bad answers that counted as delivered",
    })
}

/// How partners answer, and whether we may say that they have the message.
const PARTNERS: [(&str, bool); 15] = [
    ("good", true),
    ("scripts-and-sql", true),
    ("endless-body", true),
    ("endless-chunks", true),
    ("gzip-that-is-none", true),
    ("an-error", false),
    ("another-protocol", false),
    ("redirect-inside", false),
    ("redirect-to-a-file", false),
    ("redirect-again", false),
    ("garbage", false),
    ("endless-head", false),
    ("two-lengths", false),
    ("nothing", false),
    ("hangs-up", false),
];

/// What no partner sends more of: enough to see whether somebody reads it, and not more than a small machine has.
const ENDLESS: u64 = 100_000_000;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let word = new_word();
    let partner = Partner::new(word.clone()).await?;
    let (child, target) = fixture.start(&partner.address.to_string()).await?;
    let ada = Client::login(&target, ADA).await?;
    let mut hooks = Vec::new();
    for (name, good) in PARTNERS {
        let url = json!({ "url": format!("http://{}/{name}", partner.address) });
        let hook = id_of(&ada.post("webhooks", &url).await?.text().await?);
        hooks.push((name, good, hook.unwrap_or_default()));
    }
    let (mut rows, mut shown, mut believed, mut ended, mut calls) = (Vec::new(), 0, 0, 0, 0);
    let mut delivered_to_good = true;
    for round in 0..params.calls {
        lab.progress(round.into(), params.calls.into(), "calls of fifteen partners");
        let call = async |hook: &str| {
            let test = ada.request(Method::POST, &format!("webhooks/{hook}/test"));
            let answer = ada.target.send(test).await?;
            anyhow::Ok((answer.status().as_u16(), answer.text().await?))
        };
        let answers = try_join_all(hooks.iter().map(|(_, _, hook)| call(hook))).await?;
        for ((name, good, _), (status, text)) in hooks.iter().zip(answers) {
            let body: Value = serde_json::from_str(&text).unwrap_or_default();
            calls += 1;
            ended += u32::from(status == 200);
            shown += u32::from(text.contains(&word));
            believed += u32::from(body["delivered"] == true && !good);
            delivered_to_good &= *name != "good" || body["delivered"] == true;
            if round == 0 {
                let cells = [*name, &body["delivered"].to_string(), &body["status"].to_string()];
                rows.push(cells.map(str::to_owned).to_vec());
            }
        }
    }
    lab.table("What a client of ours learns", &["the partner", "delivered", "status"], rows);
    lab.check_eq("calls that ended with an answer of ours", calls, ended);
    lab.check_eq("answers of ours with a word of a partner's", 0, shown);
    lab.check_eq("bad answers that counted as delivered", 0, believed);
    lab.check_eq("a good answer counts as delivered", true, delivered_to_good);
    lab.check_eq("redirects that were followed", 0, partner.led.load(Ordering::SeqCst));
    let longest = partner.longest.load(Ordering::SeqCst) / 1_000_000;
    // What the kernels of both sides keep is not read by anybody.
    let check = "MB that were taken of the longest answer";
    lab.check(check, "20 at most", longest, longest <= 20);
    lab.text(format!("The server has {} MB.", child.memory().await? / 1_000_000));
    Ok(())
}

/// A server whose answers depend on the path. Dropping it ends its connections.
struct Partner {
    address: SocketAddr,
    /// Requests that came by a redirect.
    led: Arc<AtomicU64>,
    /// Bytes of the longest answer that the other side took.
    longest: Arc<AtomicU64>,
    accepting: AbortHandle,
}

impl Partner {
    async fn new(word: String) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (led, longest) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let counters = (Arc::clone(&led), Arc::clone(&longest));
        let accepting = tokio::spawn(async move {
            // Dropped with this task, and with it every connection.
            let mut answering = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (word, (led, longest)) = (word.clone(), counters.clone());
                answering.spawn(async move {
                    answer(stream, address, &word, &led, &longest).await;
                });
                while answering.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, led, longest, accepting: accepting.abort_handle() })
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Answers one request, and counts how many bytes could be sent.
async fn answer(
    mut stream: TcpStream,
    address: SocketAddr,
    word: &str,
    led: &AtomicU64,
    longest: &AtomicU64,
) {
    let mut request = vec![0; 4_096];
    // One read has the head of a small request.
    let read = stream.read(&mut request).await.unwrap_or(0);
    let head = String::from_utf8_lossy(&request[..read]).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let whole = |head: &str, body: &str| {
        format!(
            "HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    let more = "x".repeat(65_000);
    let chunk = format!("{:x}\r\n{more}\r\n", more.len());
    let (begin, repeat) = match path {
        "good" => (whole("200 OK", word), ""),
        "scripts-and-sql" => {
            let body =
                format!("<script>{word}</script>'; drop table invoices; --\r\nFORGED {word}");
            (whole("200 OK\r\ncontent-type: text/html", &body), "")
        }
        "endless-body" => {
            (format!("HTTP/1.1 200 OK\r\ncontent-length: {ENDLESS}\r\n\r\n{word}"), more.as_str())
        }
        "endless-chunks" => {
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(), chunk.as_str())
        }
        "gzip-that-is-none" => (whole("200 OK\r\ncontent-encoding: gzip", word), ""),
        "an-error" => (whole("500 Oops", word), ""),
        "another-protocol" => {
            let head = "HTTP/1.1 101 Changed\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n";
            (format!("{head}{word}"), "")
        }
        "redirect-inside" => {
            (whole(&format!("302 Found\r\nlocation: http://{address}/led"), word), "")
        }
        "redirect-to-a-file" => (whole("307 There\r\nlocation: file:///etc/passwd", word), ""),
        "redirect-again" => {
            (whole(&format!("308 Here\r\nlocation: http://{address}/led"), word), "")
        }
        "garbage" => (format!("\0\u{1}{word} 200 OK\r\n\r\n"), ""),
        "endless-head" => (format!("HTTP/1.1 200 OK\r\n{word}: "), more.as_str()),
        "two-lengths" => {
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 30\r\n\r\n";
            (format!("{head}{word}"), "")
        }
        "nothing" => {
            // Longer than anybody waits who has a limit.
            let _ = timeout(Duration::from_secs(6), stream.read(&mut [0; 1])).await;
            return;
        }
        "hangs-up" => return,
        _ => {
            led.fetch_add(1, Ordering::SeqCst);
            (whole("200 OK", word), "")
        }
    };
    let mut sent = begin.len() as u64;
    let mut written = stream.write_all(begin.as_bytes()).await;
    while written.is_ok() && !repeat.is_empty() && sent < ENDLESS {
        // While it goes on: whoever looks at the count does not wait for the end.
        longest.fetch_max(sent, Ordering::SeqCst);
        written = stream.write_all(repeat.as_bytes()).await;
        sent += repeat.len() as u64;
    }
    let _ = stream.shutdown().await;
}
