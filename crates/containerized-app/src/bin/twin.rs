//! How is the twin served in its image? By itself: what experiments and the guide need would make the image several times as
//! large.

use clap::Parser;
use containerized_app::service::{Options, Service};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// 0: any free port
    #[arg(long, default_value_t = 3000)]
    port: u16,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Before anything else: until a handler is set, the kernel drops SIGTERM for process number one.
    let mut terminate = signal(SignalKind::terminate())?;
    let arguments = Arguments::parse();
    let service = Service::new(&arguments.options);
    let stop = service.stop(async move {
        terminate.recv().await;
    });
    let listener = TcpListener::bind((arguments.host, arguments.port)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let served = axum::serve(listener, service.router()).with_graceful_shutdown(stop);
    tokio::select! {
        biased;
        never = service.work() => match never {},
        served = served.into_future() => Ok(served?),
    }
}
