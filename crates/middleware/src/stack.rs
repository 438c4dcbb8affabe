//! In which order do the layers stand? And what is no longer true of the service in another one?

use std::{num::NonZeroU32, time::Duration};

use axum::Router;
use axum::http::{HeaderName, Method, header};
use axum::middleware::{from_fn, from_fn_with_state};
use edge::client_address::{ProxyHeader, TrustedProxies, TrustedProxy};
use edge::frame::panicked;
use tower::limit::ConcurrencyLimitLayer;
use tower_http::{catch_panic::CatchPanicLayer, compression::CompressionLayer, cors};

use crate::auth::{self, Keys, parse_key};
use crate::layer::{Form, Inner, Name, around};
use crate::limits::{body_limit, client_address, rate_limit, rates};
use crate::metrics::{Metrics, counted};
use crate::onion::{Recent, probe, record};
use crate::{context, request_id, timeout, timing};

use Name::{Auth, BodyLimit, CatchPanic, ClientAddress, Compress, ConcurrencyLimit, Cors, Digest};
use Name::{RateLimit, RequestId, Signature, Timeout, Trace};

/// The layers of a service that checks no signatures and stands behind no proxy.
const DEFAULT: &str = "request-id,trace,metrics,cors,catch-panic,compress,timeout,\
                       concurrency-limit,rate-limit,body-limit,auth";

// ANCHOR: traps
/// The first has to stand outside the second. Otherwise this is what a client or an operator sees.
pub const TRAPS: [(Name, Name, &str); 12] = [
    (RequestId, Trace, "the log lines have no id"),
    (RequestId, Timeout, "a 503 of the time-out has no id"),
    (ClientAddress, RateLimit, "all clients of one proxy share one limit"),
    (Trace, CatchPanic, "a panic has no line in the log"),
    (Name::Metrics, Timeout, "what is cut off is not counted"),
    (Cors, Timeout, "a page cannot read the 503 of the time-out"),
    (Cors, Auth, "a preflight gets 401"),
    (Digest, Compress, "the digest is not that of the bytes that are sent"),
    (Timeout, ConcurrencyLimit, "a request waits for its turn for ever"),
    (RateLimit, Auth, "a stranger may guess keys as fast as they can"),
    (BodyLimit, Signature, "the limit comes when the whole body has been read"),
    (Auth, Signature, "strangers make us read their bodies"),
];
// ANCHOR_END: traps

/// Without these, something else breaks, whatever the order.
const MISSED: [(Name, &str, &str); 3] = [
    (CatchPanic, "a panic ends the connection", "panic"),
    (Timeout, "a request may take for ever", "timeout"),
    (Auth, "everybody may read and write all notes", "order"),
];

/// What somebody should know who serves this stack.
pub fn warnings(stack: &[Name]) -> Vec<String> {
    let place = |name| stack.iter().position(|it| *it == name);
    let swapped = TRAPS.iter().filter_map(|(outer, inner, breaks)| {
        let is_trap = place(*outer)? > place(*inner)?;
        is_trap.then(|| format!("{inner} is outside {outer}: {breaks} (experiment order)"))
    });
    let missed = MISSED
        .iter()
        .filter(|(name, ..)| place(*name).is_none())
        .map(|(name, breaks, experiment)| format!("no {name}: {breaks} (experiment {experiment})"));
    swapped.chain(missed).collect()
}

/// What `serve` understands.
#[derive(clap::Args, Clone, Debug)]
pub struct Settings {
    /// The layers, from the outside in, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', num_args = 0.., default_value = DEFAULT)]
    pub stack: Vec<Name>,
    /// How request-id, trace, auth and timeout are written
    #[arg(long, value_enum, default_value_t)]
    pub form: Form,
    /// Milliseconds that a request may take
    #[arg(long, default_value_t = 2_000)]
    pub timeout: u64,
    /// Requests at the same time
    #[arg(long, default_value_t = 200)]
    pub concurrency: usize,
    /// Requests a minute from one address
    #[arg(long, default_value = "60000")]
    pub rate: NonZeroU32,
    /// Bytes of a body
    #[arg(long, default_value_t = 1 << 20)]
    pub body_limit: usize,
    /// A user and their key, USER=KEY; may be repeated
    #[arg(long = "key", value_parser = parse_key, default_value = "ada=let-ada-in")]
    pub keys: Vec<(String, String)>,
    /// The network of a proxy whose X-Forwarded-For is believed; may be repeated
    #[arg(long = "trusted-proxy")]
    pub proxies: Vec<TrustedProxy>,
    /// The service that is told of each new note
    #[arg(long)]
    pub audit: Option<reqwest::Url>,
}

