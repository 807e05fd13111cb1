use std::time::Duration;

use backon::{BackoffBuilder, ConstantBuilder, ExponentialBuilder, Retryable};
use tokio::time::Instant;
use tower::retry::{
    backoff::{Backoff, ExponentialBackoffMaker, MakeBackoff},
    budget::{Budget, TpsBudget},
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn backon_exceeds_its_longest_delay_by_the_jitter() {
    let delays = ExponentialBuilder::default()
        .with_jitter()
        .with_max_delay(SECOND)
        .with_max_times(10_000)
        .build();
    let longest = delays.max().expect("some");
    assert!(longest > Duration::from_millis(1_900), "{longest:?}");

    let ours = ringfence::Retry::exponential(SECOND)
        .cap(SECOND)
        .attempts(10_000);
    assert!(ours.seed(7).delays().max() <= Some(SECOND));
}

/// Each pause is rounded up to the next millisecond of the clock.
#[tokio::test]
async fn backon_waits_for_a_timer_where_the_delay_is_zero() {
    let begin = Instant::now();
    let policy = ConstantBuilder::default()
        .with_delay(Duration::ZERO)
        .with_max_times(10);
    let ended: Result<(), ()> = (|| async { Err(()) }).retry(policy).await;
    assert!(ended.is_err());
    let elapsed = begin.elapsed();
    assert!(elapsed >= Duration::from_millis(5), "{elapsed:?}");
}

#[test]
fn tokio_retry2_draws_its_jitter_range_once() {
    let jitter = tokio_retry2::strategy::jitter_range(1_u32..1_000_000);
    let first = jitter(SECOND);
    assert!((0..100).all(|_| jitter(SECOND) == first));
}

#[tokio::test(start_paused = true)]
async fn tower_gives_all_from_one_maker_the_same_delays() {
    let mut maker = ExponentialBackoffMaker::new(
        Duration::from_millis(100),
        SECOND,
        0.9,
        tower::util::rng::HasherRng::default(),
    )
    .expect("a policy");
    let (mut one, mut other) = (maker.make_backoff(), maker.make_backoff());
    for _ in 0..5 {
        assert_eq!(
            one.next_backoff().deadline(),
            other.next_backoff().deadline()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn tower_rounds_the_ratio_of_its_budget() {
    for (said, does) in [(0.4, 500), (0.5, 500), (0.6, 1_000), (0.9, 1_000)] {
        let budget = TpsBudget::new(Duration::from_secs(10), 0, said);
        (0..1_000).for_each(|_| budget.deposit());
        let retries = (0..2_000).filter(|_| budget.withdraw()).count();
        assert_eq!(retries, does, "{said}");
    }
}
