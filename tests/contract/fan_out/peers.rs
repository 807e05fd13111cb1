//! What goes wrong elsewhere.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ringfence::{Limiter, fan_out, timeout};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::{Gauge, good, ms};
use crate::support::{Log, every_runtime, paused};

#[test]
fn a_slow_taker_slows_no_item_down() {
    // `buffer_unordered` polls its futures only while it is polled itself: here they would take up to 320 ms each.
    paused(async || {
        let log = Log::new();
        let inner = log.clone();
        let mut results = fan_out(0..8).limit(4).results_unordered(move |n| {
            let log = inner.clone();
            async move {
                let start = Instant::now();
                sleep(ms(20)).await;
                log.push(start.elapsed());
                good(n)
            }
        });
        while let Some(result) = results.next().await {
            result.unwrap();
            sleep(ms(100)).await;
        }
        assert_eq!(log.entries(), [ms(20); 8]);
    });
}

#[test]
fn a_semaphore_shared_by_items_and_taker_does_not_deadlock() {
    // Futures that are polled only while the taker waits for one would keep the permit while it waits for the permit.
    every_runtime(async || {
        let semaphore = Arc::new(Semaphore::new(1));
        let shared = semaphore.clone();
        let mut results = fan_out(0..50).limit(4).results_unordered(move |n| {
            let semaphore = shared.clone();
            async move {
                let _permit = semaphore.acquire().await.unwrap();
                tokio::task::yield_now().await;
                good(n)
            }
        });
        let mut n = 0;
        while let Some(result) = results.next().await {
            result.unwrap();
            let _permit = semaphore.acquire().await.unwrap();
            n += 1;
        }
        assert_eq!(n, 50);
    });
}

#[test]
fn all_first_items_are_started_before_a_result_is_handed_out() {
    every_runtime(async || {
        let log = Log::new();
        let inner = log.clone();
        // Ready at once: a set of futures that returns at the first ready one would leave the others unstarted.
        let first = fan_out(0..4).limit(4).local().first_success(move |n| {
            inner.push(n);
            async move {
                if n == 3 {
                    return good(n);
                }
                tokio::task::yield_now().await;
                std::future::pending().await
            }
        });
        assert_eq!(first.await.unwrap(), Some(3));
        assert_eq!(log.entries(), [0, 1, 2, 3]);
    });
}

#[test]
fn fan_outs_inside_fan_outs_with_a_limit_of_one_do_not_deadlock() {
    every_runtime(async || {
        let outer = fan_out(0..3).limit(1).collect(async |a: usize| {
            let inner = fan_out(0..3)
                .limit(1)
                .collect(move |b: usize| async move { good(a * 3 + b) });
            inner.await.map(|all| all.iter().sum::<usize>())
        });
        assert_eq!(outer.await.unwrap(), [3, 12, 21]);
        let outer = fan_out(0..3).limit(1).local().collect(async |a: usize| {
            let inner = fan_out(0..3)
                .limit(1)
                .local()
                .collect(async |b: usize| good(a * 3 + b));
            inner.await.map(|all| all.iter().sum::<usize>())
        });
        assert_eq!(outer.await.unwrap(), [3, 12, 21]);
    });
}

/// Fan-outs inside one another, all of one limiter; says how many of the innermost items ran.
fn nested(limiter: &Limiter, depth: usize, gauge: &Gauge) -> super::Boxed<usize> {
    let (limiter, gauge) = (limiter.clone(), gauge.clone());
    Box::pin(async move {
        if depth == 0 {
            let _in = gauge.enter();
            tokio::task::yield_now().await;
            return 1;
        }
        let (inner, is_local) = (limiter.clone(), depth == 1);
        let work = move |_| {
            let (limiter, gauge) = (inner.clone(), gauge.clone());
            async move { good(nested(&limiter, depth - 1, &gauge).await) }
        };
        let fan = fan_out(0..3).limit(3).limiter(&limiter);
        let all = if is_local {
            fan.local().collect(work).await
        } else {
            fan.collect(work).await
        };
        all.expect("no item fails").into_iter().sum()
    })
}

#[test]
fn fan_outs_inside_fan_outs_that_share_a_limiter_do_not_deadlock() {
    every_runtime(async || {
        for limit in [1, 2, 5] {
            let (limiter, gauge) = (Limiter::new(limit), Gauge::default());
            assert_eq!(nested(&limiter, 3, &gauge).await, 27);
            assert_eq!((limiter.in_flight(), limiter.waiting()), (0, 0));
            assert!(gauge.peak() <= limit, "{} at once", gauge.peak());
        }
    });
}

