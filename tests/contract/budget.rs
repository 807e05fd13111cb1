//! Retry budget: what retries may cost together.

use std::{future::Future, time::Duration};

use futures::poll;
use ringfence::{Deadline, Hedge, Jitter, Retry, RetryBudget, RetryError, RetryReason};
use tokio::time::{Instant, advance, sleep};

use crate::support::paused;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// As many attempts as the budget pays for.
const EAGER: Retry = Retry::constant(Duration::ZERO).attempts(1_000_000);

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("no")]
struct No;

fn bad() -> impl Future<Output = Result<(), No>> {
    std::future::ready(Err(No))
}

/// Retries until the budget refuses, and says how many it paid for.
async fn spend(budget: &RetryBudget) -> u32 {
    let ended = EAGER.retry(|_| bad()).budget(budget).await;
    let error = ended.expect_err("the budget has an end");
    assert_eq!(error.reason(), RetryReason::BudgetExhausted);
    error.attempts() - 1
}

async fn succeed(budget: &RetryBudget, times: u32) {
    for _ in 0..times {
        let good = EAGER.retry(|_| std::future::ready(Ok::<_, No>(())));
        assert!(good.budget(budget).await.is_ok());
    }
}

#[test]
fn a_fresh_budget_pays_for_its_capacity() {
    paused(async || {
        for capacity in [0, 1, 7, 100] {
            let budget = RetryBudget::new(0.1).capacity(capacity).reserve(0);
            assert_eq!(spend(&budget).await, capacity);
            assert_eq!((budget.available(), budget.refused()), (0.0, 1));
            assert_eq!((spend(&budget).await, budget.refused()), (0, 2));
        }
    });
}

#[test]
fn an_empty_budget_gives_up_at_once() {
    paused(async || {
        let budget = RetryBudget::new(0.1).capacity(0).reserve(0);
        let start = Instant::now();
        let error = Retry::DEFAULT
            .retry(|_| bad())
            .budget(&budget)
            .await
            .unwrap_err();
        assert_eq!(
            (error.reason(), error.attempts()),
            (RetryReason::BudgetExhausted, 1)
        );
        assert_eq!(
            (error.into_error(), start.elapsed()),
            (Some(No), Duration::ZERO)
        );
    });
}

#[test]
fn unless_given_a_budget_holds_a_hundred_and_gains_one_a_second() {
    paused(async || {
        let budget = RetryBudget::new(0.0);
        assert_eq!(spend(&budget).await, 100);
        advance(ms(3000)).await;
        assert_eq!(budget.available(), 3.0);
    });
}

#[test]
fn a_capacity_that_shrinks_leaves_nothing_below_zero() {
    paused(async || {
        let budget = RetryBudget::new(1.0).capacity(5).reserve(0);
        spend(&budget).await;
        let budget = budget.capacity(2);
        assert_eq!((budget.available(), spend(&budget).await), (0.0, 0));
        succeed(&budget, 4).await;
        assert_eq!(budget.available(), 1.0);
    });
}

#[test]
fn first_attempts_are_free() {
    paused(async || {
        let budget = RetryBudget::new(0.0).capacity(3).reserve(0);
        succeed(&budget, 100).await;
        assert_eq!(budget.available(), 3.0);
        spend(&budget).await;
        succeed(&budget, 100).await;
        assert_eq!(budget.available(), 0.0);
    });
}

#[test]
fn the_ratio_is_exact() {
    paused(async || {
        for (ratio, retries) in [
            (0.1, 100),
            (0.3, 300),
            (0.4, 400),
            (0.6, 600),
            (0.9, 900),
            (3.0, 3000),
        ] {
            let budget = RetryBudget::new(ratio).capacity(100_000).reserve(0);
            spend(&budget).await;
            succeed(&budget, 1_000).await;
            assert_eq!(spend(&budget).await, retries, "{ratio}");
        }
    });
}

#[test]
fn the_smallest_ratio_adds_up() {
    paused(async || {
        let budget = RetryBudget::new(1e-6).capacity(1).reserve(0);
        spend(&budget).await;
        succeed(&budget, 999_999).await;
        assert_eq!(spend(&budget).await, 0);
        succeed(&budget, 1).await;
        assert_eq!(spend(&budget).await, 1);
    });
}

