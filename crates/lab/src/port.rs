//! Which port can a server have that will be killed and started again? One below those that the system gives to
//! outgoing connections (from 32,768 on Linux, from 49,152 on macOS): of these, any may be taken while it is away.

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

/// A process reserves so many ports at most, its newest.
const RESERVED: usize = 200;

/// A port on which nobody listens now. None is given twice, so that two servers that are being started do not meet.
pub fn free() -> anyhow::Result<u16> {
    // Processes begin at different places, so that they seldom meet.
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random()));
    let span = PORTS.end - PORTS.start;
    (0..span)
        .map(|_| PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % span)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok() && reserve(*port))
        .context("there is no free port")
}

/// Tells other processes, those of another checkout say, that the port will be used: the UDP port of the same number is
/// bound here. False if another process was first.
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
        // Those that would be given next; of so many, this process cannot hold all.
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
