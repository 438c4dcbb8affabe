//! What is a transfer? One transaction, whose key is claimed first and whose accounts are locked in order.
//!
//! Invariant: a key has one answer. It is written in the transaction that makes the transfer, so there is
//! neither a transfer without its key nor a key without its transfer.

use edge::FieldError;
use sqlx::PgConnection;

use crate::{
    amount::AmountCents,
    database::{Database, Isolation, Work},
    error::Error,
    idempotency::{Fingerprint, IdempotencyKey},
    store::{self, Account, Entry, Transfer, VAULT},
};

/// What a client wants to be paid.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// The number of the account that pays.
    pub from: i64,
    /// The number of the account that is paid.
    pub to: i64,
    /// How much.
    pub amount: AmountCents,
}

impl Order {
    /// What must be the same when its key comes again.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&[self.from, self.to, self.amount.get()])
    }
}

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

    /// Opens an account with this much in it, or with nothing.
    pub async fn open(&self, owner: &str, amount: Option<AmountCents>) -> Result<Account, Error> {
        self.database.transaction(self.isolation, &Opening { owner, amount }).await
    }

    /// Makes the transfer, or gives the answer that its key got before.
    pub async fn transfer(&self, order: &Order, key: &IdempotencyKey) -> Result<Transfer, Error> {
        match self.database.transaction(self.isolation, &Payment { order, key }).await? {
            Decision::Paid(transfer) => Ok(transfer),
            Decision::Refused => Err(Error::InsufficientFunds),
        }
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

/// What was decided about an order. Both are answers, and both are kept with the key.
enum Decision {
    Paid(Transfer),
    /// There was not enough money. Kept, because a client that heard it may have paid in another way: should
    /// its lost first attempt arrive an hour later, after the next wages, nothing must happen.
    Refused,
}

struct Opening<'a> {
    owner: &'a str,
    amount: Option<AmountCents>,
}

impl Work for Opening<'_> {
    type Answer = Account;

    async fn run(&self, connection: &mut PgConnection) -> Result<Account, Error> {
        let mut account = store::insert_account(connection, self.owner).await?;
        if let Some(amount) = self.amount {
            let id = store::next_transfer(connection).await?;
            store::debit(connection, VAULT, amount).await?;
            store::credit(connection, account.id, amount).await?;
            store::write_transfer(connection, id, (VAULT, account.id), amount).await?;
            account.balance_cents = amount.get();
        }
        Ok(account)
    }
}

struct Payment<'a> {
    order: &'a Order,
    key: &'a IdempotencyKey,
}

// ANCHOR: pay
impl Work for Payment<'_> {
    type Answer = Decision;

    /// Between `begin` and `commit`, perhaps more than once. An error at any point, or a crash, undoes all of
    /// it, the claim to the key too.
    async fn run(&self, connection: &mut PgConnection) -> Result<Decision, Error> {
        let &Order { from, to, amount } = self.order;
        let fingerprint = self.order.fingerprint();
        let Some(id) = store::claim_key(connection, self.key, &fingerprint).await? else {
            return self.answer_again(connection).await;
        };
        let accounts = store::lock_accounts(connection, from, to).await?;
        let balance =
            |account| accounts.iter().find(|(id, _)| *id == account).map(|(_, cents)| *cents);
        let from_balance = balance(from).ok_or_else(|| unknown("from"))?;
        balance(to).ok_or_else(|| unknown("to"))?;
        // What was read is still true: the row is locked.
        if from_balance < amount.get() {
            store::refuse_key(connection, self.key).await?;
            return Ok(Decision::Refused);
        }
        store::debit(connection, from, amount).await?;
        store::credit(connection, to, amount).await?;
        Ok(Decision::Paid(store::write_transfer(connection, id, (from, to), amount).await?))
    }
}

impl Payment<'_> {
    /// The key was used before, perhaps a moment ago: what was the answer?
    async fn answer_again(&self, connection: &mut PgConnection) -> Result<Decision, Error> {
        let used = store::used_key(connection, self.key).await?;
        if used.fingerprint != self.order.fingerprint().bytes() {
            return Err(Error::KeyReused);
        }
        if used.refused {
            return Ok(Decision::Refused);
        }
        let transfer = store::find_transfer(connection, used.transfer_id).await?;
        Ok(Decision::Paid(transfer.ok_or(Error::NotFound)?))
    }
}
// ANCHOR_END: pay

fn unknown(field: &str) -> Error {
    Error::Invalid(vec![FieldError::new(field, "is not the number of an account")])
}
