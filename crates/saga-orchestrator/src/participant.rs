//! What do the three participants have in common? The order and the key that each call names, and how it is answered.

use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};
use edge::{FieldError, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    error::Error,
    store::calls::{Answer, Asked},
};

/// The `Idempotency-Key` of a request.
#[derive(Clone, Debug)]
pub struct Key(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let mut values = parts.headers.get_all("idempotency-key").iter();
        // Two keys are as bad as none: we would have to guess.
        let (Some(value), None) = (values.next(), values.next()) else { return Err(Error::NoKey) };
        // Visible characters of ASCII, and blanks.
        let key = value.to_str().map_err(|_| Error::NoKey)?.trim();
        if (1..=128).contains(&key.len()) { Ok(Self(key.to_owned())) } else { Err(Error::NoKey) }
    }
}

/// A call for which the order says it all.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "an object with `order_id`")]
pub struct Plain {
    /// Whose step it is.
    pub order_id: Uuid,
}

/// A parsed body, and the same as what is stored.
pub fn asked<T: Serialize>(Key(key): Key, order_id: Uuid, request: &T) -> Result<Asked, Error> {
    Ok(Asked { order_id, key, request: serde_json::to_value(request).map_err(Error::internal)? })
}

/// The answer names the order, so that who asked can see that it is theirs.
pub fn respond(asked: &Asked, answer: Answer) -> Result<Json<Value>, Error> {
    match answer {
        Answer::Done => Ok(Json(json!({ "order_id": asked.order_id, "outcome": "done" }))),
        Answer::Refused(reason) => Err(Error::Refused { order_id: asked.order_id, reason }),
        Answer::KeyReused => Err(Error::KeyReused),
    }
}

/// `?order_id=`.
#[derive(Debug)]
pub struct OfOrder(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for OfOrder {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Wanted {
            order_id: Uuid,
        }
        let wanted = Query::<Wanted>::from_request_parts(parts, state).await;
        let wrong = FieldError::new("order_id", "must be a UUID");
        wanted.map(|Query(wanted)| Self(wanted.order_id)).map_err(|_| Error::Invalid(vec![wrong]))
    }
}
