//! Is nobody taken for somebody else?

use axum::http::Request;

use super::*;

/// Whom we take for the client of a request from this peer with these headers, if 10.0.0.0/8 is trusted.
fn client(peer: &str, header: ProxyHeader, headers: &[(&str, &str)]) -> String {
    let mut request = Request::builder();
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let peer: SocketAddr = peer.parse().unwrap();
    let (parts, ()) = request.extension(ConnectInfo(peer)).body(()).unwrap().into_parts();
    let trusted = vec!["10.0.0.0/8".parse().unwrap()];
    Clients { trusted, header, ..Clients::default() }.address(&parts).to_string()
}

fn from_proxy(value: &str) -> String {
    client("10.0.0.1:1", ProxyHeader::Any, &[("x-forwarded-for", value)])
}

#[test]
fn a_header_from_a_stranger_is_ignored() {
    for name in ["x-forwarded-for", "forwarded"] {
        let headers = [(name, "for=203.0.113.9"), (name, "203.0.113.9")];
        assert_eq!(client("192.0.2.1:1", ProxyHeader::Any, &headers), "192.0.2.1");
    }
}

#[test]
fn a_trusted_proxys_header_is_read_from_the_right() {
    assert_eq!(from_proxy("203.0.113.9"), "203.0.113.9");
    assert_eq!(from_proxy("1.1.1.1, 203.0.113.9"), "203.0.113.9");
    assert_eq!(from_proxy("1.1.1.1, 203.0.113.9, 10.0.0.2"), "203.0.113.9");
    assert_eq!(from_proxy("10.0.0.3, 10.0.0.2"), "10.0.0.3");
    let two = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.9,, 10.0.0.2,")];
    assert_eq!(client("10.0.0.1:1", ProxyHeader::Any, &two), "203.0.113.9");
    assert_eq!(client("[::ffff:10.0.0.1]:1", ProxyHeader::Any, &two), "203.0.113.9");
}

#[test]
fn every_way_to_write_an_address_is_understood() {
    for (written, meant) in [
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("\"[2001:db8::1]:4711\"", "2001:db8::1"),
    ] {
        assert_eq!(from_proxy(written), meant);
    }
    let forwarded = |value| client("10.0.0.1:1", ProxyHeader::Any, &[("forwarded", value)]);
    let cloudy = "for=1.1.1.1;by=2.2.2.2, proto=https;For=\"[2001:db8::1]:4711\"";
    assert_eq!(forwarded(cloudy), "2001:db8::1");
    assert_eq!(forwarded("for=\"a,b;c\", for=203.0.113.9"), "203.0.113.9");
    assert_eq!(forwarded("for=1.1.1.1, proto=https"), "10.0.0.1");
}

#[test]
fn what_cannot_be_read_is_ignored_and_hides_what_is_left_of_it() {
    let long = "x".repeat(10_000);
    for garbage in
        ["unknown", "_hidden", "999.1.1.1", "1.1.1", "[::1", "::1]", "\"", "é", "1.1.1.1:x", &long]
    {
        assert_eq!(from_proxy(&format!("203.0.113.9, {garbage}")), "10.0.0.1", "{garbage:.20}");
        assert_eq!(from_proxy(&format!("203.0.113.9, {garbage}, 10.0.0.2")), "10.0.0.2");
    }
}

#[test]
fn a_quotation_mark_left_open_swallows_nothing_that_a_proxy_wrote() {
    let forwarded = |value| client("10.0.0.1:1", ProxyHeader::Any, &[("forwarded", value)]);
    assert_eq!(from_proxy("\", 203.0.113.9"), "203.0.113.9");
    assert_eq!(from_proxy("\"1.1.1.1, 203.0.113.9"), "203.0.113.9");
    assert_eq!(forwarded("for=\", for=203.0.113.9"), "203.0.113.9");
    assert_eq!(forwarded("for=\"a, for=\"[2001:db8::1]:80\""), "2001:db8::1");
    // The proxy tells the host that the client asked for, quotation marks and all.
    assert_eq!(forwarded(r#"for=203.0.113.9;host="a\", for=1.1.1.1;b=""#), "203.0.113.9");
    assert_eq!(forwarded(r#"for=1.1.1.1\, for=203.0.113.9;host="a\\\\""#), "203.0.113.9");
}

#[test]
fn a_forged_forwarded_does_not_count_beside_the_header_that_the_proxy_writes() {
    let both = [("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "203.0.113.9")];
    assert_eq!(client("10.0.0.1:1", ProxyHeader::Any, &both), "203.0.113.9");
    assert_eq!(client("10.0.0.1:1", ProxyHeader::XForwardedFor, &both[..1]), "10.0.0.1");
    let both = [("forwarded", "for=203.0.113.9"), ("x-forwarded-for", "1.1.1.1")];
    assert_eq!(client("10.0.0.1:1", ProxyHeader::Forwarded, &both), "203.0.113.9");
}