#[test]
fn who_has_a_permit_lends_it_to_one_at_a_time() {
    paused(async || {
        let (limiter, log, start) = (Limiter::new(1), Log::new(), Instant::now());
        let (shared, inner) = (limiter.clone(), log.clone());
        let fan = fan_out(0..2).limit(2).limiter(&limiter);
        let outer = fan.for_each(move |outer: u64| {
            let (limiter, log) = (shared.clone(), inner.clone());
            async move {
                // In a child of a scope of its own, and heavier than what is lent.
                let in_a_child = ringfence::scope(async |group: &ringfence::TaskGroup| {
                    group.spawn(async move {
                        let fan = fan_out(0..2).limit(2).weighted(&limiter, |_| 3);
                        let each = fan.for_each(move |n| {
                            log.push((outer, n, start.elapsed()));
                            sleep(ms(10))
                        });
                        each.await.unwrap();
                    });
                    Ok(())
                });
                in_a_child.await.unwrap();
            }
        });
        outer.await.unwrap();
        let expected = [
            (0, 0, ms(0)),
            (0, 1, ms(10)),
            (1, 0, ms(20)),
            (1, 1, ms(30)),
        ];
        assert_eq!(log.entries(), expected);
        assert_eq!((limiter.in_flight(), limiter.waiting()), (0, 0));
    });
}

#[test]
fn who_weighs_nothing_lends_nothing_and_borrows_nothing() {
    paused(async || {
        for is_local in [false, true] {
            let (limiter, gauge) = (Limiter::new(1), Gauge::default());
            let (shared, inner) = (limiter.clone(), gauge.clone());
            let outer = fan_out(0..2).weighted(&limiter, |_| 0);
            // Two that have no permit, and four inside them that need the only one.
            let work = move |_| {
                let (limiter, gauge) = (shared.clone(), inner.clone());
                async move {
                    let each = fan_out(0..2).limiter(&limiter).for_each(move |_| {
                        let gauge = gauge.clone();
                        async move {
                            let _in = gauge.enter();
                            sleep(ms(10)).await;
                        }
                    });
                    each.await.unwrap();
                }
            };
            if is_local {
                outer.local().for_each(work).await.unwrap();
            } else {
                outer.for_each(work).await.unwrap();
            }
            assert_eq!((gauge.drops.made(), gauge.peak()), (4, 1));
            // One that has it, and two inside: the first weighs nothing, and leaves what is lent to the second.
            let (log, start) = (Log::new(), Instant::now());
            let (shared, inner) = (limiter.clone(), log.clone());
            let outer = fan_out(0..1).limiter(&limiter);
            let work = move |_| {
                let (limiter, log) = (shared.clone(), inner.clone());
                async move {
                    let fan = fan_out([0, 1]).weighted(&limiter, |n| *n);
                    let each = fan.for_each(move |n| {
                        log.push((n, start.elapsed()));
                        sleep(ms(10))
                    });
                    each.await.unwrap();
                }
            };
            if is_local {
                outer.local().for_each(work).await.unwrap();
            } else {
                outer.for_each(work).await.unwrap();
            }
            assert_eq!(log.entries(), [(0, ms(0)), (1, ms(0))]);
        }
    });
}

#[test]
fn who_waits_for_what_is_lent_no_longer_keeps_nobody_from_it() {
    paused(async || {
        for is_local in [false, true] {
            let (limiter, log, start) = (Limiter::new(2), Log::new(), Instant::now());
            let held = limiter.acquire().await.unwrap();
            let (shared, inner) = (limiter.clone(), log.clone());
            let outer = fan_out(0..1).limiter(&limiter).for_each(move |_| {
                let (limiter, log) = (shared.clone(), inner.clone());
                async move {
                    // The first borrows, the second gets a permit of its own, the third has what the first gives back.
                    let fan = fan_out([20, 100, 1]).limiter(&limiter);
                    let work = |takes| {
                        log.push(start.elapsed());
                        sleep(ms(takes))
                    };
                    if is_local {
                        fan.local().for_each(work).await.unwrap();
                    } else {
                        let log = log.clone();
                        let work = move |takes| {
                            log.push(start.elapsed());
                            sleep(ms(takes))
                        };
                        fan.for_each(work).await.unwrap();
                    }
                }
            });
            let free = async {
                sleep(ms(5)).await;
                drop(held);
            };
            tokio::join!(outer, free).0.unwrap();
            assert_eq!(log.entries(), [ms(0), ms(5), ms(20)]);
            assert_eq!((limiter.in_flight(), limiter.waiting()), (0, 0));
            // One that is given up while one of it borrows, and one of it waits for that.
            let limiter = Limiter::new(1);
            let shared = limiter.clone();
            let outer = fan_out(0..1).limiter(&limiter).for_each(move |_| {
                let limiter = shared.clone();
                async move {
                    for is_last in [false, true] {
                        let takes = if is_last { 1 } else { 1_000 };
                        let fan = fan_out(0..2).limiter(&limiter);
                        let work = move |_| sleep(ms(takes));
                        let ended = if is_local {
                            timeout(ms(10), fan.local().for_each(work)).await
                        } else {
                            timeout(ms(10), fan.for_each(work)).await
                        };
                        assert_eq!(ended.is_ok(), is_last);
                    }
                }
            });
            outer.await.unwrap();
            assert_eq!((limiter.in_flight(), limiter.waiting()), (0, 0));
        }
    });
}

