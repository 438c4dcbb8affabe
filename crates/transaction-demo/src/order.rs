//! What does a client want to be paid, and when does the bank refuse? A decision without I/O.

use crate::amount::AmountCents;

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

/// Why an order is not carried out. It is an answer like any other, so it is kept with the key: a client that heard
/// it may have paid in another way. Its lost first attempt, which arrives after the next wages, must move nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Refusal {
    /// There is no account that pays.
    UnknownFrom,
    /// There is no account that is paid.
    UnknownTo,
    /// There is less in the account than should be taken out of it.
    InsufficientFunds,
    /// The account would hold more than an account can.
    BeyondLimit,
}

// ANCHOR: refusal
impl Order {
    /// Why the order must be refused, if these are the accounts that there are, with their balances.
    pub fn refusal(&self, balances: &[(i64, i64)]) -> Option<Refusal> {
        let balance = |of| balances.iter().find(|(id, _)| *id == of).map(|(_, cents)| *cents);
        let cents = self.amount.get();
        match (balance(self.from), balance(self.to)) {
            (None, _) => Some(Refusal::UnknownFrom),
            (_, None) => Some(Refusal::UnknownTo),
            (Some(from), _) if from < cents => Some(Refusal::InsufficientFunds),
            (_, Some(to)) if to > AmountCents::MAX - cents => Some(Refusal::BeyondLimit),
            _ => None,
        }
    }
}
// ANCHOR_END: refusal

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_refused_for_the_first_reason_that_there_is() {
        let order = Order { from: 1, to: 2, amount: AmountCents::parse(10).unwrap() };
        let limit = AmountCents::MAX;
        for (balances, refusal) in [
            (&[][..], Some(Refusal::UnknownFrom)),
            (&[(2, 0)], Some(Refusal::UnknownFrom)),
            (&[(1, 10)], Some(Refusal::UnknownTo)),
            (&[(1, 9), (2, limit)], Some(Refusal::InsufficientFunds)),
            (&[(1, 10), (2, limit - 9)], Some(Refusal::BeyondLimit)),
            (&[(1, 10), (2, limit - 10)], None),
            (&[(2, 0), (1, limit)], None),
        ] {
            assert_eq!(order.refusal(balances), refusal, "{balances:?}");
        }
    }
}
