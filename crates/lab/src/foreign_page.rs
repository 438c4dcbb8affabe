//! Who may call a version that is careless on purpose? Only a program on this machine, and a page that it served.
//!
//! To listen on a loopback address is not enough. A browser on this machine sends what a page of any site tells it to,
//! and whoever owns that site can let its name stand for 127.0.0.1, so that the page may even read the answers (DNS
//! rebinding).

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, Uri, uri::Authority},
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

/// No page can set or remove `Host`, `Origin` and `Sec-Fetch-Site`. A browser sends the last one only to hosts that it
/// trusts, and 127.0.0.1 and localhost are such hosts.
///
/// Older browsers do not send `Sec-Fetch-Site`, and some send none with a WebSocket. With a WebSocket, a form's POST and
/// whatever a script may read they send `Origin`, and always a `User-Agent` that begins with `Mozilla/`. Their plain GETs, of
/// an image say, pass: no page can read the answer. A page's script that sets another `User-Agent` has to ask first (CORS), and
/// the browser asks with its own. `Origin` alone decides nothing: our own programs send foreign ones to try CORS.
fn is_foreign(uri: &Uri, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|it| it.to_str().unwrap_or_default());
    let named = uri.authority().map(Authority::as_str).into_iter().chain(text("host"));
    let cross_site = text("sec-fetch-site") == Some("cross-site");
    let is_browser = text("user-agent").is_some_and(|agent| agent.starts_with("Mozilla/"));
    let is_ours = |origin: &str| origin.split_once("://").is_some_and(|it| is_this_machine(it.1));
    let of_other_page = is_browser && !text("origin").is_none_or(is_ours);
    cross_site || of_other_page || !named.into_iter().all(is_this_machine)
}

fn is_this_machine(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::{
        HeaderValue,
        header::{HOST, ORIGIN, USER_AGENT},
    };

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

    /// A request without `Sec-Fetch-Site`, by this program for a page of this origin.
    fn foreign_by_origin(agent: &'static str, origin: &'static str) -> bool {
        let headers = [(HOST, "127.0.0.1:3000"), (USER_AGENT, agent), (ORIGIN, origin)];
        let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
        is_foreign(&"/users".parse().unwrap(), &HeaderMap::from_iter(headers))
    }

    #[test]
    fn a_browser_that_says_nothing_of_the_site_is_judged_by_the_origin() {
        let agent = "Mozilla/5.0 (Macintosh) Version/16.3 Safari/605.1.15";
        for other in ["https://evil.example", "null", "", "http://127.0.0.1.evil.example"] {
            assert!(foreign_by_origin(agent, other), "{other}");
        }
        for own in ["http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"] {
            assert!(!foreign_by_origin(agent, own), "{own}");
        }
    }

    #[test]
    fn a_program_may_send_any_origin() {
        for origin in ["https://evil.example", "null"] {
            assert!(!foreign_by_origin("curl/8.5.0", origin), "{origin}");
        }
    }
}