#[test]
fn the_purse_is_right_under_threads() {
    let budget = RetryBudget::new(0.5).capacity(50).reserve(0);
    let retries = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|threads| {
        for thread in 0..8_u32 {
            let (budget, retries) = (&budget, &retries);
            threads.spawn(move || {
                paused(async || {
                    for round in 0..100_000 / 8 {
                        let available = budget.available();
                        assert!((0.0..=50.0).contains(&available), "{available}");
                        let good = (round + thread) % 3 > 0;
                        let run = Retry::constant(Duration::ZERO);
                        let run =
                            run.retry(|_| std::future::ready(if good { Ok(()) } else { Err(No) }));
                        if let Err(error) = run.budget(budget).await {
                            let paid = u64::from(error.attempts()) - 1;
                            retries.fetch_add(paid, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                });
            });
        }
    });
    let successes: u64 = (0..8)
        .map(|thread| (0..12_500).filter(|round| (round + thread) % 3 > 0).count() as u64)
        .sum();
    let retries = retries.into_inner();
    assert!(
        retries <= 50 + successes / 2,
        "{retries} retries for {successes} successes"
    );
    assert!(
        retries > successes / 4,
        "{retries} retries for {successes} successes"
    );
}

#[test]
fn a_pause_that_is_cut_short_gives_the_token_back() {
    paused(async || {
        let budget = RetryBudget::new(0.0).capacity(5).reserve(0);
        {
            let mut run = std::pin::pin!(
                Retry::DEFAULT
                    .retry(|_| bad())
                    .budget(&budget)
                    .into_future()
            );
            assert!(poll!(run.as_mut()).is_pending());
            assert_eq!(budget.available(), 4.0);
        }
        assert_eq!(budget.available(), 5.0);
        let mut tries = Retry::DEFAULT.tries().budget(&budget);
        {
            let mut failed = std::pin::pin!(tries.failed(No, |_| true));
            assert!(poll!(failed.as_mut()).is_pending());
        }
        assert_eq!(budget.available(), 4.0, "the run goes on");
        drop(tries);
        assert_eq!(budget.available(), 5.0);
        let at = Deadline::after(ms(150));
        let long = Retry::constant(ms(100)).jitter(Jitter::None);
        let run = long.retry(|_| bad()).deadline(at).budget(&budget);
        let (ended, ()) = tokio::join!(run.into_future(), async {
            sleep(ms(50)).await;
            advance(ms(500)).await;
        });
        let error: RetryError<No> = ended.unwrap_err();
        assert_eq!(
            (error.reason(), error.attempts()),
            (RetryReason::Deadline, 1)
        );
        assert_eq!(budget.available(), 5.0);
    });
}

#[test]
fn a_refund_returns_what_was_taken() {
    paused(async || {
        for (refund, left) in [(true, 9.0), (false, 8.0)] {
            let budget = RetryBudget::new(0.0).capacity(10).reserve(0);
            let budget = if refund { budget.refund() } else { budget };
            let mut calls = 0;
            let run = EAGER.retry(|_| {
                calls += 1;
                std::future::ready(if calls < 3 { Err(No) } else { Ok(()) })
            });
            assert!(run.budget(&budget).await.is_ok());
            assert_eq!(budget.available(), left, "the one in vain, and the other");
            succeed(&budget, 5).await;
            assert_eq!(budget.available(), left);
        }
    });
}

#[test]
fn a_reserve_trickles_in() {
    paused(async || {
        let budget = RetryBudget::new(0.0).capacity(25).reserve(2);
        assert_eq!(spend(&budget).await, 25);
        advance(ms(499)).await;
        assert_eq!(spend(&budget).await, 0);
        advance(ms(1)).await;
        assert_eq!(spend(&budget).await, 1);
        advance(ms(10_000)).await;
        assert_eq!(spend(&budget).await, 20);
        advance(ms(100_000)).await;
        assert_eq!(budget.available(), 25.0);
        assert_eq!(spend(&budget).await, 25);
    });
}

#[test]
fn a_long_idle_time_is_one_step() {
    paused(async || {
        let budget = RetryBudget::new(0.0).capacity(u32::MAX).reserve(u32::MAX);
        assert!(budget.available() > 0.0);
        for _ in 0..100 {
            advance(Duration::from_secs(86_400)).await;
            assert_eq!(budget.available(), f64::from(u32::MAX));
        }
    });
}

#[test]
fn a_budget_bounds_the_sum_of_its_users() {
    paused(async || {
        let shared = RetryBudget::new(0.0).capacity(10).reserve(0);
        let own = RetryBudget::new(0.0).capacity(10).reserve(0);
        let run = Retry::constant(ms(10))
            .attempts(7)
            .retry(|_| bad())
            .budget(&shared)
            .await;
        assert_eq!(run.unwrap_err().attempts(), 7);
        assert_eq!(spend(&shared).await, 4);
        assert_eq!(spend(&own).await, 10);
    });
}

#[test]
fn a_permanent_error_costs_nothing() {
    paused(async || {
        let budget = RetryBudget::new(0.5).capacity(10).reserve(0);
        for left in [10.0, 9.0] {
            let run = EAGER.retry(|_| bad()).when(|_| false).budget(&budget).await;
            assert_eq!(run.unwrap_err().reason(), RetryReason::Permanent);
            assert_eq!(budget.available(), left);
            let paid = EAGER.attempts(2).retry(|_| bad()).budget(&budget).await;
            assert_eq!(paid.unwrap_err().attempts(), 2);
        }
    });
}

#[test]
fn a_total_outage_is_not_amplified() {
    paused(async || {
        let budget = RetryBudget::new(0.1).capacity(50).reserve(10);
        let start = Instant::now();
        let sent = std::cell::Cell::new(0_u32);
        let caller = async |caller: u64| {
            for _ in 0..10 {
                let policy = Retry::constant(ms(100)).attempts(4).seed(caller);
                let run = policy.retry(|_| {
                    sent.set(sent.get() + 1);
                    bad()
                });
                assert!(run.budget(&budget).await.is_err());
                sleep(ms(100)).await;
            }
        };
        futures::future::join_all((0..1_000).map(caller)).await;
        let bound = 10_000 + 50 + 10 * start.elapsed().as_secs_f64() as u32 + 1;
        assert!(sent.get() <= bound, "{} of {bound}", sent.get());
        assert!(sent.get() >= 10_050, "{}", sent.get());
        assert!(budget.refused() > 0);
    });
}

#[test]
fn a_ratio_that_makes_no_sense_is_refused() {
    for ratio in [f64::NAN, f64::INFINITY, -0.1, 1000.1, 1e-7] {
        let refused = std::panic::catch_unwind(|| RetryBudget::new(ratio)).unwrap_err();
        assert_eq!(
            crate::support::message(&*refused),
            "ringfence: the ratio of a retry budget is from 0 to 1000, in steps of a millionth"
        );
    }
    assert_eq!(
        RetryBudget::new(0.0).available(),
        100.0,
        "what it holds is still there"
    );
}

#[test]
fn a_call_is_credited_once_however_runs_nest() {
    paused(async || {
        let budget = RetryBudget::new(0.5).capacity(100).reserve(0);
        let other = RetryBudget::new(0.5).capacity(100).reserve(0);
        let good = async |_| {
            sleep(ms(1)).await;
            Ok::<_, No>(())
        };
        let hedge = Hedge::after(ms(500));
        let hedged = |_| async {
            let run = hedge.run(good).budget(&budget);
            run.await.map_err(|error| error.into_error().unwrap())
        };
        let retried = |_| async {
            let run = EAGER.retry(good).budget(&budget);
            run.await.map_err(|error| error.into_error().unwrap())
        };
        let between = |_| async {
            let run = EAGER.retry(retried).budget(&other);
            run.await.map_err(|error| error.into_error().unwrap())
        };
        spend(&budget).await;
        spend(&other).await;
        assert!(EAGER.retry(hedged).budget(&budget).await.is_ok());
        assert_eq!(budget.available(), 0.5, "a hedge in a retry");
        assert!(hedge.run(retried).budget(&budget).await.is_ok());
        assert_eq!(budget.available(), 1.0, "a retry in a hedge");
        assert!(EAGER.retry(between).budget(&budget).await.is_ok());
        assert_eq!((budget.available(), other.available()), (1.5, 0.5));
        // Whoever does not take the value of the run inside has had no success.
        let run = EAGER.attempts(1).retry(hedged).until(|()| false);
        assert!(run.budget(&budget).await.is_err());
        assert_eq!(budget.available(), 1.5);
        // Side by side they know nothing of one another.
        let both = tokio::join!(
            EAGER.retry(hedged).into_future(),
            EAGER.retry(retried).into_future()
        );
        assert!(matches!(both, (Ok(()), Ok(()))));
        assert_eq!(budget.available(), 2.5);
    });
}
