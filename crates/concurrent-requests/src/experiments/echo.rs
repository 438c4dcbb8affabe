//! The same small server twice: with a thread for each connection, and with a task for each.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle},
};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// Who answers a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A thread for each.
    Thread,
    /// A task for each, on two threads.
    Task,
}

impl By {
    /// The name of the threads that answer. Linux keeps 15 letters of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Thread => "echo by thread",
            Self::Task => "echo by task",
        }
    }
}

/// Answers what it is sent. Its clients have to be gone when it is dropped.
#[derive(Debug)]
pub struct Echo {
    /// Where it listens.
    pub address: SocketAddr,
    over: Arc<AtomicBool>,
    /// Nothing after the end.
    accepts: Option<JoinHandle<()>>,
}

impl Echo {
    /// Starts on a free port.
    pub fn start(by: By) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let over = Arc::new(AtomicBool::new(false));
        let accepts = Builder::new().name("echo accepts".to_owned());
        let accepts = accepts.spawn({
            let over = Arc::clone(&over);
            move || match by {
                By::Thread => threads(&listener, &over),
                By::Task => {
                    if let Err(error) = tasks(listener, &over) {
                        tracing::error!(%error, "the server with tasks has ended");
                    }
                }
            }
        })?;
        Ok(Self { address, over, accepts: Some(accepts) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // It looks when somebody comes.
        drop(TcpStream::connect(self.address));
        if let Some(accepts) = self.accepts.take() {
            let _ = accepts.join();
        }
    }
}

fn threads(listener: &TcpListener, over: &AtomicBool) {
    let mut all = Vec::new();
    while let Ok((mut stream, _)) = listener.accept() {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let answer = move || {
            let mut bytes = [0; 64];
            while let Ok(length @ 1..) = stream.read(&mut bytes) {
                if stream.write_all(&bytes[..length]).is_err() {
                    break;
                }
            }
        };
        // If the system has no more threads, this client is sent away.
        all.extend(Builder::new().name(By::Thread.name().to_owned()).spawn(answer));
    }
    for thread in all {
        let _ = thread.join();
    }
}

fn tasks(listener: TcpListener, over: &AtomicBool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(By::Task.name())
        .enable_all()
        .build()?;
    runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        // Dropped with this function, and with it every task.
        let mut all = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await?;
            if over.load(Ordering::Relaxed) {
                return Ok(());
            }
            all.spawn(async move {
                let mut bytes = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                    if stream.write_all(&bytes[..length]).await.is_err() {
                        break;
                    }
                }
            });
        }
    })
}

/// The threads of this process that have this name, and how often they have given their core away to wait.
pub fn threads_named(name: &str) -> anyhow::Result<(usize, u64)> {
    let (mut threads, mut switches) = (0, 0);
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?.path();
        // Threads end while we look.
        let Ok(status) = fs::read_to_string(thread.join("status")) else { continue };
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if field("Name:") == Some(name) {
            threads += 1;
            let count = field("voluntary_ctxt_switches:").context("no switches")?;
            switches += count.parse::<u64>()?;
        }
    }
    Ok((threads, switches))
}

/// The memory of this process, in bytes.
pub fn memory() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
    Ok(kibibytes.parse::<u64>()? * 1_024)
}
