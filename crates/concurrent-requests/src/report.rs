//! What did the shop sell on a day?

use serde::Serialize;
use time::{Date, macros::format_description};

use crate::error::{Error, Result};

/// A day in UTC.
#[derive(Clone, Copy, Debug)]
pub struct Day(Date);

impl Day {
    /// `2026-01-31`. A string that can be no day is not found.
    pub fn parse(text: &str) -> Result<Self> {
        let day = Date::parse(text, format_description!("[year]-[month]-[day]")).ok();
        let day = day.filter(|day| day.year() >= 1 && text.len() == 10);
        day.map(Self).ok_or(Error::NOT_FOUND)
    }

    /// For the database.
    pub fn date(self) -> Date {
        self.0
    }
}

/// What was sold in an hour of the day.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub struct Hour {
    /// 0 to 23, in UTC.
    pub hour: i32,
    /// How many orders.
    pub orders: i64,
    /// How many items in them.
    pub items: i64,
}

/// A day's report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `2026-01-31`
    pub day: String,
    /// All orders of the day.
    pub orders: i64,
    /// All items in them.
    pub items: i64,
    /// The hours in which something was sold.
    pub hours: Vec<Hour>,
}

impl Report {
    /// Adds up the hours.
    pub fn of(day: Day, hours: Vec<Hour>) -> Self {
        let (orders, items) =
            hours.iter().fold((0, 0), |(orders, items), it| (orders + it.orders, items + it.items));
        Self { day: day.date().to_string(), orders, items, hours }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_that_can_be_no_day_is_not_found() {
        assert_eq!(Day::parse("2028-02-29").unwrap().date().to_string(), "2028-02-29");
        for text in
            ["", "today", "2026-02-29", "2026-1-1", "-001-01-01", "0000-01-01", "2026-01-01T"]
        {
            assert!(Day::parse(text).is_err(), "{text}");
        }
    }
}
