//! What an object store costs: the published prices of Amazon S3 Standard in us-east-1, in dollars, without transfer.
//!
//! An estimate for people; other stores and regions differ, and nothing is decided by it.

/// 1,000 requests that write or list: PUT, COPY, POST, LIST.
const PER_1000_PUTS: f64 = 0.005;
/// 1,000 requests that read: GET, HEAD.
const PER_1000_GETS: f64 = 0.0004;
/// One GiB kept for a month, in the first tier (up to 50 TB).
const PER_GIB_MONTH: f64 = 0.023;

/// The price of requests.
pub(super) fn requests(puts: f64, gets: f64) -> f64 {
    puts / 1000.0 * PER_1000_PUTS + gets / 1000.0 * PER_1000_GETS
}

/// The price of keeping so many bytes for a month.
pub(super) fn month(bytes: f64) -> f64 {
    bytes / f64::from(1_u32 << 30) * PER_GIB_MONTH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_those_of_the_table() {
        assert!((requests(2000.0, 10_000.0) - 0.014).abs() < 1e-9);
        assert!((month(f64::from(1_u32 << 31)) - 0.046).abs() < 1e-9);
    }
}
