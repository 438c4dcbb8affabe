//! HTTPS as one writes it in the interview: a certificate, and a redirect to it.

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use anyhow::Context;
use axum::{
    Json, Router,
    extract::{OriginalUri, Path as Segment, State},
    http::{
        HeaderMap, StatusCode,
        header::{COOKIE, HOST, SET_COOKIE},
    },
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};
use tower::ServiceExt;

/// Plain HTTP: everything is redirected to HTTPS, on the host that was asked for.
pub fn plain(https_port: u16) -> Router {
    let redirect = async move |headers: HeaderMap, OriginalUri(uri): OriginalUri| {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        let host = host.split(':').next().unwrap_or(host);
        Redirect::permanent(&format!("https://{host}:{https_port}{uri}"))
    };
    Router::new()
        .route("/healthz", get(async || "alive"))
        .route("/readyz", get(async || "ready"))
        .fallback(redirect)
}

/// HTTPS, with a self-signed certificate that is written to `ca.pem`, for `curl --cacert`. At the call, and not at the
/// first poll: nobody is told that we listen before it is there.
pub fn serve_https(
    listener: TcpListener,
    home: &Path,
) -> impl Future<Output = anyhow::Result<()>> + use<> {
    let acceptor = make_certificate(home);
    async move {
        let acceptor = acceptor?;
        loop {
            let (stream, _) = listener.accept().await?;
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| router().oneshot(request));
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }
}

fn make_certificate(home: &Path) -> anyhow::Result<TlsAcceptor> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let signed = rcgen::generate_simple_self_signed(names)?;
    let (certificate, key) = (signed.cert.der().clone(), signed.signing_key.serialize_der());
    fs::create_dir_all(home)?;
    let pem = BASE64_STANDARD.encode(&certificate);
    let lines = pem.as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>();
    let lines = lines.join("\n");
    let pem = format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n");
    fs::write(home.join("ca.pem"), pem)?;

    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key.into()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// What is served over HTTPS.
fn router() -> Router {
    let users = HashMap::from([("ada", "lovelace")]);
    Router::new()
        .route("/", get(async || Html("<!doctype html>\n<title>Advice</title>\n")))
        .route("/pages/{topic}", get(page))
        .route("/login", post(log_in))
        .route("/me", get(me))
        .route("/healthz", get(async || "alive"))
        .route("/readyz", get(async || "ready"))
        .with_state(Arc::new(users))
}

async fn page(Segment(topic): Segment<String>) -> Html<String> {
    // A page is as long as it is.
    Html(format!("<title>{topic}</title>\n{}", "<p>What people ask.\n".repeat(topic.len())))
}

#[derive(Deserialize)]
struct Login {
    user: String,
    password: String,
}

async fn log_in(
    State(users): State<Arc<HashMap<&str, &str>>>,
    Json(login): Json<Login>,
) -> Response {
    if users.get(&*login.user) != Some(&&*login.password) {
        return (StatusCode::UNAUTHORIZED, "the user or the password is wrong").into_response();
    }
    let cookie = format!("session={}", login.user);
    (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response()
}

async fn me(headers: HeaderMap) -> Result<Json<Value>, Failed> {
    let cookie = headers.get(COOKIE).context("log in first")?.to_str()?;
    let (_, user) = cookie.split_once("session=").context("log in first")?;
    Ok(Json(json!({ "user": user })))
}

struct Failed(anyhow::Error);

impl<E: Into<anyhow::Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (StatusCode::UNAUTHORIZED, self.0.to_string()).into_response()
    }
}
