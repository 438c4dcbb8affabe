//! What does `cargo run` do? It serves the guide until Ctrl-C, and then ends everything that the guide started.

use std::sync::Arc;

use lab::{Service, serve, stack};
use tokio_util::sync::CancellationToken;

use crate::{program::Programs, reader::Reader, runs::Runs, server, shelf::Shelf};

/// Serves the guide on this port of 127.0.0.1. Calls `ready` with its address.
pub async fn serve(
    port: u16,
    programs: Programs,
    reader: Reader,
    ready: impl FnOnce(&url::Url),
) -> anyhow::Result<()> {
    let (listener, url) = serve::bind("127.0.0.1", port).await?;
    let shelf = Arc::new(Shelf::new(crate::answers())?);
    let stopping = CancellationToken::new();
    let runs = Runs::new(crate::answers(), programs, reader.clone(), stopping.clone());
    // A URL leaves out a port that is 80.
    let router = server::router(shelf, runs.clone(), reader, url.port().unwrap_or(80));
    let stop = serve::asked_to_stop();
    println!("listening on {url}");
    ready(&url);
    // Start the servers in the background, so that the book can be read meanwhile. A missing server is installed only
    // when an experiment needs it.
    tokio::spawn(async {
        match stack::up_installed(&Service::STACK).await {
            Ok(()) => {}
            Err(error) => eprintln!("error: {error:#}"),
        }
    });
    let stop = async {
        stop.await;
        stopping.cancel();
    };
    serve::serve(listener, router, stop).await?;
    runs.ended().await;
    Ok(())
}
