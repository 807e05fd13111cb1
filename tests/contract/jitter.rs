//! Jitter: how delays are spread. Every sample is seeded, so every assertion is exact.

use std::time::Duration;

use ringfence::{Jitter, Retry};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const DRAWS: u32 = 100_000;

/// `DRAWS` draws of one delay.
fn sample(jitter: Jitter, delay: Duration, cap: Duration) -> Vec<Duration> {
    Retry::constant(delay)
        .cap(cap)
        .jitter(jitter)
        .seed(7)
        .attempts(DRAWS + 1)
        .delays()
        .collect()
}

fn mean(sample: &[Duration]) -> f64 {
    sample.iter().map(Duration::as_secs_f64).sum::<f64>() / sample.len() as f64
}

const KINDS: [Jitter; 6] = [
    Jitter::None,
    Jitter::Full,
    Jitter::Equal,
    Jitter::Proportional(0.0),
    Jitter::Proportional(0.25),
    Jitter::Proportional(1.0),
];

#[test]
fn no_draw_leaves_floor_and_cap() {
    let (floor, cap) = (ms(10), ms(1000));
    let inside = |policy: Retry| {
        for seed in 0..u64::from(DRAWS) {
            for delay in policy.seed(seed).delays() {
                assert!(
                    (floor..=cap).contains(&delay),
                    "{delay:?}, seed {seed}: {policy:?}"
                );
            }
        }
    };
    for jitter in KINDS {
        inside(
            Retry::exponential(ms(3))
                .factor(9.0)
                .floor(floor)
                .cap(cap)
                .jitter(jitter)
                .attempts(6),
        );
    }
    inside(
        Retry::constant(ms(5000))
            .floor(floor)
            .cap(cap)
            .jitter(Jitter::Proportional(0.5)),
    );
    inside(Retry::linear(ms(1), ms(700)).floor(floor).cap(cap));
    inside(Retry::decorrelated(ms(3)).floor(floor).cap(cap).attempts(8));
}

#[test]
fn full_jitter_is_uniform_from_zero() {
    let sample = sample(Jitter::Full, ms(1000), ms(5000));
    assert!((mean(&sample) - 0.5).abs() < 0.005, "{}", mean(&sample));
    assert!(sample.iter().min() < Some(&ms(10)) && sample.iter().max() > Some(&ms(990)));
    // Each tenth has its share.
    for tenth in 0..10 {
        let range = ms(tenth * 100)..ms(tenth * 100 + 100);
        let share = sample.iter().filter(|delay| range.contains(delay)).count();
        assert!((9_700..=10_300).contains(&share), "{range:?}: {share}");
    }
}

#[test]
fn equal_jitter_is_uniform_from_half() {
    let sample = sample(Jitter::Equal, ms(1000), ms(5000));
    assert!(
        sample
            .iter()
            .all(|delay| (ms(500)..=ms(1000)).contains(delay))
    );
    assert!((mean(&sample) - 0.75).abs() < 0.0075, "{}", mean(&sample));
}

#[test]
fn proportional_jitter_stays_within_its_share() {
    let free = sample(Jitter::Proportional(0.25), ms(1000), ms(5000));
    assert!(
        free.iter()
            .all(|delay| (ms(750)..=ms(1250)).contains(delay))
    );
    assert!((mean(&free) - 1.0).abs() < 0.01);
    let cut = sample(Jitter::Proportional(0.25), ms(1000), ms(1100));
    assert!(cut.iter().all(|delay| (ms(750)..=ms(1100)).contains(delay)));
}

#[test]
fn a_decorrelated_delay_follows_the_one_before() {
    let (base, cap) = (ms(100), ms(10_000));
    for seed in 0..2_000 {
        let mut before = base;
        for delay in Retry::decorrelated(base)
            .cap(cap)
            .seed(seed)
            .attempts(30)
            .delays()
        {
            let high = (before * 3).min(cap);
            assert!((base..=high).contains(&delay), "{delay:?} after {before:?}");
            before = delay;
        }
    }
}

#[test]
fn a_cap_of_many_days_holds_to_the_nanosecond() {
    // More than a double can tell apart.
    let cap = Duration::from_nanos((1 << 53) + 3);
    for seed in 0..50 {
        let policy = Retry::decorrelated(cap).cap(cap).seed(seed);
        assert!(policy.delays().all(|delay| delay == cap));
    }
}

#[test]
fn at_the_cap_delays_are_still_spread() {
    let cap = ms(1000);
    for jitter in [Jitter::Full, Jitter::Equal, Jitter::Proportional(0.5)] {
        let policy = Retry::exponential(ms(1000)).cap(cap).jitter(jitter);
        let at_cap = policy
            .seed(5)
            .attempts(DRAWS + 1)
            .delays()
            .filter(|delay| *delay == cap);
        assert!(at_cap.count() < 1_000, "{jitter:?}");
    }
    let drawn = Retry::decorrelated(ms(100))
        .cap(cap)
        .seed(5)
        .attempts(DRAWS + 1);
    assert!(drawn.delays().filter(|delay| *delay == cap).count() < 1_000);
}

#[test]
fn a_seed_gives_the_same_delays_for_ever() {
    let full = Retry::exponential(ms(100)).attempts(7);
    let frozen = |policy: Retry, seed| -> Vec<u128> {
        policy
            .seed(seed)
            .delays()
            .map(|delay| delay.as_nanos())
            .collect()
    };
    assert_eq!(frozen(full, 0), FULL_0);
    assert_eq!(frozen(full, 7), FULL_7);
    assert_eq!(frozen(full.jitter(Jitter::Equal), 7), EQUAL_7);
    assert_eq!(
        frozen(full.jitter(Jitter::Proportional(0.25)), 7),
        PROPORTIONAL_7
    );
    assert_eq!(
        frozen(Retry::decorrelated(ms(100)).attempts(7), 7),
        DECORRELATED_7
    );
}

const FULL_0: [u128; 6] = [
    88447770, 86874071, 11547074, 776734701, 171048359, 1048115120,
];
const FULL_7: [u128; 6] = [
    39593145, 4340870, 360403512, 466761304, 724454590, 798931440,
];
const EQUAL_7: [u128; 6] = [
    69491487, 101678829, 380152137, 633172117, 1161953516, 1999090435,
];
const PROPORTIONAL_7: [u128; 6] = [
    94491487, 151678829, 480152137, 833172117, 1561953516, 2799090435,
];
const DECORRELATED_7: [u128; 6] = [
    177965950, 107284404, 299836651, 566058571, 823081648, 690964373,
];

#[test]
fn two_runs_without_a_seed_differ() {
    let runs: std::collections::HashSet<Vec<Duration>> = (0..100)
        .map(|_| Retry::DEFAULT.delays().collect())
        .collect();
    assert_eq!(runs.len(), 100);
}
