//! Which address is the client's? The peer's, unless the peer is a trusted proxy: then the one that the proxy names.
//!
//! Invariant: nothing that a client writes into a header makes it another client. A header counts only as far as
//! trusted proxies have written it. Each proxy appends the address that it saw, so that part is on the right.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use axum::http::{HeaderMap, HeaderName, header::FORWARDED};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The header in which the trusted proxies name their client. We never read both: a proxy that writes one header passes
/// the other one on as the client wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`
    #[default]
    XForwardedFor,
    /// `Forwarded`, RFC 7239
    Forwarded,
}

impl FromStr for ProxyHeader {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "x-forwarded-for" => Ok(Self::XForwardedFor),
            "forwarded" => Ok(Self::Forwarded),
            _ => Err("write x-forwarded-for or forwarded"),
        }
    }
}

impl fmt::Display for ProxyHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        })
    }
}

// ANCHOR: network
/// The network of a proxy, or its single address, in the form in which addresses are compared.
///
/// An operating system with one socket for both families reports an IPv4 peer as `::ffff:10.0.0.1`. So IPv4-mapped
/// addresses become IPv4, on both sides of the comparison. A network that has no such form is refused at the start:
/// `::ffff:10.0.0.0/8`, cut to its prefix, is `::/8`, which trusts every client on `::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedProxy(IpNet);

/// Why a string is not the network of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProxy {
    /// Neither an address nor a network.
    #[error("write an address or a network: 10.0.0.1, 10.0.0.0/8, 2001:db8::/32")]
    Syntax,
    /// The zone is known on one machine, and no peer address carries it.
    #[error("leave out the zone after the %")]
    Zone,
    /// Bits are set behind the prefix, so the prefix is probably a mistake.
    #[error(
        "the address has bits behind its prefix; did you mean an IPv4 network? Write 10.0.0.0/8"
    )]
    HostBits,
    /// Some addresses in it would become IPv4 and others not.
    #[error(
        "it covers IPv4-mapped and other addresses; name the IPv4 network and the IPv6 network separately"
    )]
    Mixed,
    /// If every client is trusted, every header is believed.
    #[error("it trusts every client; name your proxies")]
    Everybody,
}

impl FromStr for TrustedProxy {
    type Err = InvalidProxy;

    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        if text.contains('%') {
            return Err(InvalidProxy::Zone);
        }
        let address = || text.parse::<IpAddr>().map(IpNet::from);
        let network: IpNet =
            text.parse().or_else(|_| address()).map_err(|_| InvalidProxy::Syntax)?;
        if network.prefix_len() == 0 {
            return Err(InvalidProxy::Everybody);
        }
        if network.addr() != network.network() {
            return Err(InvalidProxy::HostBits);
        }
        let mapped = |address: IpAddr| address.to_canonical() != address;
        match network.prefix_len().checked_sub(96) {
            Some(prefix) if mapped(network.addr()) => {
                let network = IpNet::new(network.addr().to_canonical(), prefix);
                let network = network.map_err(|_| InvalidProxy::Syntax)?;
                if prefix == 0 { Err(InvalidProxy::Everybody) } else { Ok(Self(network)) }
            }
            None if network.contains(&IpAddr::V6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped())) => {
                Err(InvalidProxy::Mixed)
            }
            _ => Ok(Self(network)),
        }
    }
}
// ANCHOR_END: network

impl fmt::Display for TrustedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The proxies whose header is believed. By default there are none.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies {
    networks: Vec<TrustedProxy>,
    header: ProxyHeader,
}

impl TrustedProxies {
    /// Trusts these proxies, which all write this header.
    pub fn new(networks: Vec<TrustedProxy>, header: ProxyHeader) -> Self {
        Self { networks, header }
    }

    // ANCHOR: client_of
    /// The address of the client, as far as it can be believed.
    ///
    /// Each trusted proxy names the address that connected to it. The first address that is not a trusted proxy's is
    /// the client. If an entry cannot be read, the proxy that appended it counts as the client.
    pub fn client_of(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        for hop in self.hops(headers) {
            let Some(address) = parse_hop(&hop) else { break };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }
    // ANCHOR_END: client_of

    /// `address` is canonical.
    fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.0.contains(&address))
    }

    /// The entries of the header, the last one first. Several headers of one name are one list: RFC 9110, section 5.3.
    fn hops(&self, headers: &HeaderMap) -> Vec<String> {
        let name = match self.header {
            ProxyHeader::XForwardedFor => X_FORWARDED_FOR,
            ProxyHeader::Forwarded => FORWARDED,
        };
        let values: Vec<_> = headers.get_all(name).iter().collect();
        let mut hops = Vec::new();
        for value in values.into_iter().rev() {
            let value = String::from_utf8_lossy(value.as_bytes());
            match self.header {
                // There is no quoting here: a client's quotation mark must not swallow what a proxy appends.
                ProxyHeader::XForwardedFor => {
                    let entries = value.rsplit(',').map(str::trim).filter(|it| !it.is_empty());
                    hops.extend(entries.map(str::to_owned));
                }
                ProxyHeader::Forwarded => {
                    let elements = split_from_the_right(&value, b',').into_iter();
                    hops.extend(elements.filter(|it| !it.is_empty()).map(forwarded_for));
                }
            }
        }
        hops
    }
}

