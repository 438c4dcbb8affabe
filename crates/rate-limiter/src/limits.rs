//! By what is a client limited? By one algorithm, and by one policy or several.

use crate::{
    algorithm::Algorithm,
    quota::{InvalidQuota, MAX_POLICIES, Policy},
};

/// A time for each request of each client: more than that nobody should keep.
const LONGEST_LOG: u64 = 10_000;

/// By what is limited.
///
/// Invariant: there is at least one policy, and at most [`MAX_POLICIES`], each with a name of its own.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How requests are counted.
    pub algorithm: Algorithm,
    /// Whether a request that is refused costs quota too: who does not stop asking then never gets in.
    pub count_refused: bool,
    policies: Vec<Policy>,
}

impl Limits {
    /// One policy, or several of which each must have room.
    pub fn new(algorithm: Algorithm, policies: Vec<Policy>) -> Result<Self, InvalidQuota> {
        let name_of = |n: usize| policies.get(n).map(Policy::name);
        if policies.is_empty() || policies.len() > MAX_POLICIES {
            return Err(InvalidQuota::TooMany);
        }
        if (1..policies.len()).any(|n| (0..n).any(|m| name_of(m) == name_of(n))) {
            return Err(InvalidQuota::SameName);
        }
        let too_long = |policy: &Policy| policy.quota().limit() > LONGEST_LOG;
        if algorithm == Algorithm::SlidingLog && policies.iter().any(too_long) {
            return Err(InvalidQuota::LongLog);
        }
        Ok(Self { algorithm, count_refused: false, policies })
    }

    /// The same, with refused requests counted or not.
    pub fn counting_refused(self, count_refused: bool) -> Self {
        Self { count_refused, ..self }
    }

    /// Each of them.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }
}
