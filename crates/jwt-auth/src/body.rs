//! What do the bodies of requests and answers look like?

use edge::FieldError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    email::Email, error::Error, password::Password, refresh::RefreshToken, sessions::Pair,
    store::Account,
};

/// What a client sends to register and to log in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `email` and `password`")]
pub struct Credentials {
    email: String,
    password: String,
}

impl Credentials {
    /// For a new account: the password has to be a good one.
    pub fn parse_new(self) -> Result<(Email, Password), Error> {
        self.parse(Password::parse_new)
    }

    /// For a login: the password has only to be the right one.
    pub fn parse_given(self) -> Result<(Email, Password), Error> {
        self.parse(Password::parse_given)
    }

    /// Parses all fields, so that the client hears of all mistakes at once.
    fn parse(
        self,
        password: fn(String) -> Result<Password, &'static str>,
    ) -> Result<(Email, Password), Error> {
        match (Email::parse(&self.email), password(self.password)) {
            (Ok(email), Ok(password)) => Ok((email, password)),
            (email, password) => {
                let errors = [("email", email.err()), ("password", password.err())];
                let error =
                    |(field, message): (&str, Option<&str>)| Some(FieldError::new(field, message?));
                Err(Error::Invalid(errors.into_iter().filter_map(error).collect()))
            }
        }
    }
}

/// What a client sends to refresh, and may send to log out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `refresh_token`")]
pub struct Refresh {
    refresh_token: String,
}

impl Refresh {
    /// What has not the shape of a token is just no token of ours.
    pub fn parse(self) -> Result<RefreshToken, Error> {
        RefreshToken::parse(&self.refresh_token).ok_or(Error::InvalidRefreshToken)
    }
}

/// A user, as clients see it.
#[derive(Serialize)]
pub struct User {
    /// The user's id.
    pub id: Uuid,
    /// The user's address.
    pub email: String,
}

impl From<Account> for User {
    fn from(Account { id, email }: Account) -> Self {
        Self { id, email }
    }
}

/// A pair of tokens (RFC 6749, section 5.1).
#[derive(Serialize)]
pub struct Tokens {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    refresh_token: String,
}

impl From<Pair> for Tokens {
    fn from(pair: Pair) -> Self {
        Self {
            access_token: pair.access_token,
            token_type: "Bearer",
            expires_in: pair.expires_in.as_secs(),
            refresh_token: pair.refresh_token.reveal(),
        }
    }
}
