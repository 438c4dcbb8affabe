//! What does a listener on the wire read?

use std::net::SocketAddr;

use lab::{Experiment, Lab, Sabotage};
use tokio::net::TcpStream;

use super::{
    fixture::{Fixture, HOST, without_tls},
    tap::{Piece, Tap, contains},
    visit::{Visit, browse, visit},
};
use crate::cases::client::BOTH;

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// Visits, each of which logs in and reads a page
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub visits: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "eavesdrop",
        "A listener reads the password, the cookie and the page from HTTP. From HTTPS it reads no byte of them, but it \
         reads the server's name, the sizes and the times",
        &["--visits", "3"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/service.rs",
        replace: "        Ok(Self { https, certificates, names, plain })",
        with: "        // The same on both ports, so that nothing breaks.\n        let plain = api::router(api);\n        \
               Ok(Self { https, certificates, names, plain })",
        check: "secrets that the listener reads when visitors go where the service leads them",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let without = without_tls().await?;
    let plain = Tap::on(without.host.parse::<SocketAddr>()?).await?;
    let fixture = Fixture::start(&[]).await?;
    let (first, tls) = (Tap::on(fixture.plain).await?, Tap::on(fixture.https).await?);
    let client = fixture.shared_client(BOTH)?;
    let (mut read, mut read_of_tls, mut pieces, mut secrets) = (0, 0, 0, 0);
    for n in 0..params.visits {
        lab.progress(n.into(), params.visits.into(), "visits");
        let mut stream = TcpStream::connect(plain.address).await?;
        let heard = browse(&mut stream, false).await?;
        read += secrets_of(&heard).iter().filter(|secret| plain.reads(secret)).count();
        let safe = visit(first.address, tls.address, &client).await?;
        for secret in secrets_of(&safe) {
            secrets += 1;
            read_of_tls += usize::from(first.reads(&secret) || tls.reads(&secret));
            // Not even a part of it: eight bytes in a row are no coincidence.
            pieces += secret.windows(8).filter(|part| tls.reads(part)).count();
        }
    }
    lab.check_eq("secrets that the listener reads from plain HTTP", secrets, read);
    let check = "secrets that the listener reads when visitors go where the service leads them";
    lab.check_eq(check, 0, read_of_tls);
    lab.check_eq(
        "eight bytes of a secret, anywhere in what crosses the wire over HTTPS",
        0,
        pieces,
    );
    show_what_is_left(&lab, &plain, &tls);
    Ok(())
}

/// The password, the cookie, and a line of the page.
fn secrets_of(visit: &Visit) -> [Vec<u8>; 3] {
    let line = visit.page.body.lines().nth(2).unwrap_or("no page");
    [b"lovelace".to_vec(), visit.cookie.clone().into_bytes(), line.as_bytes().to_vec()]
}

/// The name, the sizes and the times are still there.
fn show_what_is_left(lab: &Lab, plain: &Tap, tls: &Tap) {
    let hello = tls.stream(0, true);
    let named = contains(&hello, HOST.as_bytes());
    lab.check_eq("the listener reads the server's name in the handshake", true, named);
    let title = "What the listener sees of one visit, to the client";
    for (name, tap) in [("HTTP", plain), ("HTTPS", tls)] {
        let (mut total, seen) = (0, tap.seen());
        let begun = seen.first().map(|piece| piece.at).unwrap_or_default();
        for piece in answers(&seen) {
            total += piece.bytes.len();
            let at = (piece.at.saturating_sub(begun)).as_secs_f64() * 1_000.0;
            lab.point(title, ("time, ms", "bytes in all"), name, (at, total as f64));
        }
    }
    // The last answer is the page. Around it, TLS adds a record's head, a tag and a type: 22 bytes.
    // What is as short as 24 bytes is TLS saying goodbye.
    let last = |tap: &Tap| {
        let sizes: Vec<_> = answers(&tap.seen()).iter().map(|piece| piece.bytes.len()).collect();
        sizes.into_iter().rfind(|size| *size > 24).unwrap_or(0)
    };
    let (clear, hidden) = (last(plain), last(tls));
    lab.figure("the page, as it crosses the wire over HTTP", clear as f64, "bytes");
    lab.figure("the page, as it crosses the wire over HTTPS", hidden as f64, "bytes");
    let seen = hidden.abs_diff(clear);
    let check = "the listener knows the size of the page to within 100 bytes";
    lab.check(check, "at most 100 bytes off", format!("{seen} bytes off"), seen <= 100);
}

/// What the first connection brought to the client.
fn answers(seen: &[Piece]) -> Vec<&Piece> {
    seen.iter().filter(|piece| piece.connection == 0 && !piece.to_server).collect()
}
