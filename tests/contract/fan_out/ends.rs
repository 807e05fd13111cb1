//! Panics, cancels, drops, deadlines.

use std::cell::RefCell;
use std::future::{Future, pending};

use ringfence::{
    Cause, Deadline, FailureKind, Progress, Scope, TaskGroup, fan_out, root, scope, token,
};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use super::{Fail, bad, counted, good, ms, parked};
use crate::support::{
    Count, Drops, Log, PATIENCE, PanicOnDrop, caught, cut_at_every_await, every_runtime, paused,
    until,
};

#[test]
fn a_panic_of_the_function_goes_on_in_the_caller_when_all_are_gone() {
    every_runtime(async || {
        for case in 0..8 {
            let (is_local, is_called) = (case & 1 > 0, case & 2 > 0);
            // Among the first items, or when one that has ended makes room.
            let limit = if case & 4 > 0 { 6 } else { 3 };
            let drops = Drops::new();
            let inner = drops.clone();
            // Thrown by the call, or by the future.
            let work = move |n: usize| {
                assert!(!(is_called && n == 5), "thrown");
                let parked = parked(&inner);
                async move {
                    assert!(n != 5, "thrown");
                    if limit == 6 || n % 2 == 1 {
                        return parked.await;
                    }
                    Ok(())
                }
            };
            let fan = fan_out(0..100).limit(limit);
            let thrown = if is_local {
                caught(fan.local().for_each(work)).await
            } else {
                caught(fan.for_each(work)).await
            };
            assert_eq!(thrown.unwrap_err(), "thrown");
            assert_eq!(drops.alive(), 0);
            assert!(drops.made() >= 5);
        }
    });
}

#[test]
fn a_panic_of_the_input_goes_on_in_the_caller_when_all_are_gone() {
    every_runtime(async || {
        for is_local in [false, true] {
            let (drops, asked) = (Drops::new(), Count::new());
            let (inner, seen) = (drops.clone(), asked.clone());
            let input = std::iter::from_fn(move || {
                assert!(seen.add() < 5, "no more");
                Some(())
            });
            let work = move |()| parked(&inner);
            let fan = fan_out(input).limit(64);
            let thrown = if is_local {
                caught(fan.local().for_each(work)).await
            } else {
                caught(fan.for_each(work)).await
            };
            assert_eq!(thrown.unwrap_err(), "no more");
            // And it is not asked again.
            assert_eq!((drops.made(), drops.alive(), asked.get()), (5, 0, 6));
        }
    });
}

#[test]
fn a_panic_of_a_destructor_or_of_the_fold_is_one_of_the_fan_out() {
    every_runtime(async || {
        let work = |n: usize| {
            let guard = PanicOnDrop("at the end");
            async move {
                let _guard = guard;
                good(n)
            }
        };
        let spawned = caught(fan_out(0..3).limit(1).collect(work)).await;
        assert_eq!(spawned.unwrap_err(), "at the end");
        let local = caught(fan_out(0..3).limit(1).local().collect(work)).await;
        assert_eq!(local.unwrap_err(), "at the end");
        let combine = |_: usize, _: usize| panic!("cannot add");
        let work = async |n| good(n);
        let spawned = caught(fan_out(0..9).fold(0, work, combine)).await;
        assert_eq!(spawned.unwrap_err(), "cannot add");
        let local = caught(fan_out(0..9).local().fold(0, work, combine)).await;
        assert_eq!(local.unwrap_err(), "cannot add");
        root().wait(PATIENCE).await.unwrap();
    });
}

#[test]
fn others_are_not_dropped_in_the_midst_of_a_panic() {
    /// Notes whether a panic is under way when it is dropped: a lock that is given back then would be poisoned.
    struct Noting(Log<bool>);
    impl Drop for Noting {
        fn drop(&mut self) {
            self.0.push(std::thread::panicking());
        }
    }
    every_runtime(async || {
        for is_local in [false, true] {
            let log = Log::new();
            let inner = log.clone();
            let work = move |n: usize| {
                let held = Noting(inner.clone());
                async move {
                    if n == 2 {
                        drop(held);
                        yield_now().await;
                        panic!("item");
                    }
                    let _held = held;
                    pending::<()>().await;
                }
            };
            let fan = fan_out(0..9).limit(3);
            let thrown = if is_local {
                caught(fan.local().for_each(work)).await
            } else {
                caught(fan.for_each(work)).await
            };
            assert_eq!(thrown.unwrap_err(), "item");
            assert_eq!(log.entries(), [false; 3]);
        }
    });
}

