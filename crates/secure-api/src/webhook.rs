//! May the service call the address that a customer names? It stands inside our network, and the customer does not.
//!
//! Invariant: a connection is opened only to an address that was checked, since the name is looked up once, and what was
//! found is both checked and called. There are no redirects and no proxies to lead elsewhere.

use std::error::Error as StdError;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, Uri, header::CONTENT_TYPE};
use edge::lookup::Lookup;
use futures_util::TryFutureExt;
use http_body_util::Full;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ipnet::IpNet;
use tokio::{net::TcpStream, time::timeout};
use tower::service_fn;
use url::{Host, Url};

/// From the look-up of the name to the status.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Calls the addresses of customers.
#[derive(Clone)]
pub struct Webhooks {
    /// The one address that may be called though it is not public.
    allowed: Option<SocketAddr>,
    lookup: Lookup,
}

impl Webhooks {
    /// With this exception, and this way to look up names.
    pub fn new(allowed: Option<SocketAddr>, lookup: Lookup) -> Self {
        Self { allowed, lookup }
    }

    fn may_call(&self, address: SocketAddr) -> bool {
        self.allowed == Some(address) || is_public(address.ip())
    }

    // ANCHOR: parse
    /// Parses the address of a webhook. `url` reads it as browsers do: `0x7f.1`, `２１３０７０６４３３` and `127.0.0.1` are one host
    /// afterwards, so there is nothing to compare as text.
    pub fn parse(&self, text: &str) -> Result<Url, &'static str> {
        let url = Url::parse(text).ok().filter(|_| text.len() <= 2_000);
        let url = url.ok_or("must be a URL of at most 2,000 bytes")?;
        let literal = literal(&url);
        let is_allowed = literal.is_some() && literal == self.allowed;
        if url.scheme() != "https" && !(url.scheme() == "http" && is_allowed) {
            return Err("must begin with https://");
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err("must have no user, no password and no fragment");
        }
        match literal {
            Some(address) if !self.may_call(address) => Err("must be a public address"),
            _ => Ok(url),
        }
    }
    // ANCHOR_END: parse

    /// Sends the body, and returns the status. Nothing if it did not arrive: why not would draw a map of our network.
    pub async fn deliver(&self, url: &str, body: String) -> Option<u16> {
        let sent = timeout(TIMEOUT, self.try_to(url, body)).await.ok()?;
        sent.inspect_err(|error| tracing::info!(error, "a webhook was not delivered")).ok()
    }

    // ANCHOR: deliver
    async fn try_to(
        &self,
        url: &str,
        body: String,
    ) -> Result<u16, Box<dyn StdError + Send + Sync>> {
        let url = self.parse(url)?;
        let address = self.address(&url).await?;
        // The TLS above it still checks the certificate for the name.
        let connect = move |_: Uri| TcpStream::connect(address).map_ok(TokioIo::new);
        let https = HttpsConnectorBuilder::new().with_webpki_roots().https_or_http();
        let client = Client::builder(TokioExecutor::new());
        let client = client.build(https.enable_http1().wrap_connector(service_fn(connect)));
        let request = Request::post(url.as_str()).header(CONTENT_TYPE, "application/json");
        let answer = client.request(request.body(Full::new(Bytes::from(body)))?).await?;
        // The body is not read. It is as long as somebody else likes.
        Ok(answer.status().as_u16())
    }

    /// Where to connect to: found once, and checked.
    async fn address(&self, url: &Url) -> Result<SocketAddr, Box<dyn StdError + Send + Sync>> {
        let port = url.port_or_known_default().unwrap_or(443);
        let found = match (literal(url), url.host_str()) {
            (Some(address), _) => vec![address],
            (None, Some(name)) => (self.lookup)(name.to_owned(), port).await?,
            (None, None) => vec![],
        };
        // All of them: a name that also stands for an address of ours is no customer's.
        if !found.iter().all(|address| self.may_call(*address)) {
            return Err("not a public address".into());
        }
        found.first().copied().ok_or_else(|| "the name stands for no address".into())
    }
    // ANCHOR_END: deliver
}

