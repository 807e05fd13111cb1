//! Rates, weights, keys, shared limits, progress.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ringfence::{Limiter, Progress, Rate, RateLimiter, Scope, TaskGroup, fan_out};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use super::{Fail, Gauge, bad, good, ms};
use crate::support::{Count, Log, caught, every_runtime, paused, spawn, until};

/// Notes when it ran, on the paused clock.
fn noting(log: &Log<(usize, u128)>, takes: u64) -> impl Fn(usize) -> super::Boxed<()> + use<> {
    let (log, start) = (log.clone(), Instant::now());
    move |n| {
        let log = log.clone();
        Box::pin(async move {
            log.push((n, start.elapsed().as_millis()));
            sleep(ms(takes)).await;
        })
    }
}

#[test]
fn a_rate_spreads_the_starts() {
    paused(async || {
        for is_local in [false, true] {
            let (log, rate) = (Log::new(), RateLimiter::new(Rate::per_second(10).burst(2)));
            let fan = fan_out(0..5).limit(8).rate(&rate);
            let work = noting(&log, 1);
            if is_local {
                fan.local().for_each(work).await.unwrap();
            } else {
                fan.for_each(work).await.unwrap();
            }
            assert_eq!(
                log.entries(),
                [(0, 0), (1, 0), (2, 100), (3, 200), (4, 300)]
            );
        }
    });
}

#[test]
fn who_waits_for_the_rate_holds_no_permit() {
    paused(async || {
        let (rate, limiter) = (RateLimiter::new(Rate::per_second(10)), Limiter::new(1));
        let fan = fan_out(0..4).limit(4).rate(&rate).limiter(&limiter);
        let task = spawn(fan.for_each(async |_| {}));
        sleep(ms(150)).await;
        assert_eq!((limiter.in_flight(), rate.waiting()), (0, 1));
        task.await.unwrap().unwrap();
    });
}

#[test]
fn a_weighty_item_takes_several_permits_and_the_heaviest_runs_alone() {
    every_runtime(async || {
        let limiter = Limiter::new(10);
        let (now, gauge) = (Arc::new(Mutex::new(BTreeMap::new())), Gauge::default());
        let (inner, running) = (gauge.clone(), now.clone());
        let work = move |(n, weight): (usize, u32)| {
            let (gauge, running) = (inner.clone(), running.clone());
            async move {
                let _in = gauge.enter();
                {
                    let mut running = running.lock().unwrap();
                    running.insert(n, weight);
                    let sum: u32 = running.values().sum();
                    assert!(sum <= 10 || running.len() == 1, "{running:?}");
                }
                if n < 2 {
                    // Both have permits; whoever is polled first waits for the other.
                    until(|| gauge.peak() > 1).await;
                }
                yield_now().await;
                yield_now().await;
                running.lock().unwrap().remove(&n);
            }
        };
        let items = (0..200).map(|n| (n, [1, 3, 7, 25, 2, 10][n % 6]));
        let fan = fan_out(items).limit(64).weighted(&limiter, |item| item.1);
        fan.for_each(work).await.unwrap();
        assert_eq!((gauge.drops.made(), limiter.in_flight()), (200, 0));
        assert!(gauge.peak() > 1);
    });
}

#[test]
fn items_of_one_key_run_one_after_another_in_order() {
    every_runtime(async || {
        for is_local in [false, true] {
            let log = Log::new();
            let (inner, busy) = (
                log.clone(),
                Arc::new(Mutex::new(BTreeMap::<usize, u8>::new())),
            );
            let work = move |n: usize| {
                let (log, busy) = (inner.clone(), busy.clone());
                async move {
                    let key = n % 5;
                    let before = busy.lock().unwrap().insert(key, 1);
                    assert_eq!(before.unwrap_or(0), 0, "two of key {key}");
                    log.push(n);
                    for _ in 0..(n * 7) % 4 {
                        yield_now().await;
                    }
                    busy.lock().unwrap().insert(key, 0);
                    good(n)
                }
            };
            let fan = fan_out(0..300_usize).limit(8).key(|n| n % 5);
            let all = if is_local {
                fan.local().collect(work).await
            } else {
                fan.collect(work).await
            };
            assert!(all.unwrap().into_iter().eq(0..300));
            for key in 0..5 {
                let order: Vec<_> = log.entries().into_iter().filter(|n| n % 5 == key).collect();
                assert!(order.is_sorted() && order.len() == 60);
            }
        }
    });
}

