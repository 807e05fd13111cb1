//! Backoff: the delays of a policy, without a clock.

use std::time::Duration;

use ringfence::{Jitter, Retry};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn delays(policy: Retry, count: u32) -> Vec<Duration> {
    policy
        .jitter(Jitter::None)
        .attempts(count + 1)
        .delays()
        .collect()
}

#[test]
fn a_constant_delay_stays() {
    assert_eq!(delays(Retry::constant(ms(70)), 3), [ms(70); 3]);
}

#[test]
fn a_linear_delay_grows_by_its_step() {
    let linear = Retry::linear(ms(100), ms(50));
    assert_eq!(delays(linear, 3), [ms(100), ms(150), ms(200)]);
}

#[test]
fn an_exponential_delay_grows_by_its_factor() {
    let exponential = Retry::exponential(ms(100));
    assert_eq!(delays(exponential, 3), [ms(100), ms(200), ms(400)]);
    let thrice = exponential.factor(3.0);
    assert_eq!(delays(thrice, 3), [ms(100), ms(300), ms(900)]);
    let flat = exponential.factor(1.0);
    assert_eq!(delays(flat, 3), [ms(100); 3]);
}

#[test]
fn a_delay_that_has_reached_the_cap_stays_there() {
    let all = delays(Retry::exponential(ms(100)).cap(ms(700)), 50);
    assert_eq!(all[..4], [ms(100), ms(200), ms(400), ms(700)]);
    assert_eq!(all[4..], [ms(700); 46]);
    let linear = delays(Retry::linear(ms(100), ms(400)).cap(ms(700)), 4);
    assert_eq!(linear, [ms(100), ms(500), ms(700), ms(700)]);
}

#[test]
fn slower_growth_is_a_factor() {
    let slow = delays(Retry::exponential(ms(1000)).factor(1.618).cap(ms(6000)), 7);
    assert!(slow.windows(2).all(|pair| pair[0] <= pair[1]), "{slow:?}");
    assert_eq!(slow[6], ms(6000));
}

#[test]
fn a_constant_delay_is_capped_by_a_cap_that_was_given() {
    assert_eq!(delays(Retry::constant(ms(30_000)), 3), [ms(30_000); 3]);
    let capped = Retry::constant(ms(30_000)).cap(ms(25_000));
    assert_eq!(delays(capped, 3), [ms(25_000); 3]);
    assert_eq!(delays(Retry::linear(ms(30_000), ms(1)), 3), [ms(20_000); 3]);
}

#[test]
fn a_base_above_the_cap_is_the_cap_from_the_first() {
    for policy in [
        Retry::constant(ms(100_000)),
        Retry::linear(ms(100_000), ms(1)),
        Retry::exponential(ms(100_000)),
    ] {
        assert_eq!(delays(policy.cap(ms(6000)), 3), [ms(6000); 3]);
    }
    let drawn = Retry::decorrelated(ms(100_000)).cap(ms(6000)).seed(1);
    assert_eq!(drawn.delays().next(), Some(ms(6000)));
}

#[test]
fn a_delay_that_would_overflow_saturates() {
    let policies = [
        Retry::constant(Duration::MAX),
        Retry::linear(ms(1), Duration::MAX),
        Retry::exponential(ms(1)),
        Retry::exponential(Duration::MAX).factor(f64::MAX),
    ];
    for policy in policies {
        let policy = policy.cap(Duration::MAX);
        assert_eq!(delays(policy, 10_000).last(), Some(&YEAR), "{policy:?}");
        for jitter in [Jitter::Full, Jitter::Equal, Jitter::Proportional(1.0)] {
            let spread = policy.jitter(jitter).attempts(200).seed(3);
            assert!(spread.delays().all(|delay| delay <= YEAR));
        }
    }
    let drawn = Retry::decorrelated(Duration::MAX)
        .cap(Duration::MAX)
        .attempts(100);
    assert!(drawn.delays().all(|delay| delay == YEAR));
}

#[test]
fn a_factor_that_is_no_whole_number_is_exact_to_a_microsecond() {
    let second = delays(Retry::exponential(ms(100)).factor(1.1), 2)[1];
    assert!(
        second.abs_diff(ms(110)) < Duration::from_micros(1),
        "{second:?}"
    );
}

#[test]
fn jitter_does_not_feed_the_next_step() {
    let policy = Retry::exponential(ms(100)).cap(ms(100_000)).attempts(9);
    let bare = delays(policy, 8);
    for seed in 0..100 {
        let spread = policy.jitter(Jitter::Equal).seed(seed);
        for (spread, bare) in spread.delays().zip(&bare) {
            assert!((*bare / 2..=*bare).contains(&spread));
        }
    }
}

#[test]
fn a_floor_holds_and_zero_stays_zero() {
    let policy = Retry::exponential(ms(1)).floor(ms(20)).cap(ms(30));
    assert_eq!(delays(policy, 6), [20, 20, 20, 20, 20, 30].map(ms));
    let least = Retry::constant(ms(500))
        .attempts(2_000)
        .seed(1)
        .delays()
        .min();
    assert!(least.is_some_and(|least| (ms(1)..ms(2)).contains(&least)));
    for jitter in [
        Jitter::None,
        Jitter::Full,
        Jitter::Equal,
        Jitter::Proportional(0.5),
    ] {
        let zero = Retry::constant(Duration::ZERO).jitter(jitter);
        assert!(zero.delays().all(|delay| delay.is_zero()), "{jitter:?}");
    }
    let zero = Retry::decorrelated(Duration::ZERO);
    assert!(zero.delays().all(|delay| delay.is_zero()));
}

#[test]
fn there_is_one_delay_less_than_attempts() {
    assert_eq!(Retry::DEFAULT.delays().count(), 2);
    assert_eq!(Retry::DEFAULT.attempts(1).delays().count(), 0);
    assert_eq!(
        Retry::DEFAULT.unlimited().delays().take(10_000).count(),
        10_000
    );
}
