//! Every way in which a client may speak to us: HTTP/1.1 and HTTP/2, plain and over TLS.

use axum::{extract::State, routing::get};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, Version, body::Bytes, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    task::JoinHandle,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName},
        version::TLS13,
    },
};

use super::*;

/// A limit that a test waits for.
const SHORT: Duration = Duration::from_millis(200);

/// A server of the test's own.
struct Server {
    address: String,
    certificate: CertificateDer<'static>,
    /// A request to `/slow` has come.
    asked: Arc<Notify>,
    /// `/slow` may answer.
    answer: Arc<Notify>,
    stop: CancellationToken,
    serving: JoinHandle<anyhow::Result<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Over {
    Tcp,
    Tls,
}

impl Server {
    async fn start(over: Over, head_timeout: Duration) -> Self {
        let (listener, url) = bind("127.0.0.1", 0).await.unwrap();
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = key.cert.der().clone();
        let private = PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], private)
            .unwrap();
        let tls = (over == Over::Tls).then(|| acceptor(config));
        let (asked, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let slow = async |State((asked, answer)): State<(Arc<Notify>, Arc<Notify>)>| {
            asked.notify_one();
            answer.notified().await;
            "done"
        };
        let router = Router::new()
            .route("/", get(async || "here"))
            .route("/slow", get(slow))
            .with_state((asked.clone(), answer.clone()));
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let serving = tokio::spawn(serve_within(listener, router, tls, head_timeout, stopped));
        let address = url.authority().to_owned();
        Self { address, certificate, asked, answer, stop, serving }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }

    /// Connects over TLS, with these protocols to choose from.
    async fn connect_tls(&self, protocols: &[&str]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, self.connect().await).await.unwrap()
    }

    /// One request, in HTTP/1.1 or HTTP/2.
    async fn get(&self, over: Over, version: Version, path: &str) -> (StatusCode, String) {
        let url = format!("http://{}{path}", self.address);
        match over {
            Over::Tcp => ask(self.connect().await, version, url).await,
            Over::Tls => ask(self.connect_tls(&[]).await, version, url).await,
        }
    }
}

async fn ask<S>(stream: S, version: Version, url: String) -> (StatusCode, String)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let host = Url::parse(&url).unwrap().authority().to_owned();
    let request = Request::get(url).header("host", host).body(Empty::<Bytes>::new()).unwrap();
    let stream = TokioIo::new(stream);
    let response = if version == Version::HTTP_2 {
        let (mut client, connection) =
            conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        client.send_request(request).await.unwrap()
    } else {
        let (mut client, connection) = conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        client.send_request(request).await.unwrap()
    };
    assert_eq!(response.version(), version);
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Every combination that a client may choose.
const WAYS: [(Over, Version); 4] = [
    (Over::Tcp, Version::HTTP_11),
    (Over::Tcp, Version::HTTP_2),
    (Over::Tls, Version::HTTP_11),
    (Over::Tls, Version::HTTP_2),
];

#[tokio::test]
async fn http_1_and_http_2_are_answered_plain_and_over_tls() {
    for (over, version) in WAYS {
        let server = Server::start(over, HEAD_TIMEOUT).await;
        let (status, body) = server.get(over, version, "/").await;
        assert_eq!((status, &*body), (StatusCode::OK, "here"), "{over:?} {version:?}");
    }
}

#[tokio::test]
async fn a_client_that_can_speak_both_gets_http_2() {
    let server = Server::start(Over::Tls, HEAD_TIMEOUT).await;
    for (offered, chosen) in
        [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
    {
        let stream = server.connect_tls(offered).await;
        let protocol = stream.get_ref().1.alpn_protocol();
        assert_eq!(protocol, chosen.map(str::as_bytes), "{offered:?}");
    }
}

/// Ends when the server has closed the connection, whatever it said before.
async fn closed(mut stream: impl AsyncRead + Unpin) {
    let mut said = Vec::new();
    // An error (a reset, no close_notify) is an end too.
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut said)).await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_head_is_cut_off() {
    for said in ["", "G", "GET / HTTP/1.1\r\nhost: a\r\n", "PRI * HTTP/2.0\r\n"] {
        let server = Server::start(Over::Tcp, SHORT).await;
        let mut stream = server.connect().await;
        stream.write_all(said.as_bytes()).await.unwrap();
        closed(stream).await;
    }
}

