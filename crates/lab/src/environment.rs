//! Which variables of the reader's environment must not affect us? Two kinds, which libraries read by themselves:
//!
//! - `PG…` variables are meant for the reader's own servers. A private server has no TLS and needs no options.
//! - Proxy variables would send requests for our loopback addresses to a proxy, which cannot reach them.
//!
//! A process cannot safely unset a variable while other threads may read it, so it starts itself again without the
//! variable. If `DATABASE_URL` is set, the `PG…` variables stay: they may belong to that server. Then they also affect
//! the servers that an experiment starts for itself.

use std::{env, os::unix::process::CommandExt, process::Command};

use crate::{executable, stack};

/// Our own variable, which also begins with `PG`.
const OURS: &str = "PGBOUNCER_URL";
const PROXIES: [&str; 6] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Returns if no such variable is set. Otherwise replaces this process with the same program without them.
pub(crate) fn begin_undisturbed() -> anyhow::Result<()> {
    let mut again = Command::new(executable::path()?);
    let mut arguments = env::args_os();
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    again.args(arguments);
    let mut disturbed = false;
    let ours = !stack::is_given(stack::Service::Postgres);
    for name in env::vars_os().map(|(name, _)| name).filter(|name| ours && is_of_libpq(name)) {
        again.env_remove(name);
        disturbed = true;
    }
    if PROXIES.iter().any(|name| env::var_os(name).is_some())
        && let Some(no_proxy) = with_loopback(&no_proxy())
    {
        again.env("NO_PROXY", &no_proxy).env("no_proxy", no_proxy);
        disturbed = true;
    }
    // Returns only if it fails.
    if disturbed { Err(again.exec().into()) } else { Ok(()) }
}

fn is_of_libpq(name: &std::ffi::OsString) -> bool {
    name.as_encoded_bytes().starts_with(b"PG") && name != OURS
}

fn no_proxy() -> String {
    env::var("NO_PROXY").or_else(|_| env::var("no_proxy")).unwrap_or_default()
}

/// The list with our addresses added; `None` if it already has all of them.
fn with_loopback(list: &str) -> Option<String> {
    let has = |host: &&str| list.split(',').any(|entry| entry.trim() == *host);
    if LOOPBACK.iter().all(has) {
        return None;
    }
    let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    Some(entries.chain(LOOPBACK).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_added_to_what_has_no_proxy_and_only_once() {
        let first = with_loopback("example.com, 10.0.0.0/8").unwrap();
        assert_eq!(first, "example.com,10.0.0.0/8,localhost,127.0.0.1,::1");
        assert_eq!(with_loopback(&first), None);
        assert_eq!(with_loopback("").unwrap(), "localhost,127.0.0.1,::1");
    }

    #[test]
    fn our_own_variable_is_none_of_libpqs() {
        assert!(is_of_libpq(&"PGSSLMODE".into()) && is_of_libpq(&"PGOPTIONS".into()));
        assert!(!is_of_libpq(&"PGBOUNCER_URL".into()) && !is_of_libpq(&"PATH".into()));
    }
}
