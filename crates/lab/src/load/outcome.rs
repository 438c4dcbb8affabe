//! What does a load measure? Counts, throughput, and the percentiles of the latency.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest latency that we record, in microseconds: an hour.
const LONGEST: u64 = 3_600_000_000;

/// What a load has measured.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Requests that succeeded.
    pub ok: u64,
    /// Requests that failed.
    pub failed: u64,
    /// The error of the first request that failed.
    pub first_error: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// In microseconds. A failed request counts as the longest latency: its answer never comes, and a server must not
    /// look quick because it refuses quickly.
    latencies: Histogram<u64>,
    /// How late the open loop sent its requests, in microseconds.
    lags: Histogram<u64>,
}

impl Outcome {
    pub(super) fn new() -> anyhow::Result<Self> {
        // Three digits are more than repeated runs agree on.
        let empty = Histogram::new_with_bounds(1, LONGEST, 3)?;
        let lags = empty.clone();
        Ok(Self { ok: 0, failed: 0, first_error: None, seconds: 0.0, latencies: empty, lags })
    }

    pub(super) fn record(&mut self, latency: Duration, result: anyhow::Result<()>) {
        match result {
            Ok(()) => {
                self.ok += 1;
                self.latencies.saturating_record(micros(latency));
            }
            Err(error) => {
                self.failed += 1;
                self.first_error.get_or_insert_with(|| format!("{error:#}"));
                self.latencies.saturating_record(LONGEST);
            }
        }
    }

    pub(super) fn record_lag(&mut self, lag: Duration) {
        self.lags.saturating_record(micros(lag));
    }

    pub(super) fn add(&mut self, other: Self) -> anyhow::Result<()> {
        self.ok += other.ok;
        self.failed += other.failed;
        self.first_error = self.first_error.take().or(other.first_error);
        Ok(self.latencies.add(other.latencies)?)
    }

    /// Requests that succeeded, per second.
    pub fn throughput(&self) -> f64 {
        self.ok as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// The latency in milliseconds that this percentage of the requests did not exceed. A failed request counts as one
    /// that took an hour.
    pub fn percentile(&self, percentage: f64) -> f64 {
        self.latencies.value_at_percentile(percentage) as f64 / 1e3
    }

    /// How late the open loop itself sent this percentage of its requests, at most, in milliseconds. The lag is part of
    /// the latencies. If it is not small beside them, the run measured the load generator and not the server.
    pub fn schedule_lag(&self, percentage: f64) -> f64 {
        self.lags.value_at_percentile(percentage) as f64 / 1e3
    }

    /// The results of a closed loop as cells of a table: requests per second and failures. No latencies, because a
    /// closed loop sends less to a slow server (coordinated omission).
    pub fn cells(&self) -> Vec<String> {
        vec![format!("{:.0}", self.throughput()), self.failed.to_string()]
    }

    /// The head of [`cells`](Self::cells).
    pub const COLUMNS: [&str; 2] = ["requests/s", "failed"];

    /// The results of an open loop as cells of a table.
    pub fn open_cells(&self) -> Vec<String> {
        let percentile = |percentage| {
            let known = self.latencies.value_at_percentile(percentage) < LONGEST;
            let value = self.percentile(percentage);
            if known { format!("{value:.3}") } else { "failed".to_owned() }
        };
        vec![
            format!("{:.0}", self.throughput()),
            percentile(50.0),
            percentile(99.0),
            self.failed.to_string(),
            format!("{:.3}", self.schedule_lag(99.0)),
        ]
    }

    /// The head of [`open_cells`](Self::open_cells).
    pub const OPEN_COLUMNS: [&str; 5] =
        ["requests/s", "p50 (ms)", "p99 (ms)", "failed", "sent late by, p99 (ms)"];
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The value in the middle, or the mean of the two in the middle, so that one bad run does not change it much. NaN if
/// there is no value.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.get(middle) {
        None => f64::NAN,
        Some(&upper) if values.len() % 2 == 1 => upper,
        Some(&upper) => f64::midpoint(values[middle - 1], upper),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_values_is_the_mean_of_the_two_middle_ones() {
        assert!(median(vec![]).is_nan());
        for (values, middle) in
            [(vec![3.0], 3.0), (vec![9.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 9.0, 2.0], 3.0)]
        {
            assert!((median(values.clone()) - middle).abs() < 1e-9, "{values:?}");
        }
    }

    #[test]
    fn a_request_that_failed_is_slower_than_any_that_succeeded() {
        let mut outcome = Outcome::new().unwrap();
        for n in 0..100 {
            // Refused at once, which must not make the server look quick.
            let result = if n % 10 == 0 { Err(anyhow::anyhow!("refused")) } else { Ok(()) };
            outcome.record(Duration::from_millis(if n % 10 == 0 { 0 } else { 20 }), result);
        }
        assert!((19.0..21.0).contains(&outcome.percentile(50.0)), "{}", outcome.percentile(50.0));
        assert!(outcome.percentile(95.0) > 3_000_000.0, "{}", outcome.percentile(95.0));
        assert_eq!(outcome.open_cells()[2], "failed");
    }
}
