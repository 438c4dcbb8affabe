//! In which order do the layers stand? And what is no longer true of the service in another one?

use std::{num::NonZeroU32, time::Duration};

use axum::middleware::{from_fn, from_fn_with_state};
use axum::{Router, extract::Request, http::Method, http::header};
use edge::client_address::{ProxyHeader, TrustedProxies, TrustedProxy};
use edge::frame::panicked;
use tower::{ServiceExt, limit::ConcurrencyLimitLayer, service_fn};
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
/// These tell of answers, to the client or to us. Each has to stand outside of all that give one.
pub const TELLS: [(Name, &str); 4] = [
    (RequestId, "has no id"),
    (Trace, "has no line in the log"),
    (Name::Metrics, "is not counted"),
    (Cors, "cannot be read by a page of another origin"),
];

/// These may answer with an error instead of the handler. (`cors` answers preflights too; no trap is listed for that.)
pub const GIVES: [(Name, &str); 6] = [
    (CatchPanic, "the 500 after a panic"),
    (Timeout, "the 503 of the time-out"),
    (RateLimit, "the 429 of the rate limit"),
    (BodyLimit, "the 413 of the body limit"),
    (Auth, "the 401 of auth"),
    (Signature, "the 401 for a bad signature"),
];

/// The first has to stand outside the second as well. Otherwise this is what a client or an operator sees.
pub const TRAPS: [(Name, Name, &str); 8] = [
    (RequestId, Trace, "the log lines have no id"),
    (ClientAddress, RateLimit, "all clients of one proxy share one limit"),
    (Cors, Auth, "a preflight gets 401"),
    (Digest, Compress, "the digest is not that of the bytes that are sent"),
    (Timeout, ConcurrencyLimit, "nothing limits the wait for a turn"),
    (RateLimit, Auth, "a stranger may guess keys as fast as they can"),
    (BodyLimit, Signature, "the limit comes when the whole body has been read"),
    (Auth, Signature, "a stranger's note is read before it is refused"),
];
// ANCHOR_END: traps

/// All 32: what has to stand outside of what, and what breaks otherwise.
pub fn traps() -> Vec<(Name, Name, String)> {
    let mut traps = Vec::from(TRAPS.map(|(outer, inner, breaks)| (outer, inner, breaks.into())));
    for (inner, answer) in GIVES {
        traps.extend(TELLS.map(|(outer, lacks)| (outer, inner, format!("{answer} {lacks}"))));
    }
    traps
}

/// Warnings for the operator of this stack.
pub fn warnings(to: &Settings) -> Vec<String> {
    let place = |name| to.stack.iter().position(|it| *it == name);
    let swapped = traps().into_iter().filter_map(|(outer, inner, breaks)| {
        let is_trap = place(outer)? > place(inner)?;
        is_trap.then(|| format!("{inner} is outside {outer}: {breaks} (experiment order)"))
    });
    let needed = [
        (true, CatchPanic, "a panic ends the connection (experiment panic)"),
        (true, Timeout, "a request may take for ever (experiment timeout)"),
        (true, Auth, "everybody shares the notes of nobody"),
        (place(Signature).is_some(), BodyLimit, "a body may fill memory (experiment early-body)"),
        (!to.proxies.is_empty(), ClientAddress, "--trusted-proxy has no effect (experiment order)"),
    ];
    let missed = needed.iter().filter(|(is_needed, name, _)| *is_needed && place(*name).is_none());
    swapped.chain(missed.map(|(_, name, breaks)| format!("no {name}: {breaks}"))).collect()
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
    /// Milliseconds until an answer has to begin
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: u64,
    /// Requests at the same time
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,
    /// Requests a minute from one address
    #[arg(long, default_value = "60000")]
    pub rate: NonZeroU32,
    /// Bytes of a body
    #[arg(long, default_value_t = 1 << 20)]
    pub body_limit: usize,
    /// A user and their key, USER=KEY; may be repeated
    #[arg(long = "key", value_parser = parse_key, default_value = "ada=let-ada-in")]
    pub keys: Vec<(String, String)>,
    /// The network of a proxy whose X-Forwarded-For is believed, if client-address is in the stack; may be repeated
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
    // Around the router: `Router::layer` would build each layer once for each method of each route.
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
        Cors => any_origin(inner),
        CatchPanic => around(&CatchPanicLayer::custom(panicked), inner),
        Compress => around(&CompressionLayer::new(), inner),
        Timeout if is_ours => timeout::layer(form, Duration::from_millis(to.timeout), inner),
        ConcurrencyLimit => around(&ConcurrencyLimitLayer::new(to.concurrency.into()), inner),
        RateLimit => around(&from_fn_with_state(rates(to.rate), rate_limit), inner),
        BodyLimit => body_limit(to.body_limit, inner),
        Auth if is_ours => auth::layer(form, Keys::new(&to.keys), inner),
        _ => return Err(inner),
    })
}

/// Pages of any origin may ask. Their readers' cookies are not sent, and no call here knows any. The library answers
/// every `OPTIONS`, so it does not get those that are no preflight.
fn any_origin(inner: Inner) -> Inner {
    let any = cors::CorsLayer::new()
        .allow_origin(cors::Any)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, request_id::HEADER])
        .expose_headers([request_id::HEADER, header::LOCATION, header::RETRY_AFTER])
        .max_age(Duration::from_hours(1));
    let with_cors = around(&any, inner.clone());
    Inner::new(service_fn(move |request: Request| {
        let has = |name| request.headers().contains_key(name);
        let is_preflight = has(header::ORIGIN) && has(header::ACCESS_CONTROL_REQUEST_METHOD);
        let passes = request.method() == Method::OPTIONS && !is_preflight;
        let service = if passes { &inner } else { &with_cors };
        service.clone().oneshot(request)
    }))
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches, ValueEnum};

    use super::*;

    fn settings(words: &[&str]) -> Settings {
        let command = Settings::augment_args(Command::new("serve").no_binary_name(true));
        Settings::from_arg_matches(&command.try_get_matches_from(words).unwrap()).unwrap()
    }

    fn warned(stack: &[Name], more: &[&str]) -> Vec<String> {
        let mut settings = settings(more);
        settings.stack = stack.to_vec();
        warnings(&settings)
    }

    #[test]
    fn our_order_is_no_trap_and_each_swap_of_two_is_the_one_that_it_is_listed_as() {
        assert_eq!(warned(Name::value_variants(), &["--trusted-proxy", "127.0.0.1"]), [""; 0]);
        assert_eq!(traps().len(), 32);
        for (outer, inner, breaks) in traps() {
            let words = warned(&[inner, outer, CatchPanic, Timeout, Auth, BodyLimit], &[]);
            assert!(words.iter().any(|it| it.contains(&breaks)), "{words:?}");
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
        assert_eq!(warned(&[RequestId], &[]).len(), 3);
        let stack = [CatchPanic, Timeout, Auth, Signature];
        assert_eq!(
            warned(&stack, &[]),
            ["no body-limit: a body may fill memory (experiment early-body)"]
        );
        let proxies = ["--trusted-proxy", "127.0.0.1"];
        let words = ["no client-address: --trusted-proxy has no effect (experiment order)"];
        assert_eq!(warned(&settings(&[]).stack, &proxies), words);
    }

    #[test]
    fn a_limit_of_nothing_is_refused() {
        for words in [["--timeout", "0"], ["--concurrency", "0"], ["--rate", "0"]] {
            let command = Settings::augment_args(Command::new("serve").no_binary_name(true));
            assert!(command.try_get_matches_from(words).is_err(), "{words:?}");
        }
    }
}
