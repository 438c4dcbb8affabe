//! Which port suits a server that will be killed and started again? One below the range for outgoing connections (from
//! 32,768 on Linux, from 49,152 on macOS): the system may give away a port of that range while the server is down.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    ops::Range,
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
};

use anyhow::Context;

const PORTS: Range<u16> = 10_000..32_768;

/// A process keeps at most this many ports reserved, the newest ones.
const RESERVED: usize = 200;

/// A port on which nothing listens now. A process repeats a port only after thousands of others, so that two servers
/// that start at the same time do not get the same one.
pub fn free() -> anyhow::Result<u16> {
    // Processes begin at different ports, so that they seldom try the same ones.
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random()));
    let span = PORTS.end - PORTS.start;
    (0..span)
        .map(|_| PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % span)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok() && reserve(*port))
        .context("there is no free port")
}

/// Tells other processes, such as those of another checkout, that the port will be used, by binding the UDP port of the
/// same number. Returns false if another process was first.
fn reserve(port: u16) -> bool {
    static HELD: Mutex<VecDeque<UdpSocket>> = Mutex::new(VecDeque::new());
    let Ok(mark) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) else { return false };
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.push_back(mark);
    if held.len() > RESERVED {
        held.pop_front();
    }
    true
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_thousand_ports_are_all_different_and_none_is_one_of_outgoing_connections() {
        let ports: HashSet<_> = (0..1_000).map(|_| free().unwrap()).collect();
        assert_eq!(ports.len(), 1_000);
        assert!(ports.iter().all(|port| PORTS.contains(port)));
    }

    #[test]
    fn a_port_that_another_process_was_given_is_passed_over() {
        // Bind the ports that would be given next. This process itself may hold some of the 300, but at most 200.
        let next = free().unwrap();
        let theirs: Vec<_> = (1..=300)
            .filter_map(|n| UdpSocket::bind((Ipv4Addr::LOCALHOST, next + n)).ok())
            .collect();
        let theirs: HashSet<_> = theirs.iter().map(|it| it.local_addr().unwrap().port()).collect();
        assert!(!theirs.is_empty());
        assert!((0..100).all(|_| !theirs.contains(&free().unwrap())));
    }

    #[test]
    fn a_port_that_is_taken_is_passed_over() {
        let taken: Vec<_> = (0..50)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, free().unwrap())).unwrap())
            .collect();
        let taken: HashSet<_> = taken.iter().map(|it| it.local_addr().unwrap().port()).collect();
        assert!((0..100).all(|_| !taken.contains(&free().unwrap())));
    }
}
