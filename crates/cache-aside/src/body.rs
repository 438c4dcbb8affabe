//! What do requests and answers look like?

use edge::FieldError;
use serde::Deserialize;

use crate::{
    error::Error,
    many::Many,
    user::{Email, Name, UserId},
};

/// Users in one request: their answer is well under a megabyte.
const MAX_IDS: usize = 100;

/// What a client sends to make or to change a user.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `name` and `email`")]
pub struct UserBody {
    name: String,
    email: String,
}

impl UserBody {
    /// Parses all fields, so that the client hears of all mistakes at once.
    pub fn parse(&self) -> Result<(Name, Email), Error> {
        let mut errors = Vec::new();
        let mut wrong = |field: &str, message: &str| {
            errors.push(FieldError::new(field, message));
        };
        let name = Name::parse(&self.name).map_err(|message| wrong("name", message));
        let email = Email::parse(&self.email).map_err(|message| wrong("email", message));
        match (name, email) {
            (Ok(name), Ok(email)) => Ok((name, email)),
            _ => Err(Error::Invalid(errors)),
        }
    }
}

/// Which users: `?ids=1,2,3`.
#[derive(Debug, Deserialize)]
pub struct IdsQuery {
    ids: String,
}

impl IdsQuery {
    /// Parses the list.
    pub fn parse(&self) -> Result<Vec<UserId>, Error> {
        let ids: Option<Vec<_>> = self.ids.split(',').map(UserId::parse).collect();
        let ids = ids.filter(|ids| ids.len() <= MAX_IDS);
        ids.ok_or_else(|| Error::field("ids", "must be 1 to 100 ids with commas between them"))
    }
}

/// Many users as JSON, in the order in which they were asked for, and what `Cache-Status` says of them.
pub fn many(ids: &[UserId], mut many: Many) -> (&'static str, String) {
    let status = match many.hits {
        None => "redis; fwd=bypass",
        Some(hits) if hits == many.users.len() => "redis; hit",
        Some(0) => "redis; fwd=miss",
        Some(_) => "redis; fwd=partial",
    };
    let (mut users, mut missing) = (Vec::new(), Vec::new());
    for &id in ids {
        match many.users.remove(&id) {
            Some(Some(user)) => users.push(user.into_string()),
            Some(None) => missing.push(id.get().to_string()),
            // Asked for twice, and listed once.
            None => {}
        }
    }
    // Each user is JSON already. A line, as all that we send.
    let (users, missing) = (users.join(","), missing.join(","));
    (status, format!("{{\"users\":[{users}],\"missing\":[{missing}]}}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mistakes_are_told_at_once() {
        let body = UserBody { name: " ".to_owned(), email: "nobody".to_owned() };
        let Err(Error::Invalid(errors)) = body.parse() else { panic!("it should be refused") };
        let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["name", "email"]);
    }

    #[test]
    fn many_says_how_much_of_it_the_cache_knew() {
        let ids = ["1", "2"].map(|id| UserId::parse(id).unwrap());
        for (hits, status) in [
            (None, "redis; fwd=bypass"),
            (Some(0), "redis; fwd=miss"),
            (Some(1), "redis; fwd=partial"),
            (Some(2), "redis; hit"),
        ] {
            let users = ids.iter().map(|&id| (id, None)).collect();
            let told = many(&ids, Many { users, hits });
            assert_eq!(told, (status, "{\"users\":[],\"missing\":[1,2]}\n".to_owned()));
        }
    }

    #[test]
    fn ids_are_a_list_of_at_most_a_hundred() {
        let parse = |ids: &str| IdsQuery { ids: ids.to_owned() }.parse();
        assert_eq!(parse("3,1,3").unwrap().len(), 3);
        assert_eq!(parse(&["7"; 100].join(",")).unwrap().len(), 100);
        for bad in ["", ",", "1,", "1,,2", "1, 2", "0", "-1", "x", &["7"; 101].join(",")] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
