//! How is guessing made slow, without locking anybody out of their own account?
//!
//! The counts are in PostgreSQL and not in Redis: a login asks the database anyway, so a second server would only add
//! a second way to fail, and beside the hash a row costs nothing.

use std::{net::IpAddr, time::Duration};

use edge::{client_address::one_client, email::Email};
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};

use super::Store;
use crate::error::{Error, Result};

/// Failures are forgotten one by one, one every so many seconds. Somebody who goes on guessing is held to that pace.
const FORGETS_ONE_IN: f64 = 10.0;
/// More failures than any count has.
const ALL: f64 = 1e8;
/// An account may have this many times as many failures from all clients together as from one. That makes a hundred, which
/// is what NIST SP 800-63B-4 allows in a row.
const EVERYWHERE: u32 = 20;

/// How many failures are free, before each further one has to be waited for.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Limits {
    /// Failed logins of one account from one client before each further one has to be waited for
    #[arg(long = "failures-per-account", default_value_t = 5)]
    pub per_account: u32,
    /// Failed logins of one client, over all accounts; and as many registrations. A whole office may be one client
    #[arg(long = "failures-per-client", default_value_t = 20)]
    pub per_client: u32,
}

/// The counts that one attempt belongs to, and how many failures each has free. The client's comes first, and counts are
/// locked in this order: so nobody waits in a circle.
///
/// A count's name is a hash, so that all are of one size; whoever can read it can still test a guess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt(Vec<([u8; 32], u32)>);

impl Attempt {
    /// To log in to this account, whether or not there is one, from this address. An account is counted for each client
    /// apart, so that an attacker elsewhere does not keep its owner out; and for all together, for an attacker with many
    /// addresses.
    pub fn login(email: &Email, client: IpAddr, limits: Limits) -> Self {
        let (email, client) = (email.key(), one_client(client));
        // Neither holds a space.
        Self(vec![
            (count(&format!("client {client}")), limits.per_client),
            (count(&format!("both {email} {client}")), limits.per_account),
            (count(&format!("account {email}")), limits.per_account.saturating_mul(EVERYWHERE)),
        ])
    }

    /// To register from this address. Each counts, also if it succeeds.
    pub fn registration(client: IpAddr, limits: Limits) -> Self {
        Self(vec![(count(&format!("register {}", one_client(client))), limits.per_client)])
    }
}

fn count(name: &str) -> [u8; 32] {
    Sha256::digest(name).into()
}

// ANCHOR: too_soon
/// How long to wait, if the failures that are free do not cover this one. `ahead` is when all will be forgotten.
fn too_soon(ahead: f64, free: u32) -> Option<Duration> {
    let wait = ahead - f64::from(free) * FORGETS_ONE_IN;
    (wait > 0.0).then(|| Duration::from_secs_f64(wait))
}
// ANCHOR_END: too_soon

impl Store {
    // ANCHOR: charge
    /// Counts the attempt as failed before its password is looked at. Otherwise a thousand at once would all be let
    /// through, since none of them has failed yet.
    ///
    /// An attempt that has to wait is not counted, so a client that waits as told gets its turn.
    pub async fn charge(&self, Attempt(counts): &Attempt) -> Result<()> {
        let add = r#"
            insert into failed_logins as old (key, forgotten_at)
            values ($1, clock_timestamp() + $2 * interval '1 second')
            on conflict (key) do update
            set forgotten_at =
                greatest(old.forgotten_at, clock_timestamp()) + $2 * interval '1 second'
            returning extract(epoch from forgotten_at - clock_timestamp())::float8
        "#;
        let charge = async |connection: &mut PgConnection| {
            let mut transaction = connection.begin().await?;
            for (key, free) in counts {
                let ahead = sqlx::query_scalar(add).bind(key).bind(FORGETS_ONE_IN);
                let ahead = ahead.fetch_one(&mut *transaction).await?;
                if let Some(wait) = too_soon(ahead, *free) {
                    transaction.rollback().await?;
                    return Ok(Err(Error::TooManyAttempts(wait)));
                }
            }
            transaction.commit().await.map(Ok)
        };
        self.database.within(charge).await?
    }
    // ANCHOR_END: charge

    // ANCHOR: take_back
    /// Takes the charge back. If the login succeeded, the account's counts begin anew. The client's count only loses
    /// this attempt; otherwise somebody with one account could guess at all others for ever.
    pub async fn take_back(&self, Attempt(counts): &Attempt, succeeded: bool) -> Result<()> {
        let forget = r#"
            update failed_logins set forgotten_at = forgotten_at - $2 * interval '1 second'
            where key = $1
        "#;
        let take_back = async |connection: &mut PgConnection| {
            for (n, (key, _)) in counts.iter().enumerate() {
                let failures = if succeeded && n > 0 { ALL } else { 1.0 };
                let forget = sqlx::query(forget).bind(key).bind(failures * FORGETS_ONE_IN);
                forget.execute(&mut *connection).await?;
            }
            Ok(())
        };
        self.database.transaction(take_back).await
    }
    // ANCHOR_END: take_back
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { per_account: 5, per_client: 20 };

    fn attempt(email: &str, client: &str) -> Vec<([u8; 32], u32)> {
        Attempt::login(&Email::parse(email).unwrap(), client.parse().unwrap(), LIMITS).0
    }

    #[test]
    fn an_attempt_counts_for_its_client_for_both_and_for_its_account() {
        let here = attempt("a@b.example", "192.0.2.1");
        assert_eq!(here.iter().map(|(_, free)| *free).collect::<Vec<_>>(), [20, 5, 100]);
        let same = |other: &[([u8; 32], u32)]| {
            here.iter().zip(other).map(|(one, other)| one == other).collect::<Vec<_>>()
        };
        assert_eq!(same(&attempt("a@b.example", "192.0.2.2")), [false, false, true]);
        assert_eq!(same(&attempt("c@b.example", "192.0.2.1")), [true, false, false]);
        assert_eq!(same(&attempt("A@B.example", "::ffff:192.0.2.1")), [true; 3]);
        let registration = Attempt::registration("192.0.2.1".parse().unwrap(), LIMITS);
        assert_eq!(same(&registration.0), [false]);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        let client = |address: &str| attempt("a@b.example", address)[0];
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:0:0:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
    }

    #[test]
    fn five_failures_are_free_and_then_there_is_one_in_ten_seconds() {
        let wait = |failures: u32| too_soon(f64::from(failures) * FORGETS_ONE_IN - 0.5, 5);
        assert_eq!(wait(5), None);
        assert_eq!(wait(6), Some(Duration::from_secs_f64(9.5)));
        assert_eq!(wait(7), Some(Duration::from_secs_f64(19.5)));
    }
}
