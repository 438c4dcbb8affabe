//! Which transfers have been acknowledged? Clients that pay until their bank gives out, and what they remember.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::ensure;
use sqlx::PgConnection;
use tokio::task::JoinSet;

use super::random::Random;
use crate::cases::client::Client;

/// Payments that must be acknowledged, so that there is something to lose.
pub const ENOUGH: usize = 20;

/// Clients that pay.
pub struct Paying {
    /// The key of each payment that was answered with 201, and when.
    acknowledged: Arc<Mutex<Vec<(String, Instant)>>>,
    clients: JoinSet<()>,
}

impl Paying {
    /// Lets so many clients pay between these accounts. Each ends when it gets anything but 201.
    pub fn start(client: &Client, accounts: &[i64], clients: u64, round: u64) -> Self {
        let mut all = Self { acknowledged: Arc::default(), clients: JoinSet::new() };
        for worker in 0..clients {
            let (client, accounts) = (client.clone(), accounts.to_vec());
            let acknowledged = all.acknowledged.clone();
            all.clients.spawn(async move {
                let mut random = Random::new();
                for number in 0_u64.. {
                    let payment = random.payment(format!("{round}-{worker}-{number}"), &accounts);
                    let Ok(answer) = client.send(&payment).await else { break };
                    if answer.status() != 201 {
                        break;
                    }
                    let mut all = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                    all.push((payment.key, Instant::now()));
                }
            });
        }
        all
    }

    /// Waits until there is something to lose, also on a busy machine.
    pub async fn enough(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len() < ENOUGH {
            ensure!(Instant::now() < deadline, "the bank hardly pays at all");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Waits until each client has noticed that the database is gone. Returns what was acknowledged, and when.
    pub async fn ended(self) -> Vec<(String, Instant)> {
        self.clients.join_all().await;
        std::mem::take(&mut *self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The keys of all payments that are there.
pub async fn kept(connection: &mut PgConnection) -> anyhow::Result<HashSet<String>> {
    let keys: Vec<String> = sqlx::query_scalar(
        r#"
        select key
        from idempotency_keys
        join transfers on transfers.id = idempotency_keys.number
        where scope = 'POST /transfers'
        "#,
    )
    .fetch_all(connection)
    .await?;
    Ok(keys.into_iter().collect())
}
