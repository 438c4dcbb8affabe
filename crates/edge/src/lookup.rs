//! How is a name looked up that a stranger chose, so that slow name servers do not take all threads?
//!
//! tokio asks the system's resolver on its threads for blocking work, and other things need these too: passwords are
//! hashed there. A resolver may be silent for half a minute, and nobody can call a thread back.

use std::{io, net::SocketAddr, pin::Pin, sync::Arc};

use tokio::{net::lookup_host, sync::Semaphore};

/// How many names are looked up at once. The rest of tokio's 512 threads stays for other work.
const MOST: usize = 32;

/// What a name and a port stand for at this moment.
pub type Lookup = Arc<
    dyn Fn(String, u16) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>
        + Send
        + Sync,
>;

/// By the resolver of this machine, for a few names at a time.
pub fn system_lookup() -> Lookup {
    let lookup: Lookup = Arc::new(|name, port| {
        Box::pin(async move { Ok(lookup_host((name.as_str(), port)).await?.collect()) })
    });
    at_most(MOST, lookup)
}

/// This look-up, for at most so many names at once. Others are refused: whoever waits in a queue behind a silent name
/// server waits too long.
fn at_most(most: usize, lookup: Lookup) -> Lookup {
    let turns = Arc::new(Semaphore::new(most));
    Arc::new(move |name, port| {
        let (turn, found) = (Arc::clone(&turns).try_acquire_owned(), lookup(name, port));
        Box::pin(async move {
            let refused =
                |_| io::Error::new(io::ErrorKind::WouldBlock, "too many names are looked up");
            let turn = turn.map_err(refused)?;
            // A task, so that the turn ends with the look-up. A caller that gives up frees no thread.
            let task = tokio::spawn(async move {
                let found = found.await;
                drop(turn);
                found
            });
            task.await.map_err(io::Error::other)?
        })
    })
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_look_up_that_hangs_keeps_its_turn_after_its_caller_gave_up() {
        let lookup = at_most(2, Arc::new(|_, _| Box::pin(pending())));
        let ask = || lookup("silent.example".to_owned(), 443);
        for _ in 0..2 {
            assert!(timeout(Duration::from_millis(10), ask()).await.is_err());
        }
        let refused = timeout(Duration::from_secs(5), ask()).await.expect("refused at once");
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn a_look_up_that_ends_gives_its_turn_back() {
        let found = SocketAddr::from(([192, 0, 2, 1], 443));
        let lookup = at_most(1, Arc::new(move |_, _| Box::pin(async move { Ok(vec![found]) })));
        for _ in 0..3 {
            assert_eq!(lookup("quick.example".to_owned(), 443).await.unwrap(), [found]);
        }
    }

    #[tokio::test]
    async fn the_system_knows_this_machine() {
        let found = system_lookup()("localhost".to_owned(), 443).await.unwrap();
        assert!(!found.is_empty() && found.iter().all(|it| it.ip().is_loopback()), "{found:?}");
    }
}