#[test]
fn a_panic_tells_its_item() {
    every_runtime(async || {
        for place in 0..3 {
            let fan = fan_out(0..9).limit(3);
            let fan = fan.scope(Scope::new().name("pages").panics_as_errors());
            // Thrown by the call, by the future, by its destructor.
            let work = move |n: usize| {
                assert!((n, place) != (4, 0), "four");
                let guard = (n == 4 && place == 2).then(|| PanicOnDrop("four"));
                async move {
                    yield_now().await;
                    assert!((n, place) != (4, 1), "four");
                    drop(guard);
                    // The others are forced, and not named.
                    good(if n < 4 { n } else { pending().await })
                }
            };
            let error = fan.collect(work).await.unwrap_err();
            let names: Vec<_> = error.iter().map(|it| it.task().unwrap().name()).collect();
            assert_eq!(names, [Some("item 4")]);
        }
    });
}

#[test]
fn panics_can_be_entries_of_the_error_instead() {
    every_runtime(async || {
        let fan = fan_out(0..9)
            .limit(2)
            .scope(Scope::new().name("pages").panics_as_errors());
        let work = async |n: usize| {
            assert!(n != 4, "four");
            good(n)
        };
        let error = fan.collect(work).await.unwrap_err();
        assert_eq!(error.group(), Some("pages"));
        let kind = error.into_iter().next().unwrap().into_kind();
        assert!(matches!(kind, FailureKind::Panic(panic) if panic.message() == "four"));
    });
}

#[test]
fn dropped_it_cancels_its_items_and_its_owner_waits_for_them() {
    every_runtime(async || {
        let drops = Drops::new();
        scope(async |group: &TaskGroup<Fail>| {
            let inner = drops.clone();
            let child = group.spawn(async move {
                let work = move |_| parked(&inner);
                fan_out(0..100)
                    .limit(7)
                    .for_each(work)
                    .await
                    .map_err(Fail::other)
            });
            until(|| drops.made() == 7).await;
            child.cancel_and_wait().await;
            assert_eq!(drops.alive(), 0);
            Ok(())
        })
        .await
        .unwrap();
        let mut local = Box::pin(
            fan_out(0..100)
                .limit(7)
                .local()
                .for_each(|_| parked(&drops)),
        );
        assert!(futures::poll!(local.as_mut()).is_pending());
        assert_eq!(drops.alive(), 7);
        drop(local);
        assert_eq!((drops.made(), drops.alive()), (14, 0));
    });
}

#[test]
fn a_deadline_cancels_its_items_and_waits_for_them() {
    paused(async || {
        let (drops, start) = (Drops::new(), Instant::now());
        let inner = drops.clone();
        let scope = Scope::new().deadline(Deadline::after(ms(50)));
        let fan = fan_out(0..100).limit(7).scope(scope);
        let error = fan.for_each(move |_| parked(&inner)).await.unwrap_err();
        assert_eq!(error.cause(), &Cause::DeadlineExceeded);
        assert_eq!(
            (start.elapsed(), drops.made(), drops.alive()),
            (ms(50), 7, 0)
        );
    });
}

#[test]
fn on_the_signal_nothing_more_is_taken_and_what_runs_may_end() {
    paused(async || {
        for is_local in [false, true] {
            let (taken, log, start) = (Count::new(), Log::new(), Instant::now());
            let error = Scope::new()
                .grace(ms(1_000))
                .run(async |group: &TaskGroup<Fail>| {
                    let (input, log) = (counted(&taken), log.clone());
                    group.spawn(async move {
                        let work = {
                            let log = log.clone();
                            move |n: usize| {
                                let log = log.clone();
                                async move {
                                    sleep(ms(100)).await;
                                    log.push(n);
                                }
                            }
                        };
                        let fan = fan_out(input).limit(2);
                        let ended = if is_local {
                            fan.local().for_each(work).await
                        } else {
                            fan.for_each(work).await
                        };
                        let error = ended.unwrap_err();
                        assert!(error.is_cancelled() && error.is_empty(), "{error}");
                        assert!(token().is_cancelled());
                        log.push(100);
                        Ok(())
                    });
                    sleep(ms(250)).await;
                    group.cancel();
                    Ok(())
                })
                .await
                .unwrap_err();
            assert!(error.is_cancelled() && error.forced().is_empty());
            assert_eq!(start.elapsed(), ms(300));
            assert_eq!(log.entries(), [0, 1, 2, 3, 4, 5, 100]);
            assert_eq!(taken.get(), 6);
        }
    });
}

