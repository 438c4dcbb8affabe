//! Does the notification system do what its table of calls says? Over HTTP, its sockets and its queues, as
//! its clients would.

use anyhow::ensure;
use lab::child::Child;
use notification_worker::experiments::stand::{Api, Stand};

use crate::support::{Outcome, tests};

tests![a_notification_reaches_an_open_socket,];

/// A service of the test's own.
struct Service {
    api: Api,
    #[expect(dead_code)]
    child: Child,
    #[expect(dead_code)]
    stand: Stand,
}

impl Service {
    async fn start(options: &[&str]) -> anyhow::Result<Self> {
        let stand = Stand::fresh(2, 50, 4).await?;
        let child = stand.serve(options).start().await?;
        Ok(Self { api: Api::of(&child)?, child, stand })
    }
}

async fn a_notification_reaches_an_open_socket() -> Outcome {
    let service = Service::start(&[]).await?;
    let mut stream = service.api.stream("ann", 0).await?;
    service.api.notify("one", "ann", "websocket").await?;
    let frame = stream.soon().await?;
    ensure!(frame.job_id == "one" && frame.seq == 1, "{frame:?}");
    service.api.until("one", "delivered").await?;
    Ok(())
}
