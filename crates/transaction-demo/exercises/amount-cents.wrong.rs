// caught by: amount::
impl AmountCents {
    /// 2⁵³ − 1: the largest that every reader of JSON reads exactly. It is the limit of a balance too.
    pub const MAX: i64 = 9_007_199_254_740_991;

    /// Parses what somebody wants to move.
    pub fn parse(cents: i64) -> Result<Self, &'static str> {
        // The mistake: whatever fits into the column is an amount.
        if cents > 0 { Ok(Self(cents)) } else { Err("must be 1 cent at least") }
    }

    /// As a number. It is positive, so its negative exists.
    pub fn get(self) -> i64 {
        self.0
    }
}