/// As `nested`, where `local` says for each level whether it is local, and others of the task go on beside each level.
fn mixed<'a>(
    limiter: &'a Limiter,
    local: &'static [bool],
    gauge: &'a Gauge,
) -> Pin<Box<dyn Future<Output = usize> + Send + 'a>> {
    let Some((is_local, rest)) = local.split_first() else {
        return Box::pin(async {
            let _in = gauge.enter();
            sleep(ms(1)).await;
            1
        });
    };
    let fan = fan_out(0..3).limiter(limiter);
    if !*is_local {
        let (limiter, gauge) = (limiter.clone(), gauge.clone());
        let each = fan.fold(
            0,
            move |_| {
                let (limiter, gauge) = (limiter.clone(), gauge.clone());
                async move { good(mixed(&limiter, rest, &gauge).await) }
            },
            |sum, n| sum + n,
        );
        return Box::pin(async { each.await.expect("no item fails") });
    }
    let each = fan.local().fold(
        0,
        async |_| {
            let child = ringfence::borrow_scope(async |group| {
                let inner = group.spawn(async { good(mixed(limiter, rest, gauge).await) });
                Ok(inner.await)
            });
            good(child.await.expect("nobody fails"))
        },
        |sum, n| sum + n,
    );
    Box::pin(async { each.await.expect("no item fails") })
}

#[test]
fn an_item_of_a_local_fan_out_lends_within_its_task() {
    paused(async || {
        for local in [
            [true, true, true],
            [true, false, true],
            [true, true, false],
            [false, true, true],
            [true, false, false],
        ] {
            for limit in [1, 2, 5] {
                let (limiter, gauge) = (Limiter::new(limit), Gauge::default());
                let local = &*Box::leak(Box::new(local));
                let all = timeout(ms(1_000), mixed(&limiter, local, &gauge)).await;
                assert_eq!(all.ok(), Some(27), "{local:?}, {limit}");
                assert_eq!((limiter.in_flight(), limiter.waiting()), (0, 0));
                assert!(gauge.peak() <= limit, "{} at once", gauge.peak());
            }
        }
        // It lends while it is polled, and to nobody else.
        let limiter = Limiter::new(2);
        let other = async {
            sleep(ms(5)).await;
            let work = async |_| sleep(ms(1)).await;
            timeout(
                ms(5),
                fan_out(0..1).limiter(&limiter).local().for_each(work),
            )
            .await
        };
        let items = fan_out(0..2).limiter(&limiter).local();
        let (all, other) = tokio::join!(items.for_each(|_| sleep(ms(20))), other);
        assert!(all.is_ok() && other.is_err());
    });
}

#[test]
fn an_item_that_needs_the_shared_limiter_again_is_told_by_a_timeout_and_not_lost() {
    // It holds the only permit and asks for another: no library can grant that; but the wait can be bounded, and everything
    // comes back.
    paused(async || {
        let limiter = Limiter::new(1);
        let again = limiter.clone();
        let fan = fan_out(0..2).limit(2).limiter(&limiter);
        let outcomes = fan.outcomes(move |_| {
            let again = again.clone();
            async move {
                timeout(Duration::from_millis(10), again.acquire())
                    .await
                    .map(drop)
            }
        });
        assert!(outcomes.await.unwrap().iter().all(Result::is_err));
        assert_eq!((limiter.in_flight(), limiter.waiting()), (0, 0));
    });
}

#[test]
fn an_ordered_fan_out_fails_as_fast_as_any() {
    // An ordered set of futures would wait for the first item before it sees the error of the second.
    paused(async || {
        let start = Instant::now();
        let work = async |n: u64| {
            sleep(ms(n)).await;
            if n == 5 { super::bad("soon") } else { good(n) }
        };
        fan_out([1_000, 5])
            .limit(2)
            .collect(work)
            .await
            .unwrap_err();
        assert_eq!(start.elapsed(), ms(5));
    });
}
