//! Which request of which client does this call belong to, across several services? W3C's Trace Context says it in one
//! header: <https://www.w3.org/TR/trace-context/>.

use std::fmt;

/// The header.
pub const TRACEPARENT: &str = "traceparent";

/// Which trace, which span of it, and whether spans are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The same in all services.
    pub id: u128,
    /// What was under way when this was called.
    pub span: u64,
    /// Whether anybody wants to see it.
    pub sampled: bool,
}

impl Trace {
    /// Reads a `traceparent`. One that is malformed is no error of the caller: a new trace begins.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut hex = |length| digits(parts.next()?, length);
        let (version, id, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        let bad = version == 0xff || version == 0 && parts.next().is_some();
        let span = u64::try_from(span).ok()?;
        (!bad && id != 0 && span != 0).then_some(Self { id, span, sampled: flags & 1 == 1 })
    }
}

/// A number of so many small hexadecimal digits.
pub fn digits(text: &str, length: usize) -> Option<u128> {
    let small = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (small && text.len() == length).then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.id, self.span, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_the_specification_says() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Trace::parse(good).unwrap();
        assert!(trace.sampled && trace.span == 0x00f0_67aa_0ba9_02b7);
        assert_eq!(trace.to_string(), good);
        // A later version may have more parts, and ours may not.
        assert!(Trace::parse(&format!("cc{}-more", &good[2..])).is_some());
        for bad in [
            format!("{good}-more"),
            format!("ff{}", &good[2..]),
            good.to_uppercase(),
            good.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            good.replace("00f067aa0ba902b7", &"0".repeat(16)),
            good[..good.len() - 1].to_owned(),
            String::new(),
        ] {
            assert_eq!(Trace::parse(&bad), None, "{bad}");
        }
    }
}