/// One address for all the addresses that a client can send from, for limits by address.
///
/// A client with one IPv6 address has all 2⁶⁴ of its network. A client behind NAT64 counts by its IPv4 address;
/// otherwise all such clients would share the network `64:ff9b::/64`. NAT64 is resolved only here and not where
/// proxies are compared: `64:ff9b::10.0.0.1` must not pass for the proxy `10.0.0.1`.
pub fn one_client(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else { return address.to_canonical() };
    // The well-known prefix of RFC 6052.
    if let [0x64, 0xff9b, 0, 0, 0, 0, ..] = v6.segments() {
        let [.., a, b, c, d] = v6.octets();
        return Ipv4Addr::new(a, b, c, d).into();
    }
    Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into()
}

/// The `for=` of one element of `Forwarded`; empty if it has none.
fn forwarded_for(element: &str) -> String {
    let mut pairs = split_from_the_right(element, b';').into_iter();
    let value = pairs.find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim().to_owned())
    });
    value.unwrap_or_default()
}

/// Splits at separators outside of quotation marks, the last part first. It reads from the right, because a proxy wrote
/// the right part completely: a quotation mark that a client left open only affects the client's own part.
fn split_from_the_right(text: &str, separator: u8) -> Vec<&str> {
    let bytes = text.as_bytes();
    let (mut parts, mut end, mut quoted) = (Vec::new(), text.len(), false);
    for (at, &byte) in bytes.iter().enumerate().rev() {
        let escaped = || bytes[..at].iter().rev().take_while(|&&it| it == b'\\').count() % 2 == 1;
        if byte == b'"' && !escaped() {
            quoted = !quoted;
        } else if byte == separator && !quoted {
            parts.push(text[at + 1..end].trim());
            end = at;
        }
    }
    parts.push(text[..end].trim());
    parts
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`, also quoted, also with a zone,
/// which only the proxy's machine could resolve. Not `unknown`, and no obfuscated identifier (`_gazonk`): RFC 7239,
/// section 6.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim_matches('"');
    let address = if let Some(rest) = hop.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        if !port.is_empty() {
            port.strip_prefix(':')?.parse::<u16>().ok()?;
        }
        parse_ipv6(address)?.into()
    } else if let Ok(address) = hop.parse::<SocketAddr>() {
        address.ip()
    } else {
        hop.parse().ok().or_else(|| parse_ipv6(hop).map(IpAddr::V6))?
    };
    Some(address.to_canonical())
}

fn parse_ipv6(text: &str) -> Option<Ipv6Addr> {
    match text.split_once('%') {
        Some((_, "")) => None,
        Some((address, _zone)) => address.parse().ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// The client of a request from this peer with these headers.
    fn client(
        trusted: &[&str],
        header: ProxyHeader,
        peer: &str,
        headers: &[(&'static str, &str)],
    ) -> String {
        let networks = trusted.iter().map(|it| it.parse().unwrap()).collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        TrustedProxies::new(networks, header).client_of(address(peer), &map).to_string()
    }

    fn through(header: ProxyHeader, headers: &[(&'static str, &str)]) -> String {
        client(&["10.0.0.0/8"], header, "10.0.0.1", headers)
    }

    fn x_forwarded_for(value: &str) -> String {
        through(ProxyHeader::XForwardedFor, &[("x-forwarded-for", value)])
    }

    fn forwarded(value: &str) -> String {
        through(ProxyHeader::Forwarded, &[("forwarded", value)])
    }

    #[test]
    fn a_header_from_a_stranger_is_ignored() {
        let headers = [("forwarded", "for=203.0.113.9"), ("x-forwarded-for", "203.0.113.9")];
        for header in [ProxyHeader::XForwardedFor, ProxyHeader::Forwarded] {
            assert_eq!(client(&["10.0.0.0/8"], header, "192.0.2.1", &headers), "192.0.2.1");
            assert_eq!(client(&[], header, "10.0.0.1", &headers), "10.0.0.1");
        }
    }

    #[test]
    fn a_trusted_proxys_header_is_read_from_the_right() {
        assert_eq!(x_forwarded_for("203.0.113.9"), "203.0.113.9");
        assert_eq!(x_forwarded_for("1.1.1.1, 203.0.113.9"), "203.0.113.9");
        assert_eq!(x_forwarded_for("1.1.1.1, 203.0.113.9, 10.0.0.2"), "203.0.113.9");
        assert_eq!(x_forwarded_for("10.0.0.3, 10.0.0.2"), "10.0.0.3");
        let two = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.9,, 10.0.0.2,")];
        assert_eq!(through(ProxyHeader::XForwardedFor, &two), "203.0.113.9");
    }

    #[test]
    fn an_ipv4_mapped_proxy_is_the_same_proxy_on_both_sides() {
        let header = [("x-forwarded-for", "::ffff:203.0.113.9")];
        for trusted in ["10.0.0.1", "::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "10.0.0.0/8"] {
            for peer in ["10.0.0.1", "::ffff:10.0.0.1"] {
                let seen = client(&[trusted], ProxyHeader::XForwardedFor, peer, &header);
                assert_eq!(seen, "203.0.113.9", "{trusted} {peer}");
            }
        }
    }

    #[test]
    fn a_network_that_would_trust_more_than_it_says_is_refused() {
        for (text, error) in [
            ("::ffff:10.0.0.0/8", InvalidProxy::HostBits),
            ("10.0.0.1/8", InvalidProxy::HostBits),
            ("::/8", InvalidProxy::Mixed),
            ("::/80", InvalidProxy::Mixed),
            ("0.0.0.0/0", InvalidProxy::Everybody),
            ("::/0", InvalidProxy::Everybody),
            ("::ffff:0.0.0.0/96", InvalidProxy::Everybody),
            ("fe80::1%eth0", InvalidProxy::Zone),
            ("10.0.0.0/33", InvalidProxy::Syntax),
            ("somewhere", InvalidProxy::Syntax),
            ("", InvalidProxy::Syntax),
        ] {
            assert_eq!(text.parse::<TrustedProxy>(), Err(error), "{text}");
        }
        for (text, canonical) in [
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(text.parse::<TrustedProxy>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn every_way_to_write_an_address_is_understood() {
        for (written, meant) in [
            ("192.0.2.1:4711", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25eth0]:80", "fe80::1"),
        ] {
            assert_eq!(x_forwarded_for(written), meant);
        }
        let cloudy = "for=1.1.1.1;by=2.2.2.2, proto=https;For=\"[2001:db8::1]:4711\"";
        assert_eq!(forwarded(cloudy), "2001:db8::1");
        assert_eq!(forwarded("for=\"a,b;c\", for=203.0.113.9"), "203.0.113.9");
        assert_eq!(forwarded("for=1.1.1.1, proto=https"), "10.0.0.1");
    }

    #[test]
    fn an_entry_that_cannot_be_read_hides_what_is_left_of_it() {
        let long = "x".repeat(10_000);
        for garbage in [
            "unknown",
            "_hidden",
            "999.1.1.1",
            "1.1.1",
            "[::1",
            "::1]",
            "\"",
            "é",
            "1.1.1.1:x",
            "[::1]x",
            "[::1]:x",
            "1.1.1.1%eth0",
            "::1%",
            &long,
        ] {
            let value = format!("203.0.113.9, {garbage}");
            assert_eq!(x_forwarded_for(&value), "10.0.0.1", "{garbage:.20}");
        }
        assert_eq!(x_forwarded_for("203.0.113.9, unknown, 10.0.0.2"), "10.0.0.2");
    }

    #[test]
    fn a_quotation_mark_left_open_swallows_nothing_that_a_proxy_wrote() {
        assert_eq!(x_forwarded_for("\", 203.0.113.9"), "203.0.113.9");
        assert_eq!(x_forwarded_for("\"1.1.1.1, 203.0.113.9"), "203.0.113.9");
        assert_eq!(forwarded("for=\", for=203.0.113.9"), "203.0.113.9");
        assert_eq!(forwarded("for=\"a, for=\"[2001:db8::1]:80\""), "2001:db8::1");
        // The proxy passes on the host that the client asked for, with its quotation marks.
        assert_eq!(forwarded(r#"for=203.0.113.9;host="a\", for=1.1.1.1;b=""#), "203.0.113.9");
        assert_eq!(forwarded(r#"for=1.1.1.1\, for=203.0.113.9;host="a\\\\""#), "203.0.113.9");
    }

    #[test]
    fn the_header_that_the_proxy_does_not_write_is_never_read() {
        let both = [("forwarded", "for=203.0.113.9"), ("x-forwarded-for", "1.1.1.1")];
        assert_eq!(through(ProxyHeader::Forwarded, &both), "203.0.113.9");
        assert_eq!(through(ProxyHeader::XForwardedFor, &both), "1.1.1.1");
        assert_eq!(through(ProxyHeader::Forwarded, &both[1..]), "10.0.0.1");
        assert_eq!(through(ProxyHeader::XForwardedFor, &both[..1]), "10.0.0.1");
    }

    #[test]
    fn one_client_is_one_ipv6_network_or_the_ipv4_address_behind_nat64() {
        let one = |text| one_client(address(text)).to_string();
        assert_eq!(one("2001:db8::1"), one("2001:db8::ffff:0:0:1"));
        assert_ne!(one("2001:db8::1"), one("2001:db8:0:1::1"));
        assert_eq!(one("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(one("64:ff9b::192.0.2.1"), "192.0.2.1");
        // That does not make it a proxy.
        let header = [("x-forwarded-for", "1.1.1.1")];
        let seen = client(&["10.0.0.0/8"], ProxyHeader::default(), "64:ff9b::10.0.0.1", &header);
        assert_eq!(seen, "64:ff9b::a00:1");
    }
}
