//! Limits: rates, permits, keys, and those that adapt.

use std::time::Duration;

mod abuse;
mod concurrency;
mod rate;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