/// The address, if the URL names one and no name.
fn literal(url: &Url) -> Option<SocketAddr> {
    let port = url.port_or_known_default()?;
    match url.host()? {
        Host::Ipv4(ip) => Some((ip, port).into()),
        Host::Ipv6(ip) => Some((ip, port).into()),
        Host::Domain(_) => None,
    }
}

// ANCHOR: is_public
/// What is nobody's on the internet: ours, no machine's, or a tunnel to either (IANA's registries of special-purpose
/// addresses). Of IPv6, only `2000::/3` has been given out.
const NOT_PUBLIC: &str = "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 \
    192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3 \
    ::/3 4000::/2 8000::/1 2001::/23 2001:db8::/32 2002::/16 3fff::/20";

/// Whether this address is somebody's on the internet. An IPv4 address is one also when it is written as IPv6.
fn is_public(ip: IpAddr) -> bool {
    let mut networks = NOT_PUBLIC.split(' ').filter_map(|network| network.parse::<IpNet>().ok());
    !networks.any(|network| network.contains(&ip.to_canonical()))
}
// ANCHOR_END: is_public

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use edge::lookup::system_lookup;

    use super::*;

    #[test]
    fn an_address_is_public_or_not() {
        assert!(NOT_PUBLIC.split(' ').all(|network| network.parse::<IpNet>().is_ok()));
        for ip in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860::1",
            "2a00::1",
        ] {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
        ] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    fn webhooks() -> Webhooks {
        Webhooks::new(Some(([127, 0, 0, 1], 9_000).into()), system_lookup())
    }

    #[test]
    fn a_spelling_does_not_change_an_address() {
        for host in [
            "127.0.0.1",
            "127.1",
            "0x7f.1",
            "0177.0.0.1",
            "2130706433",
            "017700000001",
            "0x7f000001",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "0",
            "127.0.0.1.",
            "１２７.0.0.1",
            "127%2e0.0.1",
            "①②⑦.0.0.1",
            "169.254.169.254",
            "0xa9fea9fe",
            "[fe80::1]",
            "[64:ff9b::a00:1]",
        ] {
            assert!(webhooks().parse(&format!("https://{host}/")).is_err(), "{host}");
        }
    }

    #[test]
    fn only_plain_https_is_taken() {
        for url in [
            "https://hooks.example.com/a?b=c",
            "https://1.1.1.1/",
            "HTTPS://EXAMPLE.com",
            "https://例え.jp:8443/",
        ] {
            assert!(webhooks().parse(url).is_ok(), "{url}");
        }
        for url in [
            "http://example.com/",
            "file:///etc/passwd",
            "ftp://example.com/",
            "gopher://example.com/",
            "https://ada@example.com/",
            "https://ada:secret@example.com/",
            "https://:x@example.com/",
            "https://example.com/#x",
            "https://",
            "//example.com",
            "/x",
            "",
            "example.com",
            "javascript:alert(1)",
            "http://127.0.0.1/",
            "http://127.0.0.1:9001/",
            "http://127.0.0.2:9000/",
        ] {
            assert!(webhooks().parse(url).is_err(), "{url}");
        }
        assert!(webhooks().parse(&format!("https://example.com/{}", "a".repeat(2_000))).is_err());
        assert!(webhooks().parse("http://127.0.0.1:9000/x").is_ok(), "the exception");
    }

    #[tokio::test]
    async fn one_bad_address_of_a_name_is_enough() {
        let addresses = ["1.1.1.1:443", "10.0.0.1:443"].map(|it| it.parse().unwrap());
        let lookup: Lookup = Arc::new(move |_, _| Box::pin(async move { Ok(addresses.to_vec()) }));
        let webhooks = Webhooks::new(None, lookup);
        let url = webhooks.parse("https://two.example/").unwrap();
        assert!(webhooks.address(&url).await.is_err());
    }
}