#[test]
fn other_keys_and_items_without_one_do_not_wait() {
    paused(async || {
        for is_local in [false, true] {
            let log = Log::new();
            let work = noting(&log, 10);
            // 0 and 1 are of the slow key; 2 and 3 have none; 4 and 5 are of two others.
            let key = |n: &usize| [Some(0), Some(0), None, None, Some(1), Some(2)][*n];
            let fan = fan_out(0..6).limit(5).key_if(key);
            if is_local {
                fan.local().for_each(work).await.unwrap();
            } else {
                fan.for_each(work).await.unwrap();
            }
            let expected = [(0, 0), (2, 0), (3, 0), (4, 0), (5, 0), (1, 10)];
            let mut seen = log.entries();
            seen.sort_by_key(|(n, at)| (*at, *n));
            assert_eq!(seen, expected);
        }
    });
}

#[test]
fn items_behind_a_busy_key_are_parked_up_to_the_limit() {
    paused(async || {
        let taken = Count::new();
        let input = super::counted(&taken).take(100);
        let fan = fan_out(input).limit(4).key(|_| "the only one");
        let task = spawn(fan.for_each(|_| sleep(ms(10))));
        sleep(ms(5)).await;
        assert_eq!(taken.get(), 5); // one runs, four behind it
        task.await.unwrap().unwrap();
        assert_eq!(taken.get(), 100);
    });
}

#[test]
fn a_shared_limiter_holds_for_all_together() {
    every_runtime(async || {
        let (limiter, gauge) = (Limiter::new(3), Gauge::default());
        let work = {
            let gauge = gauge.clone();
            move |_| {
                let gauge = gauge.clone();
                async move {
                    let _in = gauge.enter();
                    yield_now().await;
                    yield_now().await;
                }
            }
        };
        let fan = || fan_out(0..100).limit(8).limiter(&limiter);
        let (a, b) = (
            spawn(fan().for_each(work.clone())),
            spawn(fan().for_each(work.clone())),
        );
        let local = fan().local().for_each(work);
        let (a, b, c) = tokio::join!(a, b, local);
        a.unwrap().and(b.unwrap()).and(c).unwrap();
        assert_eq!((gauge.drops.made(), limiter.in_flight()), (300, 0));
        assert!(gauge.peak() <= 3);
    });
}

#[test]
fn a_limit_that_is_changed_while_it_runs_holds_for_what_starts_next() {
    paused(async || {
        let (limiter, gauge) = (Limiter::new(4), Gauge::default());
        let inner = gauge.clone();
        let work = move |_| {
            let gauge = inner.clone();
            async move {
                let _in = gauge.enter();
                sleep(ms(10)).await;
            }
        };
        let task = spawn(fan_out(0..100).limit(50).limiter(&limiter).for_each(work));
        sleep(ms(5)).await;
        assert_eq!(gauge.drops.alive(), 4);
        limiter.set_limit(2);
        assert_eq!(gauge.drops.alive(), 4); // nobody is cut off
        sleep(ms(10)).await;
        assert_eq!(gauge.drops.alive(), 2);
        limiter.set_limit(9);
        sleep(ms(1)).await;
        assert_eq!(gauge.drops.alive(), 9);
        task.await.unwrap().unwrap();
    });
}

#[test]
fn an_adaptive_limiter_learns_from_successes_and_failures() {
    paused(async || {
        for is_local in [false, true] {
            let limiter = Limiter::adaptive(2, 8);
            let run = async |fails: bool| {
                let fan = fan_out(0..100).limit(50).limiter(&limiter);
                let work = move |_| async move {
                    sleep(ms(10)).await;
                    if fails { bad("too much") } else { good(()) }
                };
                if is_local {
                    fan.local().outcomes(work).await.unwrap()
                } else {
                    fan.outcomes(work).await.unwrap()
                }
            };
            run(false).await;
            assert_eq!(limiter.limit(), 8);
            run(true).await;
            assert_eq!((limiter.limit(), limiter.in_flight()), (2, 0));
        }
    });
}

