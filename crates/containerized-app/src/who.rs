//! As whom does this process run, and what may it do? A container is a process: the kernel's `/proc` says it all.

use std::fs;

use rustix::fs::{StatVfsMountFlags, statvfs};
use serde::Serialize;

use crate::limits::Limits;

/// What `GET /who` shows.
#[derive(Clone, Debug, Serialize)]
pub struct Who {
    /// The number of the user; 0 is root.
    pub user: u32,
    /// The number of this process, as it sees it itself.
    pub pid: u32,
    /// The rights of root that it has.
    pub capabilities: Vec<&'static str>,
    /// Whether a set-user-ID program could give it more rights.
    pub may_gain_privileges: bool,
    /// Whether its root file system is read-only.
    pub read_only: bool,
    /// In bytes.
    pub memory_limit: Option<u64>,
    /// In cores.
    pub cpu_limit: Option<f64>,
    /// How many threads can do work at the same time.
    pub workers: usize,
}

impl Who {
    /// This process.
    pub fn am_i(limits: Limits) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let root = statvfs("/").is_ok_and(|root| root.f_flag.contains(StatVfsMountFlags::RDONLY));
        let cores = std::thread::available_parallelism().map_or(1, Into::into);
        Self {
            user: rustix::process::geteuid().as_raw(),
            pid: std::process::id(),
            capabilities: capabilities(&status),
            may_gain_privileges: field(&status, "NoNewPrivs") != "1",
            read_only: root,
            memory_limit: limits.memory,
            cpu_limit: limits.cpus,
            workers: limits.workers(cores),
        }
    }
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim()
}

/// The names of the bits that are set in the effective set.
fn capabilities(status: &str) -> Vec<&'static str> {
    let bits = u64::from_str_radix(field(status, "CapEff"), 16).unwrap_or_default();
    CAPABILITIES.iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1).map(|(_, it)| *it).collect()
}

/// In the order of their bits (`capabilities(7)`).
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_of_a_default_container_are_its_fourteen_capabilities() {
        let names = capabilities("Name:\tapp\nCapEff:\t00000000a80425fb\nNoNewPrivs:\t0\n");
        assert_eq!(names.len(), 14);
        assert!(names.contains(&"mknod") && names.contains(&"setfcap"), "{names:?}");
        assert!(!names.contains(&"sys_admin"), "{names:?}");
    }
}
