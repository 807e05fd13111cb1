use std::{num::NonZeroU32, pin::pin, thread, time::Duration};

use governor::{Quota, RateLimiter};

use crate::poll;

const ONE: NonZeroU32 = NonZeroU32::MIN;

fn a_hundred_each_second() -> governor::DefaultDirectRateLimiter {
    let rate = NonZeroU32::new(100).expect("not zero");
    RateLimiter::direct(Quota::per_second(rate).allow_burst(ONE))
}

#[tokio::test(start_paused = true)]
async fn governor_waits_in_real_time() {
    let (real, tokio) = (std::time::Instant::now(), tokio::time::Instant::now());
    let limiter = a_hundred_each_second();
    for _ in 0..3 {
        limiter.until_ready().await;
    }
    assert!(real.elapsed() >= Duration::from_millis(20) && tokio.elapsed().is_zero());
}

#[tokio::test]
async fn governor_lets_a_newcomer_go_before_who_waits() {
    let limiter = a_hundred_each_second();
    limiter.check().expect("the first");
    let mut waits = pin!(limiter.until_ready());
    assert!(poll(waits.as_mut()).is_pending());
    thread::sleep(Duration::from_millis(15));
    limiter.check().expect("overtaken");
    assert!(poll(waits.as_mut()).is_pending());
}
