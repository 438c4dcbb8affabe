//! Does a header that a client has made up buy it anything?

use lab::{Experiment, Lab, Sabotage, child::Child, load::http::Connection};

use super::fixture::{Tally, in_memory, request};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Forged requests
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(50..=60_000))]
    requests: u32,
    /// Requests that one client may send
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=40))]
    limit: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "spoofing",
        "A thousand forged X-Forwarded-For headers do not buy one extra request, with and without a proxy in \
         front; read from the left they would buy a thousand",
        &["--requests", "200"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/client.rs",
        replace: "self.proxies.client_of(peer, &request.headers)",
        with: r#"let header = request.headers.get("x-forwarded-for").and_then(|it| it.to_str().ok());
        header.and_then(|it| it.split(',').next()?.trim().parse().ok()).unwrap_or(peer)"#,
        check: "behind a trusted proxy: let through with a forged address",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let limit = params.limit.to_string();
    let serve = || in_memory().args(&["--limit", &limit, "--window", "1d"]);
    let mut rows = Vec::new();
    // Another forged address for each request.
    let forged: Vec<_> =
        (0..params.requests).map(|n| format!("198.18.{}.{}", n / 250, n % 250 + 1)).collect();
    let tried = u64::from(params.requests);

    lab.progress(0, 4, "straight to the service");
    let child = serve().start().await?;
    for (done, header) in (1..).zip(["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-API-Key"]) {
        let requests = forged.iter().map(|it| match header {
            "Forwarded" => request(&child, &[(header, &format!("for={it}"))]),
            _ => request(&child, &[(header, it)]),
        });
        let tally = send_all(&child, &requests.collect::<Vec<_>>()).await?;
        rows.push(tally.row(&format!("no proxy, forged {header}")));
        // All requests come from one client. With the first header it uses its quota up, and the others buy nothing.
        let expected = if done == 1 { params.limit } else { 0 };
        lab.check_eq(
            format!("no proxy is trusted: let through with forged {header}"),
            expected,
            tally.passed,
        );
        lab.check_eq(format!("answered with neither 200 nor 429, {header}"), 0, tally.other);
    }
    drop(child);

    lab.progress(1, 4, "through a proxy that appends whom it saw");
    let child = serve().args(&["--trusted-proxy", "127.0.0.1"]).start().await?;
    let ways: [Way; 4] = [
        ("a forged address", |it| it.to_owned()),
        ("a forged trusted hop", |it| format!("{it}, 127.0.0.1")),
        ("a quotation mark left open", |it| format!("{it}, \"")),
        ("garbage", |it| format!("{it}, _hidden, unknown, 999.1.1.1, ,,")),
    ];
    let mut expected = params.limit;
    for (name, forge) in ways {
        let requests = forged.iter().map(|it| {
            // What the proxy makes of it, for a client that it saw at 203.0.113.7.
            request(&child, &[("X-Forwarded-For", &format!("{}, 203.0.113.7", forge(it)))])
        });
        let tally = send_all(&child, &requests.collect::<Vec<_>>()).await?;
        rows.push(tally.row(&format!("behind a proxy, {name}")));
        lab.check_eq(
            format!("behind a trusted proxy: let through with {name}"),
            expected,
            tally.passed,
        );
        // An error would let nobody through either.
        lab.check_eq(format!("refused with 429, {name}"), tried - expected, tally.refused);
        expected = 0;
    }

    lab.progress(2, 4, "from a thousand addresses of one IPv6 network");
    let requests = (0..params.requests).map(|n| {
        request(&child, &[("X-Forwarded-For", &format!("2001:db8::{:x}:{n:x}", n ^ 0xabc))])
    });
    let tally = send_all(&child, &requests.collect::<Vec<_>>()).await?;
    rows.push(tally.row("behind a proxy, addresses of one /64"));
    lab.check_eq("let through from addresses of one IPv6 /64", params.limit, tally.passed);

    lab.progress(3, 4, "the same, read from the left");
    let tally = from_the_left(&child, &forged).await?;
    rows.push(tally.row("the leftmost address believed"));
    lab.check_eq("let through if the leftmost address were believed", tried, tally.passed);
    lab.table("One client that forges headers", &["way", "let through", "refused"], rows);
    Ok(())
}

/// A name, and what the client writes in front of what the proxy appends.
type Way = (&'static str, fn(&str) -> String);

/// Sends these requests one after another.
async fn send_all(child: &Child, requests: &[Vec<u8>]) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let mut connection = Connection::open(child.address()).await?;
    for request in requests {
        tally.add(connection.send(request).await?);
    }
    Ok(tally)
}

/// A program that reads from the left believes the forged address, as if the proxy had appended nothing. So we send
/// just that.
async fn from_the_left(child: &Child, forged: &[String]) -> anyhow::Result<Tally> {
    let requests = forged.iter().map(|it| request(child, &[("X-Forwarded-For", it)]));
    send_all(child, &requests.collect::<Vec<_>>()).await
}
