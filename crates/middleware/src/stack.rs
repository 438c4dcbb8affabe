//! In which order do the layers stand? And what is no longer true of the service in another one?

use std::{fmt, num::NonZeroU32, time::Duration};

use axum::Router;
use axum::http::{HeaderName, Method, header};
use axum::middleware::{from_fn, from_fn_with_state};
use clap::ValueEnum;
use edge::client_address::{ProxyHeader, TrustedProxies, TrustedProxy};
use edge::frame::panicked;
use serde::Serialize;
use tower::limit::ConcurrencyLimitLayer;
use tower_http::{catch_panic::CatchPanicLayer, compression::CompressionLayer, cors};

use crate::auth::{self, Keys, parse_key};
use crate::body::{Secret, digested, signed, signed_stream};
use crate::layer::{Form, Inner, around};
use crate::limits::{body_limit, client_address, rate_limit, rates};
use crate::metrics::{Metrics, counted};
use crate::onion::{Recent, probe, record};
use crate::{context, request_id, timeout, timing};

/// A layer. They are listed from the outside in, in the order that breaks nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Name {
    /// Gives each request an id, and names it in the answer
    RequestId,
    /// Finds the client's address behind a proxy
    ClientAddress,
    /// Logs each request with its answer
    Trace,
    /// Counts requests
    Metrics,
    /// Lets pages of other origins ask
    Cors,
    /// Makes a 500 of a panic
    CatchPanic,
    /// Hashes the answer
    Digest,
    /// Compresses the answer
    Compress,
    /// Gives up on what takes too long
    Timeout,
    /// Lets so many requests in at the same time, and the others wait
    ConcurrencyLimit,
    /// Refuses a client that asks too often
    RateLimit,
    /// Refuses a body that is too long
    BodyLimit,
    /// Wants a key for the notes
    Auth,
    /// Checks the signature of a body, for which it keeps all of it
    Signature,
    /// Checks it while it passes
    SignatureStream,
}

use Name::{
    Auth, BodyLimit, CatchPanic, ClientAddress, Compress, ConcurrencyLimit, Cors, Digest,
    RateLimit, RequestId, Signature, SignatureStream, Trace,
};

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Name {
    /// As on the command line.
    pub fn text(self) -> &'static str {
        match self {
            RequestId => "request-id",
            ClientAddress => "client-address",
            Trace => "trace",
            Self::Metrics => "metrics",
            Cors => "cors",
            CatchPanic => "catch-panic",
            Digest => "digest",
            Compress => "compress",
            Self::Timeout => "timeout",
            ConcurrencyLimit => "concurrency-limit",
            RateLimit => "rate-limit",
            BodyLimit => "body-limit",
            Auth => "auth",
            Signature => "signature",
            SignatureStream => "signature-stream",
        }
    }
}

/// The layers of a service that checks no signatures and stands behind no proxy.
const DEFAULT: &str = "request-id,trace,metrics,cors,catch-panic,compress,timeout,\
                       concurrency-limit,rate-limit,body-limit,auth";

// ANCHOR: traps
/// The first has to stand outside the second. Otherwise this is what a client or an operator sees.
pub const TRAPS: [(Name, Name, &str); 12] = [
    (RequestId, Trace, "the log lines have no id"),
    (RequestId, Name::Timeout, "a 503 of the time-out has no id"),
    (ClientAddress, RateLimit, "all clients of one proxy share one limit"),
    (Trace, CatchPanic, "a panic has no line in the log"),
    (Name::Metrics, Name::Timeout, "what is cut off is not counted"),
    (Cors, Name::Timeout, "a page cannot read the 503 of the time-out"),
    (Cors, Auth, "a preflight gets 401"),
    (Digest, Compress, "the digest is not that of the bytes that are sent"),
    (Name::Timeout, ConcurrencyLimit, "a request waits for its turn for ever"),
    (RateLimit, Auth, "a stranger may guess keys as fast as they can"),
    (BodyLimit, Signature, "the limit comes when the whole body has been read"),
    (Auth, Signature, "strangers make us read their bodies"),
];
// ANCHOR_END: traps

/// Without these, something else breaks, whatever the order.
const MISSED: [(Name, &str, &str); 3] = [
    (CatchPanic, "a panic ends the connection", "panic"),
    (Name::Timeout, "a request may take for ever", "timeout"),
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
    /// The secret with which bodies are signed
    #[arg(long, default_value = "a-secret-for-signatures")]
    pub secret: String,
    /// The service that is told of each new note
    #[arg(long)]
    pub audit: Option<reqwest::Url>,
}

// ANCHOR: wrap
/// The calls with all layers around them.
pub fn wrap(calls: Router, settings: &Settings, recent: Recent, metrics: &Metrics) -> Router {
    let mut service = around(&from_fn(context::known), Inner::new(calls));
    // What is added last is outermost, so the list is read backwards.
    for name in settings.stack.iter().rev() {
        service = probe(name.text(), layer(*name, settings, metrics, service));
    }
    // Around the router, so that they see what has no route too.
    Router::new().fallback_service(record(recent, service))
}
// ANCHOR_END: wrap

fn layer(name: Name, settings: &Settings, metrics: &Metrics, inner: Inner) -> Inner {
    let form = settings.form;
    let secret = || Secret::new(&settings.secret);
    match name {
        RequestId => request_id::layer(form, inner),
        ClientAddress => {
            let header = ProxyHeader::XForwardedFor;
            let proxies = TrustedProxies::new(settings.proxies.clone(), header);
            around(&from_fn_with_state(proxies, client_address), inner)
        }
        Trace => timing::layer(form, inner),
        Name::Metrics => around(&from_fn_with_state(metrics.clone(), counted), inner),
        Cors => around(&any_origin(), inner),
        CatchPanic => around(&CatchPanicLayer::custom(panicked), inner),
        Digest => around(&from_fn(digested), inner),
        Compress => around(&CompressionLayer::new(), inner),
        Name::Timeout => timeout::layer(form, Duration::from_millis(settings.timeout), inner),
        ConcurrencyLimit => around(&ConcurrencyLimitLayer::new(settings.concurrency), inner),
        RateLimit => around(&from_fn_with_state(rates(settings.rate), rate_limit), inner),
        BodyLimit => body_limit(settings.body_limit, inner),
        Auth => auth::layer(form, Keys::new(&settings.keys), inner),
        Signature => around(&from_fn_with_state(secret(), signed), inner),
        SignatureStream => around(&from_fn_with_state(secret(), signed_stream), inner),
    }
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
    use super::*;

    #[test]
    fn our_order_is_no_trap_and_each_swap_of_two_is_the_one_that_it_is_listed_as() {
        let ours = Name::value_variants().to_vec();
        assert_eq!(warnings(&ours), [""; 0]);
        for (outer, inner, breaks) in TRAPS {
            let words = warnings(&[inner, outer, CatchPanic, Name::Timeout, Auth]);
            assert!(words.iter().any(|it| it.contains(breaks)), "{words:?}");
        }
    }

    #[test]
    fn a_name_is_written_as_it_is_read() {
        for name in Name::value_variants() {
            assert_eq!(Name::from_str(name.text(), false), Ok(*name));
        }
        for name in DEFAULT.split(',') {
            assert!(Name::from_str(name, false).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        assert_eq!(warnings(&[RequestId]).len(), 3);
    }
}
