//! What can be tuned, and what is it unless somebody does?

use std::time::Duration;

use clap::Parser;

use crate::{absence::Lives, read::Stampede, ttl::Ttl};

/// Everything that can be chosen. Times are in seconds.
#[derive(clap::Args, Clone, Debug)]
pub struct Tuning {
    /// What the keys in Redis begin with: the key of user 1 is this and `user:1`
    #[arg(long, default_value = "worked-answers:cache-aside:", value_name = "PREFIX")]
    pub key_prefix: String,
    /// Seconds that a user stays in Redis, at most
    #[arg(long, default_value = "3600", value_parser = seconds, value_name = "SECONDS")]
    pub ttl: Duration,
    /// How much of that chance may take off: 0.1 for a tenth
    #[arg(long, default_value = "0.1", value_parser = share, value_name = "SHARE")]
    pub jitter: f64,
    /// Seconds that the absence of a user stays in Redis, at most; 0 for not at all
    #[arg(long, default_value = "10", value_parser = seconds_or_none, value_name = "SECONDS")]
    pub absence_ttl: Duration,
    /// What keeps many readers of one key from becoming many queries; naive is the textbook's race
    #[arg(long, value_enum, default_value_t)]
    pub stampede: Stampede,
    /// Seconds that a load's right to fill lasts; a slower one is not stored
    #[arg(long, default_value = "1.5", value_parser = seconds, value_name = "SECONDS")]
    pub lease: Duration,
    /// Seconds that a reader waits for another process's load before it loads for itself
    #[arg(long, default_value = "0.1", value_parser = seconds, value_name = "SECONDS")]
    pub patience: Duration,
    /// How eagerly hot users are reloaded before they expire: 1 as in the paper, 0 never
    #[arg(long, default_value = "1", value_parser = factor)]
    pub beta: f64,
    /// Seconds for which Redis is believed after it was confirmed; a change that cannot reach it waits so long
    #[arg(long, default_value = "1", value_parser = seconds, value_name = "SECONDS")]
    pub trust: Duration,
    /// Seconds that a command to Redis may take
    #[arg(long, default_value = "0.1", value_parser = seconds, value_name = "SECONDS")]
    pub redis_timeout: Duration,
    /// Seconds that a call of the database may take
    #[arg(long, default_value = "0.7", value_parser = seconds, value_name = "SECONDS")]
    pub database_timeout: Duration,
}

impl Tuning {
    /// The lives that are drawn for what is loaded.
    pub fn lives(&self) -> Lives {
        let ttl = |longest| Ttl { longest, jitter: self.jitter };
        Lives { user: ttl(self.ttl), absence: ttl(self.absence_ttl) }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        #[derive(Parser)]
        struct Defaults {
            #[command(flatten)]
            tuning: Tuning,
        }
        Defaults::parse_from(["defaults"]).tuning
    }
}

fn seconds_or_none(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if duration <= Duration::from_hours(24 * 365) {
        Ok(duration)
    } else {
        Err("over a year".into())
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let duration = seconds_or_none(text)?;
    if duration < Duration::from_millis(1) {
        Err("under a millisecond".into())
    } else {
        Ok(duration)
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("is not between 0 and 1".into()) }
}

fn factor(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..=1e6).contains(&factor) { Ok(factor) } else { Err("is not 0 or more".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_that_the_chapter_states() {
        let tuning = Tuning::default();
        assert_eq!((tuning.ttl.as_secs(), tuning.absence_ttl.as_secs()), (3_600, 10));
        assert_eq!(
            (tuning.stampede, tuning.key_prefix.as_str()),
            (Stampede::Lease, "worked-answers:cache-aside:")
        );
        // A load waits for a place and then for its answer, and is to be stored all the same.
        assert!(tuning.lease > 2 * tuning.database_timeout);
        assert!(tuning.trust / 3 > tuning.redis_timeout);
    }

    #[test]
    fn times_that_cannot_be_are_refused() {
        for text in ["", "x", "-1", "NaN", "inf", "1e300", "0", "1e-9"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert!(seconds_or_none("0").is_ok() && share("1.1").is_err() && factor("NaN").is_err());
    }
}
