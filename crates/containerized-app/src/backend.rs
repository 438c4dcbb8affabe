//! Does the server that this process depends on answer? Readiness asks this, and liveness must not: a restart of this process
//! does not bring another server back.

use std::{str::FromStr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// An orchestrator asks every few seconds and waits for one; so we answer before it gives up.
const PATIENCE: Duration = Duration::from_millis(500);

/// A Redis by its address. A process may have none.
#[derive(Clone, Debug)]
pub struct Backend(String);

impl FromStr for Backend {
    type Err = String;

    fn from_str(address: &str) -> Result<Self, String> {
        let (host, port) = address.rsplit_once(':').ok_or("write HOST:PORT")?;
        let good = !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
        good.then(|| Self(address.to_owned())).ok_or_else(|| "write HOST:PORT".to_owned())
    }
}

impl Backend {
    // ANCHOR: answers
    /// Whether it answers to `PING` in time. An open port alone says little: the kernel opens it for a server that hangs.
    pub async fn answers(&self) -> bool {
        let asked = async {
            let mut stream = TcpStream::connect(&self.0).await?;
            stream.write_all(b"PING\r\n").await?;
            // `+PONG`, or `-NOAUTH`: both mean that it works.
            let first = stream.read_u8().await?;
            std::io::Result::Ok(first == b'+' || first == b'-')
        };
        matches!(timeout(PATIENCE, asked).await, Ok(Ok(true)))
    }
    // ANCHOR_END: answers
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for (address, good) in [
            ("127.0.0.1:6379", true),
            ("cache:6379", true),
            ("[::1]:6379", true),
            ("cache", false),
            (":6379", false),
            ("cache:", false),
            ("cache:0", false),
            ("cache:65536", false),
        ] {
            assert_eq!(address.parse::<Backend>().is_ok(), good, "{address}");
        }
    }

    #[tokio::test]
    async fn an_open_port_behind_which_nobody_answers_is_no_answer() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend: Backend = silent.local_addr().unwrap().to_string().parse().unwrap();
        assert!(!backend.answers().await);
    }
}
