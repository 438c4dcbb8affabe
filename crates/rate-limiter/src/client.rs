//! Who is asking? The peer's address, unless a proxy that we trust says who asked *it*.
//!
//! Invariant: nothing that a client writes into a header buys it another key. A header counts only as far as
//! trusted proxies have written it, which is from the right, since each appends whom it saw.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use axum::{
    extract::ConnectInfo,
    http::{HeaderMap, HeaderName, header::FORWARDED, request::Parts},
};
use clap::ValueEnum;
use ipnet::IpNet;

use crate::key::Key;

/// What a client is told apart by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum KeyBy {
    /// By address; IPv6 by /64
    #[default]
    Address,
    /// By the API key, if it is one that we gave out; otherwise by address
    ApiKey,
    /// By the user whose API key it is, whichever of them; otherwise by address
    User,
}

/// Which header the trusted proxies write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProxyHeader {
    /// `X-Forwarded-For` if there is one, otherwise `Forwarded`: safe unless your proxy writes only the latter
    #[default]
    Any,
    /// `X-Forwarded-For`
    XForwardedFor,
    /// `Forwarded`, RFC 7239
    Forwarded,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// How to tell clients apart.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    /// By what.
    pub by: KeyBy,
    /// Proxies whose headers count.
    pub trusted: Vec<IpNet>,
    /// Which header they write.
    pub header: ProxyHeader,
    /// Whose API key it is, by the digest of the key.
    pub users: HashMap<Key, String>,
}

impl Clients {
    /// Whose quota a request counts for.
    ///
    /// An API key that nobody has counts for nothing: who could invent keys would invent one for each request.
    pub fn key(&self, request: &Parts) -> Key {
        let api_key = request.headers.get(X_API_KEY).map(|key| Key::of("api-key", key.as_bytes()));
        let known = api_key.and_then(|key| Some((key, self.users.get(&key)?)));
        match (self.by, known) {
            (KeyBy::ApiKey, Some((key, _))) => key,
            (KeyBy::User, Some((_, user))) => Key::of("user", user.as_bytes()),
            _ => Key::address(self.address(request)),
        }
    }

    // ANCHOR: address
    /// The address of the client, as far as it can be believed.
    pub fn address(&self, request: &Parts) -> IpAddr {
        // Who serves the router without telling the addresses gets one quota for all.
        let peer = request.extensions.get::<ConnectInfo<SocketAddr>>();
        let mut client = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        let mut hops = self.hops(&request.headers).into_iter();
        // Whoever we trust tells whom it saw; the first that we do not trust is the client. What cannot be
        // read says nothing, so the one who handed it on has to stand for it.
        while self.trusts(client) {
            match hops.next().and_then(|hop| parse_hop(&hop)) {
                Some(hop) => client = hop,
                None => break,
            }
        }
        client
    }
    // ANCHOR_END: address

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address.to_canonical()))
    }

    /// What the header says, the last hop first. Several headers of one name are one list: RFC 9110, section 5.3.
    fn hops(&self, headers: &HeaderMap) -> Vec<String> {
        let x_forwarded_for = match self.header {
            ProxyHeader::Any => headers.contains_key(X_FORWARDED_FOR),
            ProxyHeader::XForwardedFor => true,
            ProxyHeader::Forwarded => false,
        };
        let name = if x_forwarded_for { X_FORWARDED_FOR } else { FORWARDED };
        let values: Vec<_> = headers.get_all(name).iter().collect();
        let mut hops = Vec::new();
        for value in values.into_iter().rev() {
            let value = String::from_utf8_lossy(value.as_bytes());
            if x_forwarded_for {
                // There is no quoting here: a client's quotation mark must not swallow what a proxy appends.
                hops.extend(value.rsplit(',').map(|hop| hop.trim().to_owned()));
            } else {
                let elements = split_from_the_right(&value, b',').into_iter();
                hops.extend(elements.filter(|it| !it.is_empty()).map(forwarded_for));
            }
        }
        hops.retain(|hop| !x_forwarded_for || !hop.is_empty());
        hops
    }
}

/// The `for=` of one element of `Forwarded`; nothing if it has none.
fn forwarded_for(element: &str) -> String {
    let mut pairs = split_from_the_right(element, b';').into_iter();
    let value = pairs.find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim().to_owned())
    });
    value.unwrap_or_default()
}

/// Splits where the separator stands outside of quotation marks, the last part first. From the right, because there
/// stands what a proxy wrote, whole: a quotation mark that a client has left open reaches no further than the client's part.
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

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`, also quoted. Not `unknown`, and
/// no obfuscated identifier (`_gazonk`): RFC 7239, section 6.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim_matches('"');
    let bare = hop.parse().or_else(|_| hop.parse().map(|address: SocketAddr| address.ip())).ok();
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    bare.or_else(bracketed)
}

#[cfg(test)]
mod tests;