#[tokio::test]
async fn a_client_that_goes_silent_over_tls_is_cut_off() {
    for said in ["", "GET / HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let server = Server::start(Over::Tls, Duration::from_secs(1)).await;
        let mut stream = server.connect_tls(&[]).await;
        stream.write_all(said.as_bytes()).await.unwrap();
        closed(stream).await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_handshake_is_cut_off() {
    for said in [&b""[..], b"\x16\x03\x01\x00\xff\x01"] {
        let server = Server::start(Over::Tls, SHORT).await;
        let mut stream = server.connect().await;
        stream.write_all(said).await.unwrap();
        closed(stream).await;
    }
}

#[tokio::test]
async fn an_http_2_client_that_stops_in_its_second_head_is_cut_off() {
    let server = Server::start(Over::Tcp, SHORT).await;
    let mut stream = server.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    // SETTINGS; HEADERS of stream 1, whole: GET http / and `:authority: a`; HEADERS of stream 3, to be continued.
    stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
    stream.write_all(b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a").await.unwrap();
    stream.write_all(b"\0\0\x01\x01\x01\0\0\0\x03\x82").await.unwrap();
    closed(stream).await;
}

#[tokio::test]
async fn a_connection_that_asked_once_is_not_cut_off_while_its_answer_takes_long() {
    for (over, version) in WAYS {
        let server = Server::start(over, Duration::from_secs(1)).await;
        let late = async {
            server.asked.notified().await;
            sleep(Duration::from_secs(2)).await;
            server.answer.notify_one();
        };
        let ((status, _), ()) = tokio::join!(server.get(over, version, "/slow"), late);
        assert_eq!(status, StatusCode::OK, "{over:?} {version:?}");
    }
}

#[tokio::test]
async fn what_is_in_flight_is_answered_before_the_server_stops() {
    for (over, version) in WAYS {
        let server = Server::start(over, HEAD_TIMEOUT).await;
        // A silent connection holds nothing up.
        let _silent = server.connect().await;
        let stopped = async {
            server.asked.notified().await;
            server.stop.cancel();
            while TcpStream::connect(&server.address).await.is_ok() {
                tokio::task::yield_now().await;
            }
            assert!(!server.serving.is_finished(), "{over:?} {version:?}");
            server.answer.notify_one();
        };
        let ((status, body), ()) = tokio::join!(server.get(over, version, "/slow"), stopped);
        assert_eq!((status, &*body), (StatusCode::OK, "done"), "{over:?} {version:?}");
        timeout(DRAIN_TIMEOUT / 2, server.serving).await.unwrap().unwrap().unwrap();
    }
}

/// Otherwise a server with two ports could run for ever: one port hears the signal, and the other does not yet listen
/// for it.
#[tokio::test]
async fn a_signal_between_the_call_and_the_wait_is_not_lost() {
    use rustix::process::{Signal, getpid, kill_process};

    for asked in [Signal::TERM, Signal::INT] {
        let stop = asked_to_stop();
        kill_process(getpid(), asked).unwrap();
        timeout(Duration::from_secs(5), stop).await.unwrap();
    }
}

#[tokio::test]
async fn a_crowd_that_comes_at_once_waits_in_line() {
    let (listener, _) = bind("127.0.0.1", 0).await.unwrap();
    let address = listener.local_addr().unwrap();
    let crowd = (0..500).map(|_| TcpStream::connect(address));
    let crowd = timeout(Duration::from_millis(900), futures_util::future::join_all(crowd)).await;
    assert!(crowd.unwrap().iter().all(Result::is_ok));
}
