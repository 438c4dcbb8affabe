//! What do the bodies of requests and answers look like?

use edge::{FieldError, Mistakes, text::is_line};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    amount::AmountCents,
    error::Error,
    order::Order,
    store::{Account, Entry, Transfer, VAULT},
};

/// The longest name of an owner, in characters.
const LONGEST_OWNER: usize = 200;
/// Entries on a page, unless asked otherwise.
const PAGE: u32 = 50;
/// Entries on the longest page.
const LONGEST_PAGE: u32 = 200;

/// What a client sends to open an account.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `owner` and `balance_cents`")]
pub struct OpenAccount {
    owner: String,
    balance_cents: i64,
}

impl OpenAccount {
    /// The owner, and what is paid in, if anything is.
    pub fn parse(self) -> Result<(String, Option<AmountCents>), Error> {
        let mut mistakes = Mistakes::default();
        let amount = match self.balance_cents {
            0 => None,
            cents => {
                let amount = AmountCents::parse(cents);
                let amount = amount.map_err(|_| "must be from 0 to 9007199254740991");
                mistakes.note("balance_cents", amount)
            }
        };
        let owner = mistakes.note("owner", parse_owner(self.owner));
        mistakes.finish(owner.map(|owner| (owner, amount))).map_err(Error::Invalid)
    }
}

/// A name that can be shown on one line. PostgreSQL could not keep U+0000 at all.
fn parse_owner(owner: String) -> Result<String, &'static str> {
    if owner.trim().is_empty() {
        Err("must not be blank")
    } else if owner.chars().count() > LONGEST_OWNER {
        Err("is longer than 200 characters")
    } else if !is_line(&owner) {
        Err("contains a line end, or another control character")
    } else {
        Ok(owner)
    }
}

/// What a client sends to move money.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `from`, `to` and `amount_cents`")]
pub struct CreateTransfer {
    from: i64,
    to: i64,
    amount_cents: i64,
}

impl CreateTransfer {
    /// What can be known without asking the database.
    pub fn parse(self) -> Result<Order, Error> {
        let Self { from, to, amount_cents } = self;
        let mut mistakes = Mistakes::default();
        let account = |id| if id > VAULT { Ok(id) } else { Err("is not the number of an account") };
        mistakes.note("from", account(from));
        mistakes.note("to", account(to));
        if from == to {
            mistakes.note("to", Err::<(), _>("is the account that pays"));
        }
        let amount = mistakes.note("amount_cents", AmountCents::parse(amount_cents));
        mistakes.finish(amount.map(|amount| Order { from, to, amount })).map_err(Error::Invalid)
    }
}

/// Which entries a client wants.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Those after this one.
    after: Option<i64>,
    /// So many.
    limit: Option<u32>,
}

impl Page {
    /// The number before the first, and how many at most.
    pub fn parse(&self) -> Result<(i64, u32), Error> {
        let limit = self.limit.unwrap_or(PAGE);
        if !(1..=LONGEST_PAGE).contains(&limit) {
            return Err(Error::Invalid(vec![FieldError::new("limit", "must be from 1 to 200")]));
        }
        Ok((self.after.unwrap_or(0), limit))
    }
}

/// An account, as clients see it.
#[derive(Debug, Serialize)]
pub struct AccountBody {
    id: i64,
    owner: String,
    balance_cents: i64,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl From<Account> for AccountBody {
    fn from(account: Account) -> Self {
        let Account { id, owner, balance_cents, created_at } = account;
        Self { id, owner, balance_cents, created_at }
    }
}

/// A transfer, as clients see it. `from` is 0 where money was paid in at the opening of an account.
#[derive(Debug, Serialize)]
pub struct TransferBody {
    id: i64,
    from: i64,
    to: i64,
    amount_cents: i64,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl From<Transfer> for TransferBody {
    fn from(transfer: Transfer) -> Self {
        let Transfer { id, from_account: from, to_account: to, amount_cents, created_at } =
            transfer;
        Self { id, from, to, amount_cents, created_at }
    }
}

/// A page of an account's entries, the oldest first.
#[derive(Debug, Serialize)]
pub struct EntriesBody {
    entries: Vec<EntryBody>,
    /// Where the next page is, if this one is full.
    next: Option<String>,
}

#[derive(Debug, Serialize)]
struct EntryBody {
    id: i64,
    transfer: i64,
    amount_cents: i64,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl EntriesBody {
    /// The page of this account that was asked for with this limit.
    pub fn new(account: i64, limit: u32, entries: Vec<Entry>) -> Self {
        let full = entries.len() == limit as usize;
        let last = entries.last().filter(|_| full).map(|entry| entry.id);
        let next = last.map(|id| format!("/accounts/{account}/entries?after={id}&limit={limit}"));
        let entry = |Entry { id, transfer_id: transfer, amount_cents, created_at }| EntryBody {
            id,
            transfer,
            amount_cents,
            created_at,
        };
        Self { entries: entries.into_iter().map(entry).collect(), next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields<T>(parsed: Result<T, Error>) -> Vec<String> {
        match parsed {
            Err(Error::Invalid(errors)) => errors.into_iter().map(|error| error.field).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let transfer = |from, to, amount_cents| CreateTransfer { from, to, amount_cents }.parse();
        assert!(transfer(1, 2, 1).is_ok());
        assert_eq!(fields(transfer(0, -1, 0)), ["from", "to", "amount_cents"]);
        assert_eq!(fields(transfer(7, 7, 1)), ["to"]);
        let open = |owner: &str, balance_cents| OpenAccount { owner: owner.into(), balance_cents };
        assert_eq!(fields(open(" ", -1).parse()), ["balance_cents", "owner"]);
    }

    #[test]
    fn an_owner_is_a_line_of_text() {
        let long = "x".repeat(201);
        for bad in ["", "  ", "a\0", "a\nb", "\u{7f}", "a\u{2028}b", &long] {
            assert!(parse_owner(bad.to_owned()).is_err(), "{bad:?}");
        }
        for good in ["Ada", "Ł. Ω", "'; drop table accounts; --", &"ä".repeat(200)] {
            assert!(parse_owner(good.to_owned()).is_ok(), "{good:?}");
        }
    }
}
