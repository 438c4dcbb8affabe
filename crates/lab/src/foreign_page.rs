//! Who may call a version that is careless on purpose? Only a program on this machine, and a page that it served.
//!
//! To listen on a loopback address is not enough. A browser on this machine sends what a page of any site tells it to,
//! and whoever owns that site can let its name stand for 127.0.0.1, so that the page may even read the answers (DNS
//! rebinding).

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, Uri, header::HOST, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use edge::problem::Problem;

/// 403 for a request that a browser may have sent for a page of another site.
pub(crate) async fn refuse(request: Request, next: Next) -> Response {
    if is_foreign(request.uri(), request.headers()) {
        let words = "the whiteboard version answers only this machine's own programs, by the name localhost";
        return Problem::new(StatusCode::FORBIDDEN, words).into_response();
    }
    next.run(request).await
}

/// No page can set or remove these headers. A browser leaves out the second one if it does not trust the host, and the
/// host of another site is none of ours.
fn is_foreign(uri: &Uri, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).map(|host| host.to_str().unwrap_or_default());
    let named = uri.authority().map(Authority::as_str).into_iter().chain(host);
    let cross_site = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    cross_site || !named.into_iter().all(is_this_machine)
}

fn is_this_machine(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn foreign(uri: &str, host: &str, site: Option<&'static str>) -> bool {
        let mut headers = HeaderMap::from_iter([(HOST, host.parse().unwrap())]);
        if let Some(site) = site {
            headers.insert("sec-fetch-site", HeaderValue::from_static(site));
        }
        is_foreign(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn programs_of_this_machine_and_its_own_pages_are_not_foreign() {
        for (host, site) in [
            ("127.0.0.1:3000", None),
            ("127.0.0.1", Some("none")),
            ("127.8.9.1:3000", None),
            ("LocalHost:3000", Some("same-origin")),
            ("[::1]:3000", Some("same-site")),
        ] {
            assert!(!foreign("/users", host, site), "{host} {site:?}");
        }
        assert!(!is_foreign(&"/users".parse().unwrap(), &HeaderMap::new()), "HTTP/1.0");
    }

    #[test]
    fn pages_of_other_sites_are_foreign_whatever_their_name_stands_for() {
        for (uri, host, site) in [
            ("/users", "localhost:3000", Some("cross-site")),
            ("/users", "rebound.evil.example:3000", None),
            ("/users", "evil.example", Some("same-origin")),
            ("/users", "127.0.0.1.evil.example:3000", None),
            ("/users", "localhost.evil.example", None),
            ("/users", "127.0.0.1.:3000", None),
            ("/users", "evil", None),
            ("/users", "localhost@evil.example", None),
            ("/users", "", None),
            ("/users", "192.168.1.7:3000", None),
            // HTTP/2 sends the name with the path, and HTTP/1.1 may do so.
            ("http://evil.example/users", "localhost", None),
        ] {
            assert!(foreign(uri, host, site), "{uri} {host} {site:?}");
        }
    }
}
