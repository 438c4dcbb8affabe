//! How does a client get from HTTP to HTTPS, and how does it stay there? A redirect, and then HSTS.
//!
//! Invariant: a redirect leads to a name that was configured, never to one that the request brings.

use axum::{
    http::{
        HeaderMap, HeaderValue, StatusCode, Uri, header::HOST, header::LOCATION, uri::Authority,
    },
    response::{IntoResponse, Response},
};

use crate::error::Error;

/// The names of this service, and its port for HTTPS.
#[derive(Clone, Debug)]
pub struct Names {
    /// The first is the one that the certificate is checked for.
    pub names: Vec<String>,
    /// Where HTTPS is served.
    pub https_port: u16,
}

impl Names {
    /// Which of our names a request is for. `Host` may be anybody's: a client writes it.
    pub fn asked_for(&self, uri: &Uri, headers: &HeaderMap) -> Result<&String, Error> {
        let authority = authority(uri, headers)?;
        let host = authority.host().trim_matches(['[', ']']).trim_end_matches('.');
        let asked = self.names.iter().find(|name| name.eq_ignore_ascii_case(host));
        asked.ok_or(if host.is_empty() { Error::NoHost } else { Error::Misdirected })
    }

    // ANCHOR: to_https
    /// 308, which keeps the method and the body, to the same path and query.
    pub fn to_https(&self, uri: &Uri, headers: &HeaderMap) -> Result<Response, Error> {
        let place = self.place(self.asked_for(uri, headers)?);
        let path = uri.path_and_query().map_or("/", |it| it.as_str());
        // `//evil.example` and `?to=//evil.example` stay what they are: a path and a query behind our own name.
        let location =
            HeaderValue::try_from(format!("{place}{path}")).map_err(|_| Error::NoHost)?;
        Ok((StatusCode::PERMANENT_REDIRECT, [(LOCATION, location)]).into_response())
    }
    // ANCHOR_END: to_https

    /// The address of HTTPS under the first name.
    pub fn url(&self) -> String {
        self.place(&self.names[0])
    }

    fn place(&self, name: &str) -> String {
        let name = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
        match self.https_port {
            443 => format!("https://{name}"),
            port => format!("https://{name}:{port}"),
        }
    }
}

/// What the request is for. In HTTP/2, and where a whole URL is asked for, it stands in the URI and counts more than
/// `Host`. RFC 9112, section 3.2: no `Host`, or two of them, is an error.
fn authority(uri: &Uri, headers: &HeaderMap) -> Result<Authority, Error> {
    let mut hosts = headers.get_all(HOST).iter();
    match (uri.authority(), hosts.next(), hosts.next()) {
        (_, _, Some(_)) | (None, None, None) => Err(Error::NoHost),
        (Some(authority), ..) => Ok(authority.clone()),
        (None, Some(host), None) => Authority::try_from(host.as_bytes()).map_err(|_| Error::NoHost),
    }
}

// ANCHOR: hsts
/// `Strict-Transport-Security`: for so many seconds from now, a browser goes to this name, and to all names below it, by
/// HTTPS only, whatever it is told, and lets nobody click a warning away.
pub fn hsts(seconds: u32) -> HeaderValue {
    let text = format!("max-age={seconds}; includeSubDomains");
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("max-age=0"))
}
// ANCHOR_END: hsts

#[cfg(test)]
mod tests {
    use super::*;

    fn location(uri: &str, hosts: &[&'static str]) -> Result<String, u16> {
        let names = ["shop.example", "127.0.0.1", "::1"];
        let names = names.map(str::to_owned).into();
        let mut all = HeaderMap::new();
        for host in hosts {
            all.append(HOST, HeaderValue::from_static(host));
        }
        let names = Names { names, https_port: 8_443 };
        match names.to_https(&uri.parse().unwrap(), &all) {
            Ok(response) => Ok(response.headers()[LOCATION].to_str().unwrap().to_owned()),
            Err(error) => Err(error.into_response().status().as_u16()),
        }
    }

    #[test]
    fn a_redirect_leads_to_the_same_path_and_query_under_the_name_that_was_asked_for() {
        for (host, uri, seen) in [
            ("shop.example", "/", "https://shop.example:8443/"),
            ("SHOP.example.:80", "/a%2F?b=c&d", "https://shop.example:8443/a%2F?b=c&d"),
            ("127.0.0.1:3000", "/", "https://127.0.0.1:8443/"),
            ("[::1]:3000", "/", "https://[::1]:8443/"),
        ] {
            assert_eq!(location(uri, &[host]).as_deref(), Ok(seen), "{host}");
        }
    }

    #[test]
    fn no_redirect_leads_to_another_name() {
        assert_eq!(
            location("//evil.example/", &["shop.example"]).unwrap(),
            "https://shop.example:8443//evil.example/"
        );
        for host in ["evil.example", "shop.example.evil.example", "shop.example@evil.example"] {
            assert_eq!(location("/", &[host]), Err(421), "{host}");
        }
        assert_eq!(location("http://evil.example/", &["shop.example"]), Err(421));
        for hosts in [&[][..], &[""], &["a b"], &["shop.example", "shop.example"]] {
            assert_eq!(location("/", hosts), Err(400), "{hosts:?}");
        }
    }
}
