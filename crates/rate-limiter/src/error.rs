//! What can go wrong, and what does the client see of it?

use std::time::Duration;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use edge::{FieldError, Problem};

use crate::quota::{Decision, Policy};

/// Everything that can go wrong behind the edge, which refuses what cannot be read. The client sees these messages.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// 404: there is no such path.
    #[error("there is nothing here")]
    NotFound,
    /// 422: well-formed, but a field is not as it should be.
    #[error("a field is not as it should be")]
    Invalid(Vec<FieldError>),
    /// 429: these policies have no room for the request. `Retry-After` is added where the other headers are.
    #[error("the quota is used up; wait as long as Retry-After says")]
    TooManyRequests(Vec<String>),
    /// 503: the store does not answer, and without it nobody gets in.
    #[error("the limiter's store is away; try again")]
    StoreAway,
}

/// The problem type of draft-ietf-httpapi-ratelimit-headers-10.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

impl Error {
    /// The policies have refused.
    pub fn over(policies: &[Policy], decision: &Decision) -> Self {
        let outcomes = policies.iter().zip(decision.outcomes());
        let violated = outcomes.filter(|(_, outcome)| outcome.wait > 0);
        Self::TooManyRequests(violated.map(|(policy, _)| policy.name().to_owned()).collect())
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyRequests(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::StoreAway => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

// ANCHOR: error_response
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let problem = Problem::new(self.status(), self.to_string());
        match self {
            Self::Invalid(errors) => problem.errors(errors),
            Self::TooManyRequests(policies) => {
                problem.member("type", QUOTA_EXCEEDED).member("violated-policies", policies)
            }
            Self::StoreAway => problem.retry_after(Duration::from_secs(1)),
            Self::NotFound => problem,
        }
        .into_response()
    }
}
// ANCHOR_END: error_response