/// Puts a layer around a service that is not written here: the library's, to compare, and those that read whole bodies.
pub type Others = fn(Name, &Settings, Inner) -> Inner;

// ANCHOR: wrap
/// The calls with all layers around them.
pub fn wrap(calls: Router, settings: &Settings, seen: (Recent, Metrics), others: Others) -> Router {
    let (recent, metrics) = seen;
    let mut service = around(&from_fn(context::known), Inner::new(calls));
    // What is added last is outermost, so the list is read backwards.
    for name in settings.stack.iter().rev() {
        let layer = layer(*name, settings, &metrics, service);
        service = probe(*name, layer.unwrap_or_else(|inner| others(*name, settings, inner)));
    }
    // Around the router: `Router::layer` would give each route a copy, with a limit of its own.
    Router::new().fallback_service(record(recent, service))
}
// ANCHOR_END: wrap

/// The service with a layer of ours around it; or the service, if the layer is another's.
fn layer(name: Name, to: &Settings, metrics: &Metrics, inner: Inner) -> Result<Inner, Inner> {
    let (form, is_ours) = (to.form, to.form != Form::Library);
    let proxies = || TrustedProxies::new(to.proxies.clone(), ProxyHeader::XForwardedFor);
    Ok(match name {
        RequestId if is_ours => request_id::layer(form, inner),
        ClientAddress => around(&from_fn_with_state(proxies(), client_address), inner),
        Trace if is_ours => timing::layer(form, inner),
        Name::Metrics => around(&from_fn_with_state(metrics.clone(), counted), inner),
        Cors => around(&any_origin(), inner),
        CatchPanic => around(&CatchPanicLayer::custom(panicked), inner),
        Compress => around(&CompressionLayer::new(), inner),
        Timeout if is_ours => timeout::layer(form, Duration::from_millis(to.timeout), inner),
        ConcurrencyLimit => around(&ConcurrencyLimitLayer::new(to.concurrency), inner),
        RateLimit => around(&from_fn_with_state(rates(to.rate), rate_limit), inner),
        BodyLimit => body_limit(to.body_limit, inner),
        Auth if is_ours => auth::layer(form, Keys::new(&to.keys), inner),
        _ => return Err(inner),
    })
}

/// Pages of any origin may ask. Their readers' cookies are not sent, and no call here knows any.
fn any_origin() -> cors::CorsLayer {
    cors::CorsLayer::new()
        .allow_origin(cors::Any)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, request_id::HEADER])
        .expose_headers([request_id::HEADER, HeaderName::from_static("retry-after")])
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, extract::Request, routing::get};
    use clap::ValueEnum;
    use futures_util::FutureExt;
    use tower::ServiceExt;

    use super::*;

    #[test]
    fn our_order_is_no_trap_and_each_swap_of_two_is_the_one_that_it_is_listed_as() {
        let ours = Name::value_variants().to_vec();
        assert_eq!(warnings(&ours), [""; 0]);
        for (outer, inner, breaks) in TRAPS {
            let words = warnings(&[inner, outer, CatchPanic, Timeout, Auth]);
            assert!(words.iter().any(|it| it.contains(breaks)), "{words:?}");
        }
    }

    #[test]
    fn a_name_is_written_as_it_is_read() {
        for name in Name::value_variants() {
            assert_eq!(Name::from_str(&name.to_string(), false), Ok(*name));
        }
        for name in DEFAULT.split(',') {
            assert!(Name::from_str(name, false).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        assert_eq!(warnings(&[RequestId]).len(), 3);
    }
    #[test]
    fn each_route_of_a_router_has_a_copy_of_its_layer_and_ours_is_one_for_all() {
        let calls = || {
            let forever = get(std::future::pending::<()>);
            Router::new().route("/first", forever).route("/second", get(async || ()))
        };
        let limit = ConcurrencyLimitLayer::new(1);
        let copies = calls().layer(limit.clone());
        let ours = Router::new().fallback_service(around(&limit, Inner::new(calls())));
        for (router, lets_the_second_in) in [(copies, true), (ours, false)] {
            let ask =
                |path| router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap());
            let mut first = Box::pin(ask("/first"));
            assert!((&mut first).now_or_never().is_none());
            assert_eq!(ask("/second").now_or_never().is_some(), lets_the_second_in);
        }
    }
}
