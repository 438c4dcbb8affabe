//! What do the bodies of requests and answers look like?

use edge::FieldError;
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    ids::{JobId, UserId},
    notification::{Channel, NewNotification, Priority},
    store::Progress,
};

/// In bytes. With the body and what FCM's JSON adds, below the 4,096 that FCM takes.
const LONGEST_TITLE: usize = 256;
const LONGEST_BODY: usize = 3_000;

/// What a client sends to have a user notified.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object with `user_id`, `channel`, `title`, `body`, and perhaps `job_id` and `priority`"
)]
pub struct Notify {
    job_id: Option<String>,
    user_id: String,
    channel: Channel,
    #[serde(default)]
    priority: Priority,
    title: String,
    body: String,
}

impl Notify {
    /// Parses all fields, so that the client hears of all mistakes at once.
    pub fn parse(self) -> Result<NewNotification, Error> {
        let mut errors = Vec::new();
        let mut wrong = |field: &str, message: &str| {
            errors.push(FieldError::new(field, message));
        };
        let job_id = match self.job_id {
            Some(job_id) => JobId::parse(job_id).map_err(|message| wrong("job_id", message)).ok(),
            None => Some(JobId::random()),
        };
        let user_id = UserId::parse(self.user_id).map_err(|message| wrong("user_id", message)).ok();
        if self.title.is_empty() || self.title.len() > LONGEST_TITLE {
            wrong("title", "must be of 1 to 256 bytes");
        }
        if self.body.len() > LONGEST_BODY {
            wrong("body", "must be of at most 3000 bytes");
        }
        for (field, text) in [("title", &self.title), ("body", &self.body)] {
            // PostgreSQL's text cannot hold it.
            if text.contains('\0') {
                wrong(field, "contains a NUL");
            }
        }
        match (job_id, user_id) {
            (Some(job_id), Some(user_id)) if errors.is_empty() => Ok(NewNotification {
                job_id,
                user_id,
                channel: self.channel,
                priority: self.priority,
                title: self.title,
                body: self.body,
            }),
            _ => Err(Error::Invalid(errors)),
        }
    }
}

/// The id of a job.
#[derive(Debug, Serialize)]
pub struct Job {
    /// The id.
    pub job_id: JobId,
}

/// Where a job stands.
#[derive(Debug, Serialize)]
pub struct ProgressBody {
    status: crate::notification::Status,
    attempts: i32,
    last_error: Option<String>,
}

impl From<Progress> for ProgressBody {
    fn from(Progress { status, attempts, last_error }: Progress) -> Self {
        Self { status, attempts, last_error }
    }
}

/// A ticket for one stream.
#[derive(Debug, Serialize)]
pub struct TicketBody {
    /// To be sent as `?ticket=`.
    pub ticket: String,
}

/// The query of a stream. As text: a wrong ticket must be a 401, whatever else is wrong.
#[derive(Debug, Default, Deserialize)]
pub struct StreamQuery {
    /// From a stream-ticket call.
    pub ticket: Option<String>,
    /// The number that the client has seen last.
    pub after: Option<String>,
}

impl StreamQuery {
    /// The number after which the client wants to hear; all that is kept, if it names none.
    pub fn after(&self) -> Result<i64, Error> {
        let Some(after) = &self.after else { return Ok(0) };
        let good = after.parse().ok().filter(|&after: &i64| after >= 0);
        good.ok_or_else(|| Error::invalid("after", "must be a whole number from 0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(job_id: Option<&str>, user_id: &str, title: &str, body: &str) -> Vec<String> {
        let body = Notify {
            job_id: job_id.map(str::to_owned),
            user_id: user_id.to_owned(),
            channel: Channel::Push,
            priority: Priority::Normal,
            title: title.to_owned(),
            body: body.to_owned(),
        };
        match body.parse() {
            Err(Error::Invalid(errors)) => errors.into_iter().map(|error| error.field).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let long = "x".repeat(3_001);
        assert!(errors(None, "u", "t", "").is_empty());
        assert_eq!(errors(Some("a b"), "", "", &long), ["job_id", "user_id", "title", "body"]);
        assert_eq!(errors(Some("a"), "u", "a\0", "b\0"), ["title", "body"]);
    }

    #[test]
    fn after_is_a_whole_number() {
        let after = |text: &str| StreamQuery { ticket: None, after: Some(text.to_owned()) }.after();
        assert_eq!(after("7").unwrap(), 7);
        for bad in ["", "-1", "x", "1.5", "9223372036854775808"] {
            assert!(after(bad).is_err(), "{bad}");
        }
    }
}
