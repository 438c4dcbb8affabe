//! Which port can a server have that will be killed and started again? One below those that the system gives to
//! outgoing connections (from 32,768 on Linux, from 49,152 on macOS): of these, any may be taken while it is away.

use std::{
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
};

use anyhow::Context;

const PORTS: Range<u16> = 10_000..32_768;

/// A port on which nobody listens now. None is given twice, so that two servers that are being started do not meet.
pub fn free() -> anyhow::Result<u16> {
    // Processes begin at different places, or they would meet too.
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random()));
    let span = PORTS.end - PORTS.start;
    (0..span)
        .map(|_| PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % span)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .context("there is no free port")
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
    fn a_port_that_is_taken_is_passed_over() {
        let taken: Vec<_> = (0..50)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, free().unwrap())).unwrap())
            .collect();
        let taken: HashSet<_> = taken.iter().map(|it| it.local_addr().unwrap().port()).collect();
        assert!((0..100).all(|_| !taken.contains(&free().unwrap())));
    }
}