#[test]
fn stages_that_share_a_limiter_do_not_block_one_another() {
    // A stage that held its permit until its result was taken would.
    paused(async || {
        let limiter = Limiter::new(1);
        let fan = fan_out(0..20).limit(4).buffer(1).limiter(&limiter);
        let mut first = fan.results(async |n| {
            sleep(ms(1)).await;
            good(n)
        });
        let mut sum = 0;
        while let Some(n) = first.next().await {
            let second = fan_out([n.unwrap()]).limiter(&limiter);
            sum += second.collect(async |n| good(n)).await.unwrap()[0];
        }
        assert_eq!(sum, 190);
    });
}

#[test]
fn a_wait_for_a_permit_or_a_rate_ends_on_the_signal() {
    paused(async || {
        for by_rate in [false, true] {
            let limiter = Limiter::new(1);
            let held = limiter.acquire().await.unwrap();
            let rate = RateLimiter::new(Rate::new(1, ms(1_000_000)));
            rate.acquire().await.unwrap();
            let start = Instant::now();
            let ended = Scope::new()
                .grace(ms(500))
                .run(async |group: &TaskGroup<Fail>| {
                    for is_local in [false, true] {
                        let fan = fan_out(0..9).limit(3);
                        let fan = if by_rate {
                            fan.rate(&rate)
                        } else {
                            fan.limiter(&limiter)
                        };
                        group.spawn(async move {
                            let ended = if is_local {
                                fan.local().for_each(async |_| {}).await
                            } else {
                                fan.for_each(async |_| {}).await
                            };
                            assert!(ended.unwrap_err().is_cancelled());
                        });
                    }
                    sleep(ms(20)).await;
                    group.cancel();
                    Ok(())
                })
                .await;
            let error = ended.unwrap_err();
            assert!(error.is_cancelled() && error.forced().is_empty());
            assert_eq!(start.elapsed(), ms(20));
            assert_eq!((limiter.waiting(), rate.waiting()), (0, 0));
            drop(held);
        }
    });
}

#[test]
fn progress_counts_every_item_once() {
    every_runtime(async || {
        let progress = Progress::new();
        let seen = progress.clone();
        let work = move |n: usize| {
            let progress = seen.clone();
            async move {
                yield_now().await;
                let ended = progress.done() + progress.failed();
                assert!(ended + progress.in_flight() <= progress.started());
                assert!((1..=8).contains(&progress.in_flight()));
                assert_eq!(progress.total(), Some(100));
                if n % 10 == 0 { bad("tenth") } else { good(n) }
            }
        };
        let fan = fan_out(0..100).limit(8).progress(&progress);
        fan.outcomes(work).await.unwrap();
        assert_eq!(
            (progress.done(), progress.failed(), progress.in_flight()),
            (90, 10, 0)
        );
    });
    paused(async || {
        // One that throws or fails, in both forms.
        for case in 0..4 {
            let (is_local, throws) = (case & 1 > 0, case & 2 > 0);
            let progress = Progress::new();
            let fan = fan_out((0..100).filter(|n| n % 2 == 0))
                .limit(8)
                .progress(&progress);
            let work = move |n| async move {
                sleep(ms(n)).await;
                assert!(n != 4 || !throws, "four");
                if n == 4 { bad("four") } else { good(()) }
            };
            let ended = if is_local {
                caught(fan.local().for_each(work)).await
            } else {
                caught(fan.for_each(work)).await
            };
            match ended {
                Err(thrown) => assert!(throws && thrown == "four", "{thrown}"),
                Ok(ended) => assert!(!throws && ended.is_err()),
            }
            assert_eq!((progress.started(), progress.total()), (10, None));
            let failed = u64::from(!throws);
            assert_eq!((progress.done(), progress.failed()), (2, failed));
            assert_eq!(
                (progress.cancelled(), progress.in_flight()),
                (8 - failed, 0)
            );
        }
        let progress = Progress::new();
        let fan = fan_out(0..100).progress(&progress);
        fan.local().for_each(async |_| {}).await.unwrap();
        assert_eq!((progress.total(), progress.done()), (Some(100), 100));
    });
}