#[test]
fn what_has_done_all_of_its_input_was_not_cancelled() {
    paused(async || {
        let ended = Scope::new()
            .grace(ms(1_000))
            .run(async |group: &TaskGroup<Fail>| {
                let work = async |n: u8| {
                    sleep(ms(100)).await;
                    good(n)
                };
                for is_local in [false, true] {
                    group.spawn(async move {
                        let fan = fan_out([1, 2]).limit(2);
                        let all = if is_local {
                            fan.local().collect(work).await
                        } else {
                            fan.collect(work).await
                        };
                        assert_eq!(all.unwrap(), [1, 2]);
                        // But there is no beginning after the signal.
                        let taken = Count::new();
                        let fan = fan_out(counted(&taken)).limit(2);
                        let none = if is_local {
                            fan.local().for_each(async |_| {}).await
                        } else {
                            fan.for_each(async |_| {}).await
                        };
                        assert!(none.unwrap_err().is_cancelled());
                        assert_eq!(taken.get(), 0);
                    });
                }
                sleep(ms(50)).await;
                group.cancel();
                Ok(())
            })
            .await;
        assert!(ended.unwrap_err().forced().is_empty());
    });
}

/// Every item is not taken, done, failed or cancelled, and all that was made is gone.
fn accounts<F: Future<Output = ()>>(make: impl Fn(Progress, Count, Drops) -> F) {
    paused(async || {
        let (run, drops) = (RefCell::new((Progress::new(), Count::new())), Drops::new());
        let cuts = cut_at_every_await(
            || {
                let (progress, taken) = (Progress::new(), Count::new());
                run.replace((progress.clone(), taken.clone()));
                make(progress, taken, drops.clone())
            },
            async |_| {
                root().wait(PATIENCE).await.expect("all are gone");
                let (progress, taken) = run.borrow().clone();
                let ended = progress.done() + progress.failed() + progress.cancelled();
                assert_eq!((progress.in_flight(), drops.alive()), (0, 0));
                assert_eq!(progress.started(), ended);
                assert!(progress.started() as usize <= taken.get());
            },
        )
        .await;
        assert!(cuts > 3, "{cuts} cuts");
    });
}

/// Numbers below `n`, each with a guard.
fn guarded(
    n: usize,
    taken: &Count,
    drops: &Drops,
) -> impl Iterator<Item = (usize, crate::support::DropGuard)> + Send + use<> {
    let drops = drops.clone();
    counted(taken).take(n).map(move |n| (n, drops.guard()))
}

async fn steps((n, guard): (usize, crate::support::DropGuard)) -> Result<usize, Fail> {
    let _guard = guard;
    for _ in 0..n % 4 {
        yield_now().await;
    }
    if n % 3 == 2 {
        bad("every third")
    } else {
        good(n)
    }
}

#[test]
fn cut_at_every_await_every_item_is_accounted_for() {
    accounts(|progress, taken, drops| async move {
        let limiter = ringfence::Limiter::new(3);
        let fan = fan_out(guarded(40, &taken, &drops))
            .limit(4)
            .progress(&progress);
        let weigh = |item: &(usize, _)| (item.0 % 5) as u32;
        let fan = fan.weighted(&limiter, weigh).key(|item| item.0 % 3);
        let mut results =
            fan.results_unordered(|item| async move { good(steps(item).await.is_ok()) });
        let mut n = 0;
        while let Some(result) = results.next().await {
            result.unwrap();
            n += 1;
            sleep(ms(1)).await;
        }
        assert_eq!((n, limiter.in_flight()), (40, 0));
    });
    accounts(|progress, taken, drops| async move {
        let fan = fan_out(guarded(40, &taken, &drops))
            .limit(4)
            .progress(&progress);
        let outcomes = fan.local().outcomes(steps).await.unwrap();
        assert_eq!((outcomes.len(), progress.failed()), (40, 13));
    });
    accounts(|progress, taken, drops| async move {
        let rate = ringfence::RateLimiter::new(ringfence::Rate::per_second(100));
        let fan = fan_out(guarded(8, &taken, &drops)).limit(2).rate(&rate);
        fan.progress(&progress)
            .local()
            .outcomes(steps)
            .await
            .unwrap();
    });
}

#[test]
fn an_item_can_be_refused_by_a_group_that_is_closing() {
    every_runtime(async || {
        let started = Count::new();
        let inner = started.clone();
        let ended = Scope::new()
            .run(async |group: &TaskGroup<Fail>| {
                let child = group.spawn(async move {
                    let work = move |_| {
                        inner.add();
                        pending::<()>()
                    };
                    fan_out(0..3)
                        .limit(2)
                        .for_each(work)
                        .await
                        .map_err(Fail::other)
                });
                until(|| started.get() == 2).await;
                group.cancel();
                child.await;
                Ok(())
            })
            .await;
        assert!(ended.unwrap_err().is_cancelled());
        assert_eq!(started.get(), 2);
    });
}
