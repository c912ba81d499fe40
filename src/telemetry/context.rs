//! The header `traceparent` (W3C Trace Context): in which trace a request is, and whether that trace is recorded.
//!
//! One that breaks a rule is as none: whoever gets it begins a trace of its own.

use std::fmt;

/// How long `traceparent` is in the one version that there is, and the least that a later one has.
const LENGTH: usize = 55;

/// What `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never 0.
    pub trace_id: u128,
    /// The span of whoever sends it; never 0.
    pub span_id: u64,
    /// Whether the trace is recorded where it comes from.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads the header; `None` when it breaks a rule. Of a later version the part is read that this one has, too.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (known, more) = text.split_at_checked(LENGTH)?;
        let mut parts = known.split('-');
        let mut part = |digits: usize| parts.next().filter(|part| part.len() == digits && part.bytes().all(is_digit));
        let (version, trace_id, span_id, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let fits = match version {
            "00" => more.is_empty(),
            "ff" => false,
            _ => more.is_empty() || more.starts_with('-'),
        };
        let trace_id = u128::from_str_radix(trace_id, 16).ok().filter(|id| *id != 0)?;
        let span_id = u64::from_str_radix(span_id, 16).ok().filter(|id| *id != 0)?;
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        fits.then_some(Self { trace_id, span_id, sampled })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

/// Hexadecimal digits are in lower case.
fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_read_is_written_the_same() {
        let context = TraceContext::parse(GOOD).unwrap();
        assert!(context.sampled && context.span_id == 0x00f0_67aa_0ba9_02b7);
        assert_eq!(context.to_string(), GOOD);
        assert!(!TraceContext::parse(&GOOD.replace("-01", "-02")).unwrap().sampled);
        let later = format!("{}-what-comes-then", GOOD.replacen("00", "cc", 1));
        assert_eq!(TraceContext::parse(&later), Some(context));
    }

    #[test]
    fn one_that_breaks_a_rule_is_as_none() {
        let zero_trace = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let zero_span = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16));
        let later = format!("{}.x", GOOD.replacen("00", "01", 1));
        for bad in [
            "",
            "00",
            &GOOD[1..],
            &format!("{GOOD}-"),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.to_uppercase(),
            &GOOD.replace('-', "_"),
            &GOOD.replace("4b", "+b"),
            &zero_trace,
            &zero_span,
            &later,
            &format!("{}é", &GOOD[..54]),
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }
}
