//! What is a transfer? One transaction, whose key is claimed first and whose accounts are locked in order.
//!
//! Invariant: a key has one answer, also if that is a refusal. The claim to the key, the decision and what it changes
//! are one transaction, so a crash leaves all of it or nothing: never a key without its answer, nor the reverse.

use sqlx::PgConnection;

use crate::{
    amount::AmountCents,
    database::{Database, Isolation, Work},
    error::Error,
    idempotency::{Fingerprint, IdempotencyKey},
    order::{Order, Refusal},
    store::{self, Account, Claim, Entry, Transfer, VAULT},
};

/// The bank.
pub struct Bank {
    database: Database,
    isolation: Isolation,
}

impl Bank {
    /// Connects when it is first asked something. The error is a malformed URL.
    pub fn new(url: &str, isolation: Isolation) -> Result<Self, sqlx::Error> {
        Ok(Self { database: Database::new(url)?, isolation })
    }

    /// Opens an account with this much in it, or with nothing; or gives the answer that the key got before.
    pub async fn open(
        &self,
        owner: &str,
        amount: Option<AmountCents>,
        key: &IdempotencyKey,
    ) -> Result<Account, Error> {
        let cents = amount.map_or(0, AmountCents::get);
        // The number first: then no owner's name can look like another number and another name.
        let fingerprint = Fingerprint::of(&format!("{cents},{owner}"));
        let claim = Claim { scope: "POST /accounts", key, fingerprint };
        self.database.transaction(self.isolation, &Opening { owner, amount, claim }).await
    }

    /// Makes the transfer, or gives the answer that its key got before.
    pub async fn transfer(&self, order: &Order, key: &IdempotencyKey) -> Result<Transfer, Error> {
        let Order { from, to, amount } = order;
        let fingerprint = Fingerprint::of(&format!("{from},{to},{}", amount.get()));
        let claim = Claim { scope: "POST /transfers", key, fingerprint };
        let decided = self.database.transaction(self.isolation, &Payment { order, claim }).await?;
        Ok(decided?)
    }

    /// The account.
    pub async fn account(&self, id: i64) -> Result<Account, Error> {
        let find = async |connection: &mut PgConnection| store::find_account(connection, id).await;
        self.database.read(find).await?.ok_or(Error::NotFound)
    }

    /// The transfer.
    pub async fn find(&self, id: i64) -> Result<Transfer, Error> {
        let find = async |connection: &mut PgConnection| store::find_transfer(connection, id).await;
        self.database.read(find).await?.ok_or(Error::NotFound)
    }

    /// A page of the account's entries. Two statements and no transaction: accounts are never deleted.
    pub async fn entries(&self, account: i64, after: i64, limit: i64) -> Result<Vec<Entry>, Error> {
        let page = async |connection: &mut PgConnection| {
            if store::find_account(connection, account).await?.is_none() {
                return Ok(None);
            }
            store::entries_after(connection, account, after, limit).await.map(Some)
        };
        self.database.read(page).await?.ok_or(Error::NotFound)
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.database.ping().await
    }
}

struct Opening<'a> {
    owner: &'a str,
    amount: Option<AmountCents>,
    claim: Claim<'a>,
}

impl Work for Opening<'_> {
    type Answer = Account;

    /// If the vault can pay no more, the error rolls back the claim too. That refusal need not be kept: the vault never
    /// gets anything back, so it stays true.
    async fn run(&self, connection: &mut PgConnection) -> Result<Account, Error> {
        let Some(transfer) = store::claim_key(connection, &self.claim).await? else {
            return self.answer_again(connection).await;
        };
        let mut account = store::insert_account(connection, self.owner).await?;
        if let Some(amount) = self.amount {
            store::move_money(connection, transfer, (VAULT, account.id), amount).await?;
            account.balance_cents = amount.get();
        }
        store::keep_account(connection, &self.claim, account.id).await?;
        Ok(account)
    }
}

impl Opening<'_> {
    /// The account as it was when it was opened, whatever has been paid since.
    async fn answer_again(&self, connection: &mut PgConnection) -> Result<Account, Error> {
        let used = store::used_key(connection, &self.claim).await?;
        let account = store::find_account(connection, used.number).await?.ok_or(Error::NotFound)?;
        Ok(Account { balance_cents: self.amount.map_or(0, AmountCents::get), ..account })
    }
}

struct Payment<'a> {
    order: &'a Order,
    claim: Claim<'a>,
}

// ANCHOR: pay
impl Work for Payment<'_> {
    /// Both are answers, and both are committed.
    type Answer = Result<Transfer, Refusal>;

    /// Between `begin` and `commit`, perhaps more than once. An error at any point, or a crash, undoes all of
    /// it, the claim to the key too.
    async fn run(&self, connection: &mut PgConnection) -> Result<Self::Answer, Error> {
        let &Order { from, to, amount } = self.order;
        let Some(id) = store::claim_key(connection, &self.claim).await? else {
            return self.answer_again(connection).await;
        };
        let balances = store::lock_accounts(connection, from, to).await?;
        // What was read stays true until the commit: the rows are locked.
        if let Some(refusal) = self.order.refusal(&balances) {
            store::refuse_key(connection, &self.claim, refusal).await?;
            return Ok(Err(refusal));
        }
        Ok(Ok(store::move_money(connection, id, (from, to), amount).await?))
    }
}

impl Payment<'_> {
    /// The key was used before, perhaps a moment ago: what was the answer?
    async fn answer_again(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Result<Transfer, Refusal>, Error> {
        let used = store::used_key(connection, &self.claim).await?;
        if let Some(refusal) = used.refusal {
            return Ok(Err(refusal));
        }
        let transfer = store::find_transfer(connection, used.number).await?;
        Ok(Ok(transfer.ok_or(Error::NotFound)?))
    }
}
// ANCHOR_END: pay
