//! What does a browser remember? Cookies, and who has asked for HTTPS. Just so much of one as the claim is about.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use anyhow::{Context, bail};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ClientConfig;
use url::Url;

use super::fixture::LOGIN;
use crate::cases::client::{Answer, connect, exchange, get, post};

/// A browser whose network leads port 80 to one address and port 443 to another.
pub struct Browser {
    /// Where plain HTTP goes.
    pub port_80: SocketAddr,
    /// Where HTTPS goes.
    pub port_443: SocketAddr,
    /// What it trusts.
    pub tls: Arc<ClientConfig>,
    /// The time, in seconds, so that it can be moved.
    pub now: u64,
    /// Until when a host, and perhaps those below it, are visited by HTTPS only.
    pub hsts: HashMap<String, (u64, bool)>,
    /// How many requests it has sent in clear text.
    pub plain_requests: u32,
    /// The cookie, and whether it is for HTTPS only.
    cookie: Option<(String, bool)>,
}

impl Browser {
    /// A new one.
    pub fn new(port_80: SocketAddr, port_443: SocketAddr, tls: Arc<ClientConfig>) -> Self {
        let hsts = HashMap::new();
        Self { port_80, port_443, tls, now: 0, hsts, plain_requests: 0, cookie: None }
    }

    /// Somebody types this address, logs in on the page that comes, and looks at their account.
    pub async fn log_in(&mut self, typed: &str) -> anyhow::Result<()> {
        let (mut url, _) = self.open(typed).await?;
        url.set_path("/login");
        self.send(&url, |host, _| post(host, "/login", &[], LOGIN)).await?;
        url.set_path("/me");
        self.open(url.as_str()).await.map(drop)
    }

    /// Opens an address and follows redirects. Returns where it came to.
    pub async fn open(&mut self, address: &str) -> anyhow::Result<(Url, Answer)> {
        let mut url = Url::parse(address)?;
        for _ in 0..5 {
            self.upgrade(&mut url)?;
            let path = url.path().to_owned();
            let answer = self.send(&url, |host, cookie| get(host, &path, cookie)).await?;
            let to = answer.header("location").to_owned();
            if to.is_empty() {
                return Ok((url, answer));
            }
            url = url.join(&to)?;
        }
        bail!("too many redirects")
    }

    /// RFC 6797, section 8.3: before anything is sent, http becomes https for a host that is known.
    pub fn upgrade(&self, url: &mut Url) -> anyhow::Result<()> {
        let host = url.host_str().context("a host")?.to_owned();
        let knows = |known: &str, below: bool| {
            let found = self.hsts.get(known);
            found.is_some_and(|(until, all)| *until > self.now && (!below || *all))
        };
        let mut parents = host.match_indices('.').map(|(dot, _)| &host[dot + 1..]);
        if knows(&host, false) || parents.any(|parent| knows(parent, true)) {
            url.set_scheme("https").map_err(|()| anyhow::anyhow!("no scheme"))?;
        }
        Ok(())
    }

    async fn send(
        &mut self,
        url: &Url,
        request: impl FnOnce(&str, &[(&str, &str)]) -> String,
    ) -> anyhow::Result<Answer> {
        let host = url.host_str().context("a host")?;
        let secure = url.scheme() == "https";
        let sent = self.cookie.iter().filter(|(_, needs_tls)| secure || !needs_tls);
        let cookies: Vec<_> = sent.map(|(cookie, _)| ("cookie", cookie.as_str())).collect();
        let request = request(host, &cookies);
        let answer = if secure {
            exchange(&mut connect(&self.tls, self.port_443, host).await?, &request).await?
        } else {
            self.plain_requests += 1;
            exchange(&mut TcpStream::connect(self.port_80).await?, &request).await?
        };
        let cookie = answer.cookie().to_owned();
        let needs_tls = answer.header("set-cookie").contains("; Secure");
        // Over plain HTTP, no such cookie is taken, nor one whose name promises it: RFC 6265bis.
        if !cookie.is_empty() && (secure || !needs_tls && !cookie.starts_with("__Host-")) {
            self.cookie = Some((cookie, needs_tls));
        }
        // Over plain HTTP the header means nothing: RFC 6797, section 8.1.
        if secure {
            self.remember(host, answer.header("strict-transport-security"));
        }
        Ok(answer)
    }

    fn remember(&mut self, host: &str, header: &str) {
        let mut parts = header.split(';').map(str::trim);
        let seconds = parts.clone().find_map(|part| part.strip_prefix("max-age="));
        if let Some(seconds) = seconds.and_then(|seconds| seconds.parse::<u64>().ok()) {
            let all = parts.any(|part| part.eq_ignore_ascii_case("includesubdomains"));
            self.hsts.insert(host.to_owned(), (self.now + seconds, all));
        }
    }
}
