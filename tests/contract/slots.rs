//! Limits: a slot is taken before the child exists, comes back on every kind of end, and is lent to scopes inside.

use std::{
    future::{Future, pending},
    pin::{Pin, pin},
    sync::Arc,
    task::Context,
    time::Duration,
};

use futures::{FutureExt, poll};
use ringfence::{
    CancelReason, GroupError, LimitedSpawner, Observer, OwnedGroup, Scope, Slots, TaskGroup,
    TaskInfo, TrySpawnError, scope, shield, timeout,
};
use tokio::{
    sync::oneshot,
    task::yield_now,
    time::{Instant, sleep},
};

use crate::support::{
    Count, CountingWaker, Drops, Log, OnDrop, PanicOnDrop, Parked, caught, current_thread,
    every_runtime, every_runtime_in_a_task, paused, settle, single_thread, spawn, until,
};

type Group = TaskGroup<String>;
type Done = Result<(), String>;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// How many run now, and how many ever did at once.
#[derive(Clone, Default)]
struct Gauge {
    now: Arc<std::sync::Mutex<(usize, usize)>>,
}

impl Gauge {
    fn enter(&self) -> impl Drop + Send + use<> {
        let mut now = self.now.lock().expect("no panic in here");
        now.0 += 1;
        now.1 = now.1.max(now.0);
        drop(now);
        let me = self.clone();
        OnDrop::new(move || me.now.lock().expect("no panic in here").0 -= 1)
    }

    fn most(&self) -> usize {
        self.now.lock().expect("no panic in here").1
    }
}

#[test]
fn never_more_children_run_than_the_limit_and_all_of_them_run() {
    every_runtime(async || {
        for (limit, children) in [(1, 50), (10, 1024), (100, 200), (7, 7), (64, 3)] {
            let (gauge, ran) = (Gauge::default(), Count::new());
            let result = scope(async |group: &Group| -> Done {
                let limited = group.limit(limit);
                for _ in 0..children {
                    let (gauge, ran) = (gauge.clone(), ran.clone());
                    let child = async move {
                        let _in = gauge.enter();
                        yield_now().await;
                        ran.add();
                    };
                    limited.spawn(child).await;
                }
                Ok(())
            });
            result.await.expect("nobody fails");
            assert_eq!(ran.get(), children);
            assert!(gauge.most() <= limit, "{} of {limit}", gauge.most());
        }
    });
}

#[test]
fn as_many_children_run_as_the_limit_says() {
    paused(async || {
        let began = Instant::now();
        let result = scope(async |group: &Group| -> Done {
            let limited = group.limit(3);
            for _ in 0..9 {
                limited.spawn(sleep(ms(10))).await;
            }
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!(began.elapsed(), ms(30));
    });
}

#[test]
fn a_slot_is_taken_before_the_child_exists() {
    paused(async || {
        let polls = Count::new();
        let result = scope(async |group: &Group| -> Done {
            let limited = group.limit(1);
            limited.spawn(sleep(ms(10))).await;
            let mut second = pin!(limited.spawn(Parked::new(&polls, &Drops::new())));
            assert!(poll!(second.as_mut()).is_pending());
            assert_eq!(group.len(), 1, "what waits is the one who spawns");
            sleep(ms(11)).await;
            assert_eq!(polls.get(), 0);
            second.await.cancel();
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn a_handle_from_a_limited_group_yields_the_value() {
    every_runtime(async || {
        let sum = scope(async |group: &Group| {
            let limited = group.limit(2);
            let a = limited.spawn(async { Ok(1) }).await;
            let b = limited.spawn(async { Ok(2) }).await;
            Ok(a.await + b.await)
        });
        assert_eq!(sum.await.expect("nobody fails"), 3);
    });
}

#[test]
fn try_spawn_at_the_limit_gives_the_future_back_unpolled() {
    paused(async || {
        let polls = Count::new();
        let result = scope(async |group: &Group| -> Done {
            let limited = group.limit(1);
            let first = limited.try_spawn(sleep(ms(10))).expect("a slot is free");
            let refused = limited.try_spawn(Parked::new(&polls, &Drops::new()));
            let refused = refused.expect_err("none is left");
            assert!(refused.is_full());
            drop(refused.into_inner());
            first.await;
            limited.try_spawn(async {}).expect("it has come back");
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!(polls.get(), 0);
    });
}

#[test]
fn try_spawn_into_a_closing_group_says_so() {
    paused(async || {
        let (tell, told) = oneshot::channel();
        let result = Scope::new().grace(ms(10)).run(async |group: &Group| {
            let limited = group.limit(1);
            group.cancel();
            let refused = limited
                .try_spawn(async {})
                .expect_err("the group is closing");
            assert!(matches!(&refused, TrySpawnError::Closing(_)), "{refused:?}");
            assert_eq!(limited.free(), 1);
            tell.send(()).expect("somebody listens");
            pending::<Done>().await
        });
        assert!(result.await.expect_err("cancelled").is_cancelled());
        told.await.expect("the body came so far");
    });
}

#[test]
fn a_limit_of_zero_panics_at_the_caller() {
    single_thread(async || {
        let place = caught(async {
            let _none = Slots::new(0);
        });
        assert!(
            place
                .await
                .expect_err("refused")
                .contains("a limit of 0 would let nothing run")
        );
        let body = scope(async |group: &Group| -> Done {
            let _none = group.limit(0);
            Ok(())
        });
        let text = caught(body).await.expect_err("refused");
        assert!(text.contains("a limit of 0"), "{text}");
    });
}

#[test]
fn the_largest_limit_is_no_limit() {
    paused(async || {
        for limit in [usize::MAX, tokio::sync::Semaphore::MAX_PERMITS + 1] {
            let slots = Slots::new(limit);
            let began = Instant::now();
            let result = scope(async |group: &Group| -> Done {
                let limited = group.limit(&slots);
                for _ in 0..1000 {
                    limited.spawn(sleep(ms(5))).await;
                }
                Ok(())
            });
            result.await.expect("nobody fails");
            assert_eq!((slots.free(), slots.limit()), (limit, limit));
            assert_eq!(began.elapsed(), ms(5));
        }
    });
}

#[test]
fn those_who_wait_are_served_in_the_order_in_which_they_came() {
    paused(async || {
        let log = Log::new();
        let result = scope(async |group: &Group| -> Done {
            let slots = Slots::new(1);
            let limited = group.spawner().limit(&slots);
            let held = limited.spawn(pending::<()>()).await;
            for place in 0..10 {
                let (limited, log) = (limited.clone(), log.clone());
                group.spawn(async move {
                    limited.spawn(async move { log.push(place) }).await;
                });
                settle().await;
            }
            held.cancel();
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!(log.entries(), (0..10).collect::<Vec<_>>());
    });
}

#[test]
fn whoever_comes_again_goes_to_the_back() {
    paused(async || {
        let log = Log::new();
        let result = scope(async |group: &Group| -> Done {
            let limited = group.spawner().limit(1);
            let held = limited.spawn(pending::<()>()).await;
            for name in ["a", "b"] {
                let (limited, log) = (limited.clone(), log.clone());
                group.spawn(async move {
                    for _ in 0..3 {
                        let log = log.clone();
                        let child = async move {
                            log.push(name);
                            sleep(ms(1)).await;
                        };
                        limited.spawn(child).await;
                    }
                });
                settle().await;
            }
            held.cancel();
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!(log.entries(), ["a", "b", "a", "b", "a", "b"]);
    });
}

#[test]
fn trying_does_not_overtake_those_who_wait() {
    paused(async || {
        let result = scope(async |group: &Group| -> Done {
            let limited = group.limit(1);
            let held = limited.spawn(pending::<()>()).await;
            let mut waits = pin!(limited.spawn(async {}));
            assert!(poll!(waits.as_mut()).is_pending());
            held.cancel_and_wait().await;
            // The slot has come back, and belongs to the one who waits, though it has not come for it yet.
            assert!(limited.try_spawn(async {}).is_err());
            assert_eq!(limited.free(), 0);
            waits.await;
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn slots_that_come_back_together_serve_as_many_in_order() {
    paused(async || {
        let log = Log::new();
        let result = scope(async |group: &Group| -> Done {
            let limited = group.spawner().limit(3);
            for _ in 0..3 {
                limited.spawn(sleep(ms(10))).await;
            }
            for place in 0..5 {
                let (limited, log) = (limited.clone(), log.clone());
                group.spawn(async move {
                    let child = async move {
                        log.push((place, Instant::now()));
                        sleep(ms(10)).await;
                    };
                    limited.spawn(child).await;
                });
                settle().await;
            }
            Ok(())
        });
        let began = Instant::now();
        result.await.expect("nobody fails");
        let after: Vec<_> = log
            .entries()
            .into_iter()
            .map(|(place, at)| (place, at - began))
            .collect();
        let (ten, twenty) = (ms(10), ms(20));
        assert_eq!(
            after,
            [(0, ten), (1, ten), (2, ten), (3, twenty), (4, twenty)]
        );
    });
}

#[test]
fn a_slot_passes_by_those_who_gave_up_waiting() {
    paused(async || {
        let result = scope(async |group: &Group| -> Done {
            let limited = group.limit(1);
            let held = limited.spawn(pending::<()>()).await;
            let (mut a, mut b) = (
                Box::pin(limited.spawn(async {})),
                Box::pin(limited.spawn(async {})),
            );
            let mut c = pin!(limited.spawn(async {}));
            assert!(poll!(&mut a).is_pending());
            assert!(poll!(&mut b).is_pending());
            assert!(poll!(c.as_mut()).is_pending());
            drop(b);
            drop(a);
            held.cancel_and_wait().await;
            c.await.await;
            assert_eq!(limited.free(), 1);
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn a_slot_that_was_granted_to_one_who_gave_up_goes_to_the_next() {
    paused(async || {
        let result = scope(async |group: &Group| -> Done {
            let limited = group.limit(1);
            let held = limited.spawn(pending::<()>()).await;
            let mut first = Box::pin(limited.spawn(async {}));
            let mut next = pin!(limited.spawn(async {}));
            let woken = CountingWaker::new();
            let mut poll_next = || {
                let waker = woken.waker();
                let mut cx = Context::from_waker(&waker);
                next.as_mut().poll(&mut cx).map(drop)
            };
            assert!(poll!(&mut first).is_pending());
            assert!(poll_next().is_pending());
            held.cancel_and_wait().await;
            assert!(poll_next().is_pending(), "it is the first one's");
            assert_eq!(woken.wakes(), 0);
            drop(first);
            assert_eq!(woken.wakes(), 1, "it is told");
            assert!(poll_next().is_ready());
            until(|| group.is_empty()).await;
            assert_eq!(limited.free(), 1);
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn those_who_gave_up_leave_nothing_behind() {
    paused(async || {
        let slots = Slots::new(1);
        let result = scope(async |group: &Group| -> Done {
            let limited = group.limit(&slots);
            let held = limited.spawn(pending::<()>()).await;
            let drops = Drops::new();
            for _ in 0..1000 {
                let (guard, mut waits) = (drops.guard(), pin!(None));
                let child = async move { drop(guard) };
                waits.set(Some(limited.spawn(child)));
                let waits = waits.as_mut().as_pin_mut().expect("it was put there");
                assert!(waits.now_or_never().is_none());
            }
            assert_eq!(drops.alive(), 0);
            held.cancel_and_wait().await;
            assert_eq!(limited.free(), 1, "nobody stands in the way");
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

/// Has a child with the only slot end in some way, and returns how many slots are free then.
async fn freed(end: impl AsyncFnOnce(&Group, &Slots)) -> usize {
    let slots = Slots::new(1);
    let run = Scope::new().panics_as_errors();
    drop(
        run.run(async |group: &Group| -> Done {
            end(group, &slots).await;
            until(|| group.is_empty()).await;
            Ok(())
        })
        .await,
    );
    slots.free()
}

#[test]
fn a_slot_comes_back_when_its_child_completes() {
    every_runtime(async || {
        let free = freed(async |group, slots| {
            group.limit(slots).spawn(async { Ok(5) }).await.await;
        });
        assert_eq!(free.await, 1);
    });
}

#[test]
fn a_slot_comes_back_when_its_child_fails() {
    every_runtime(async || {
        let free = freed(async |group, slots| {
            let failing = async { Err::<(), _>("no".to_owned()) };
            group.limit(slots).spawn(failing).await;
        });
        assert_eq!(free.await, 1);
    });
}

#[test]
fn a_slot_comes_back_when_its_child_panics() {
    every_runtime(async || {
        let free = freed(async |group, slots| {
            let child = async { panic!("thrown") };
            let child: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(child);
            group.limit(slots).spawn(child).await;
        });
        assert_eq!(free.await, 1);
    });
}

#[test]
fn a_slot_comes_back_when_its_child_panics_in_its_destructor() {
    every_runtime(async || {
        let free = freed(async |group, slots| {
            let bomb = PanicOnDrop("in a destructor");
            let child = async move {
                let _bomb = bomb;
            };
            group.limit(slots).spawn(child).await;
        });
        assert_eq!(free.await, 1);
    });
}

#[test]
fn a_slot_comes_back_when_its_child_is_cancelled() {
    every_runtime(async || {
        let free = freed(async |group, slots| {
            let limited = group.limit(slots);
            let handle = limited.spawn(pending::<()>()).await;
            yield_now().await;
            assert_eq!(limited.free(), 0);
            handle.cancel_and_wait().await;
            assert_eq!(limited.free(), 1);
        });
        assert_eq!(free.await, 1);
    });
}

#[test]
fn a_slot_comes_back_when_its_child_is_forced() {
    paused(async || {
        let slots = Slots::new(2);
        let run = Scope::new().grace(ms(10)).run(async |group: &Group| {
            let limited = group.limit(&slots);
            limited.spawn(pending::<()>()).await;
            limited.spawn(pending::<()>()).await;
            group.cancel();
            pending::<Done>().await
        });
        let error = run.await.expect_err("cancelled");
        assert_eq!((error.forced().len(), slots.free()), (3, 2));
    });
}

#[test]
fn a_slot_comes_back_when_the_scope_is_dropped() {
    every_runtime(async || {
        let slots = Slots::new(2);
        let mut run = Box::pin(scope(async |group: &Group| {
            let limited = group.limit(&slots);
            limited.spawn(pending::<()>()).await;
            limited.spawn(pending::<()>()).await;
            pending::<Done>().await
        }));
        assert!(poll!(&mut run).is_pending());
        assert_eq!(slots.free(), 0);
        drop(run);
        until(|| slots.free() == 2).await;
    });
}

#[test]
fn a_slot_comes_back_when_the_group_refuses_the_child() {
    paused(async || {
        let group = OwnedGroup::<String>::new();
        let limited = group.limit(1);
        group.close();
        let outcome = limited.spawn(async {}).await.await;
        assert!(outcome.is_cancelled(), "{outcome:?}");
        assert_eq!(limited.free(), 1);
        assert!(limited.try_spawn(async {}).is_err());
        assert_eq!(limited.free(), 1);
        assert!(group.wait().await.is_clean());
    });
}

#[test]
fn a_slot_comes_back_when_the_runtime_goes_away() {
    let slots = Slots::new(3);
    let other = current_thread();
    let (parked, never_polled) = (Drops::new(), Drops::new());
    other.block_on(async {
        let group = OwnedGroup::<String>::new();
        let limited = group.limit(&slots);
        let guard = parked.guard();
        let child = async move {
            let _guard = guard;
            pending::<()>().await;
        };
        limited.spawn(child).await;
        settle().await;
        let guard = never_polled.guard();
        limited.spawn(async move { drop(guard) }).await;
        assert_eq!(slots.free(), 1);
        #[expect(clippy::mem_forget, reason = "what leaks must not keep a slot")]
        std::mem::forget(group);
    });
    drop(other);
    assert_eq!((parked.alive(), never_polled.alive()), (0, 0));
    assert_eq!(slots.free(), 3);
}

#[test]
fn a_limit_over_spawns_that_are_refused_now_and_then_is_still_reached() {
    every_runtime(async || {
        let slots = Slots::new(4);
        for _ in 0..50 {
            let closing = OwnedGroup::<String>::new();
            let limited = closing.limit(&slots);
            for at in 0..8 {
                if at == 5 {
                    closing.close();
                }
                limited.spawn(yield_now()).await;
            }
            assert!(closing.wait().await.is_clean());
        }
        assert_eq!(slots.free(), 4);
    });
}

#[test]
fn with_a_failure_what_has_not_started_never_does() {
    paused(async || {
        let (started, drops) = (Count::new(), Drops::new());
        let result = scope(async |group: &Group| -> Done {
            let limited = group.limit(2);
            for place in 0..9 {
                let (started, guard) = (started.clone(), drops.guard());
                let child = async move {
                    let _guard = guard;
                    started.add();
                    sleep(ms(if place == 1 { 5 } else { 10 })).await;
                    if place == 1 {
                        Err("the second".to_owned())
                    } else {
                        Ok(())
                    }
                };
                limited.spawn(child).await;
            }
            Ok(())
        });
        let error = result.await.expect_err("one fails");
        assert_eq!(error.len(), 1);
        assert_eq!((started.get(), drops.alive()), (2, 0));
    });
}

#[test]
fn the_signal_of_a_cancel_ends_the_wait_for_a_slot() {
    paused(async || {
        let (log, drops) = (Log::new(), Drops::new());
        let run = Scope::new()
            .grace(ms(50))
            .run(async |group: &Group| -> Done {
                let began = Instant::now();
                let limited = group.limit(1);
                limited.spawn(sleep(ms(40))).await;
                let spawner = group.spawner();
                group.spawn(async move {
                    sleep(ms(5)).await;
                    spawner.cancel();
                });
                let guard = drops.guard();
                let child = async move { drop(guard) };
                let outcome = limited.spawn(child).await.outcome().await;
                assert_eq!(drops.alive(), 0);
                assert!(outcome.is_cancelled(), "{outcome:?}");
                log.push(began.elapsed());
                Ok(())
            });
        assert!(run.await.expect_err("cancelled").is_cancelled());
        assert_eq!(log.entries(), [ms(5)], "within the grace, not at its end");
    });
}

#[test]
fn the_signal_of_an_outer_cancel_ends_the_wait_for_a_slot() {
    paused(async || {
        let log = Log::new();
        let run = Scope::new().grace(ms(50)).run(async |outer: &Group| {
            let log = log.clone();
            outer.spawn(async move {
                let began = Instant::now();
                let inner = scope(async |group: &Group| -> Done {
                    let limited = group.limit(1);
                    limited.spawn(sleep(ms(40))).await;
                    let refused = limited.spawn(async {}).await.outcome().await;
                    assert!(refused.is_cancelled(), "{refused:?}");
                    log.push(began.elapsed());
                    Ok(())
                });
                inner.await.map_err(|error| error.to_string())
            });
            sleep(ms(5)).await;
            outer.cancel();
            Ok(())
        });
        assert!(run.await.expect_err("cancelled").is_cancelled());
        assert_eq!(log.entries(), [ms(5)]);
    });
}

#[test]
fn the_signal_to_whoever_waits_ends_the_wait_for_a_slot() {
    paused(async || {
        let log = Log::new();
        let others = OwnedGroup::<String>::new();
        let limited = others.limit(1);
        limited.spawn(sleep(ms(1000))).await;
        let result = Scope::new().grace(ms(50)).run(async |group: &Group| {
            let (waits, log) = (limited.clone(), log.clone());
            let waiting = group.spawn(async move {
                let began = Instant::now();
                let outcome = waits.spawn(async {}).await.await;
                log.push((began.elapsed(), outcome.is_cancelled()));
            });
            sleep(ms(5)).await;
            waiting.cancel();
            Ok(())
        });
        result.await.expect("one child was cancelled alone");
        assert_eq!(log.entries(), [(ms(5), true)]);
        assert!(others.is_open());
        // To a child of the group itself, and to the body of a scope inside.
        let log = Log::new();
        let result = Scope::new().grace(ms(50)).run(async |group: &Group| {
            let (own, waits, seen) = (group.spawner().limit(1), limited.clone(), log.clone());
            let held = own.spawn_background(pending::<()>()).await;
            let waiting = group.spawn(async move {
                let began = Instant::now();
                let outcome = own.spawn(async {}).await.await;
                seen.push((began.elapsed(), outcome.is_cancelled()));
            });
            let seen = log.clone();
            let inside = group.spawn(async move {
                let inner = Scope::new()
                    .grace(ms(50))
                    .run(async |group: &Group| -> Done {
                        let spawner = group.spawner();
                        group.spawn(async move {
                            sleep(ms(5)).await;
                            spawner.cancel();
                        });
                        let began = Instant::now();
                        let outcome = waits.spawn(async {}).await.await;
                        seen.push((began.elapsed(), outcome.is_cancelled()));
                        Ok(())
                    });
                assert!(inner.await.expect_err("cancelled").is_cancelled());
            });
            sleep(ms(5)).await;
            waiting.cancel();
            waiting.await;
            inside.await;
            held.cancel();
            Ok(())
        });
        result.await.expect("two were cancelled alone");
        assert_eq!(log.entries(), [(ms(5), true); 2]);
        others.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn taking_slots_that_are_free_lets_others_run() {
    single_thread(async || {
        let turns = Count::new();
        let inside = turns.clone();
        let result = scope(async |group: &Group| -> Done {
            group.spawn_background(async move {
                loop {
                    inside.add();
                    yield_now().await;
                }
            });
            let limited = group.limit(10_000);
            for _ in 0..10_000 {
                drop(limited.spawn(async {}).await);
            }
            assert!(turns.get() > 1, "{}", turns.get());
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn the_end_of_the_group_ends_the_wait_for_a_slot() {
    paused(async || {
        let slots = Slots::new(1);
        let elsewhere = OwnedGroup::<String>::new();
        elsewhere.limit(&slots).spawn(sleep(ms(1000))).await;
        let group = OwnedGroup::<String>::new();
        let limited = group.limit(&slots);
        let stranger = spawn(async move { limited.spawn(async {}).await.await });
        settle().await;
        let began = Instant::now();
        assert!(group.wait().await.is_clean());
        let outcome = stranger.await.expect("it does not panic");
        assert!(outcome.is_cancelled(), "{outcome:?}");
        assert_eq!(began.elapsed(), Duration::ZERO);
        elsewhere.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn a_wait_for_a_slot_that_ends_says_why() {
    paused(async || {
        let group = OwnedGroup::<String>::new();
        let limited = group.limit(1);
        limited.spawn(pending::<()>()).await;
        let mut waits = pin!(limited.spawn(async {}));
        assert!(poll!(waits.as_mut()).is_pending());
        let mut down = pin!(group.shutdown(ms(10)));
        assert!(poll!(down.as_mut()).is_pending());
        let outcome = waits.await.await;
        let reason = CancelReason::Shutdown;
        assert_eq!(outcome, ringfence::Outcome::Cancelled(reason));
        down.await;
    });
}

#[test]
fn groups_that_share_a_budget_keep_to_it_together() {
    every_runtime_in_a_task(|| async {
        let (slots, gauge) = (Slots::new(3), Gauge::default());
        let one = |slots: Slots, gauge: Gauge| async move {
            let result = scope(async |group: &Group| -> Done {
                let limited = group.limit(&slots);
                for _ in 0..40 {
                    let gauge = gauge.clone();
                    let child = async move {
                        let _in = gauge.enter();
                        yield_now().await;
                    };
                    limited.spawn(child).await;
                }
                Ok(())
            });
            result.await
        };
        let (a, b) = tokio::join!(
            one(slots.clone(), gauge.clone()),
            one(slots.clone(), gauge.clone())
        );
        a.and(b).expect("nobody fails");
        assert!(gauge.most() <= 3);
        assert_eq!(slots.free(), 3);
    });
}

type Boxed = Pin<Box<dyn Future<Output = Done> + Send>>;

/// A tree of scopes in children, all of one budget.
fn tree(slots: Slots, depth: usize, leaves: Count) -> Boxed {
    Box::pin(async move {
        yield_now().await;
        if depth == 0 {
            leaves.add();
            return Ok(());
        }
        let inner = scope(async |group: &Group| -> Done {
            let limited = group.limit(&slots);
            for _ in 0..3 {
                let child = tree(slots.clone(), depth - 1, leaves.clone());
                limited.spawn(child).await;
            }
            Ok(())
        });
        inner.await.map_err(|error| error.to_string())
    })
}

#[test]
fn a_limit_of_one_with_scopes_nested_five_deep_ends() {
    every_runtime_in_a_task(|| async {
        for limit in [1, 2, 5] {
            let (slots, leaves) = (Slots::new(limit), Count::new());
            let whole = scope(async |group: &Group| -> Done {
                let child = tree(slots.clone(), 5, leaves.clone());
                group.limit(&slots).spawn(child).await;
                Ok(())
            });
            whole.await.expect("nobody fails");
            assert_eq!((leaves.get(), slots.free()), (243, limit));
        }
    });
}

#[test]
fn a_budget_made_from_a_number_lends_once_it_is_cloned() {
    paused(async || {
        let (slots, leaves) = (Slots::from(1), Count::new());
        let whole = scope(async |group: &Group| -> Done {
            let child = tree(slots.clone(), 3, leaves.clone());
            group.limit(slots).spawn(child).await;
            Ok(())
        });
        let ended = timeout(ms(1000), whole).await;
        ended.expect("it does not hang").expect("nobody fails");
        assert_eq!(leaves.get(), 27);
    });
}

#[test]
fn a_budget_handed_down_past_children_without_a_slot_is_lent_all_the_same() {
    paused(async || {
        let slots = Slots::new(1);
        let result = scope(async |group: &Group| -> Done {
            let budget = slots.clone();
            let deep = async move {
                let middle = scope(async |middle: &Group| -> Done {
                    let budget = budget.clone();
                    middle.spawn(async move {
                        let inner = scope(async |inner: &Group| -> Done {
                            inner.limit(&budget).spawn(async { Ok(1) }).await;
                            Ok(())
                        });
                        inner.await.map_err(|error| error.to_string())
                    });
                    Ok(())
                });
                middle.await.map_err(|error| error.to_string())
            };
            group.limit(&slots).spawn(deep).await;
            Ok(())
        });
        let ended = timeout(ms(1000), result).await;
        ended.expect("it does not hang").expect("nobody fails");
        assert_eq!(slots.free(), 1);
    });
}

#[test]
fn a_lent_slot_is_lent_to_one_at_a_time() {
    paused(async || {
        let (slots, gauge) = (Slots::new(1), Gauge::default());
        let result = scope(async |group: &Group| -> Done {
            let (budget, gauge) = (slots.clone(), gauge.clone());
            let lender = async move {
                let inner = scope(async |group: &Group| -> Done {
                    let limited = group.limit(&budget);
                    for _ in 0..5 {
                        let gauge = gauge.clone();
                        let child = async move {
                            let _in = gauge.enter();
                            sleep(ms(1)).await;
                        };
                        limited.spawn(child).await;
                    }
                    Ok(())
                });
                inner.await.map_err(|error| error.to_string())
            };
            group.limit(&slots).spawn(lender).await;
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!((gauge.most(), slots.free()), (1, 1));
    });
}

#[test]
fn a_lent_slot_keeps_the_place_of_a_lender_that_has_ended() {
    paused(async || {
        let slots = Slots::new(1);
        let result = scope(async |group: &Group| -> Done {
            let limited = group.limit(&slots);
            let (budget, (tell, told)) = (slots.clone(), oneshot::channel::<()>());
            let lender = async move {
                let slow = OnDrop::new(move || drop(tell));
                // Dropped with its child alive: the lender ends, its child's destructor comes later.
                let inner = scope(async |inner: &Group| -> Done {
                    let child = async move {
                        let _slow = slow;
                        pending::<()>().await;
                    };
                    inner.limit(&budget).spawn(child).await;
                    pending().await
                });
                drop(timeout(ms(5), inner).await);
            };
            let handle = limited.spawn(lender).await;
            assert_eq!(slots.free(), 0);
            handle.await;
            assert!(told.await.is_err(), "the adopted child is gone");
            assert_eq!(slots.free(), 1, "there is one slot, not two");
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

/// Spawns into the group that it is in, and waits for it.
async fn greedy(limited: LimitedSpawner<String>) {
    limited.spawn(async {}).await.await;
}

#[test]
fn a_child_with_a_slot_that_waits_for_another_is_refused_at_once() {
    every_runtime(async || {
        for limit in [1, 8] {
            let run = Scope::new().panics_as_errors().run(async |group: &Group| {
                let limited = group.spawner().limit(limit);
                limited.spawn(greedy(limited.clone())).await;
                Ok(())
            });
            let error = run.await.expect_err("it is refused");
            let panic = error.iter().next().and_then(|failure| failure.panic());
            let text = panic.expect("a panic").to_string();
            assert!(
                text.contains("slots.rs") && text.contains("waits for another one"),
                "{text}"
            );
        }
    });
}

#[test]
fn a_child_with_a_slot_that_spawns_past_the_scope_it_opened_is_refused_at_once() {
    paused(async || {
        let slots = Slots::new(2);
        let run = Scope::new().panics_as_errors().run(async |group: &Group| {
            let outer = group.spawner().limit(&slots);
            let past = outer.clone();
            let child = async move {
                let inner = scope(async |inner: &Group| -> Done {
                    inner.spawn(greedy(past));
                    Ok(())
                });
                inner.await.map_err(|error| error.to_string())
            };
            outer.spawn(child).await;
            Ok(())
        });
        let text = caught(run).await;
        assert!(
            matches!(&text, Err(text) if text.contains("waits for another one"))
                || matches!(&text, Ok(Err(_))),
            "{text:?}"
        );
        assert_eq!(slots.free(), 2);
    });
}

#[test]
fn a_child_with_a_slot_may_try_for_another() {
    paused(async || {
        let result = scope(async |group: &Group| -> Done {
            let limited = group.spawner().limit(2);
            let again = limited.clone();
            let child = async move {
                assert!(again.try_spawn(sleep(ms(5))).is_ok());
                assert!(again.try_spawn(sleep(ms(5))).is_err());
            };
            limited.spawn(child).await;
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn a_number_as_the_limit_is_for_that_group_alone() {
    paused(async || {
        let began = Instant::now();
        let result = scope(async |group: &Group| -> Done {
            let (a, b) = (group.limit(1), group.limit(1));
            a.spawn(sleep(ms(5))).await;
            b.spawn(sleep(ms(5))).await;
            assert_eq!((a.free(), b.free(), a.limit()), (0, 0, 1));
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!(began.elapsed(), ms(5));
    });
}

#[test]
fn a_budget_says_how_many_slots_are_free_at_each_step() {
    paused(async || {
        let slots = Slots::new(3);
        let result = scope(async |group: &Group| -> Done {
            let limited = group.limit(&slots);
            let mut handles = Vec::new();
            for free in [2, 1, 0] {
                handles.push(limited.spawn(pending::<()>()).await);
                assert_eq!((slots.free(), slots.limit()), (free, 3));
            }
            for (free, handle) in handles.into_iter().enumerate() {
                handle.cancel_and_wait().await;
                assert_eq!(slots.free(), free + 1);
            }
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn a_budget_can_be_used_again() {
    every_runtime(async || {
        let slots = Slots::new(2);
        for _ in 0..10 {
            let result = scope(async |group: &Group| -> Done {
                for _ in 0..5 {
                    group.limit(&slots).spawn(yield_now()).await;
                }
                Ok(())
            });
            result.await.expect("nobody fails");
            assert_eq!((slots.free(), slots.limit()), (2, 2));
        }
    });
}

#[test]
fn many_small_users_do_not_starve_anyone_who_waits() {
    paused(async || {
        let result = scope(async |group: &Group| -> Done {
            let limited = group.spawner().limit(1);
            for _ in 0..3 {
                let limited = limited.clone();
                group.spawn_background(async move {
                    loop {
                        limited.spawn(sleep(ms(1))).await;
                    }
                });
            }
            settle().await;
            let began = Instant::now();
            limited.spawn(async {}).await.await;
            assert!(began.elapsed() <= ms(4), "{:?}", began.elapsed());
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn a_blocking_child_holds_its_slot_until_the_call_is_over() {
    single_thread(async || {
        for gives_up in [false, true] {
            let (slots, gauge, begun) = (Slots::new(3), Gauge::default(), Count::new());
            let mut run = Scope::new();
            if gives_up {
                run = run.give_up_blocking_after(Duration::ZERO);
            }
            let result: Result<(), GroupError<String>> = run
                .run(async |group: &Group| {
                    let limited = group.limit(&slots);
                    for _ in 0..6 {
                        let (gauge, begun) = (gauge.clone(), begun.clone());
                        let call = move || {
                            let _in = gauge.enter();
                            begun.add();
                            // The first three are in at the same time.
                            while begun.get() < 3 {
                                std::thread::yield_now();
                            }
                        };
                        limited.spawn_blocking(call).await;
                    }
                    if gives_up {
                        group.cancel();
                    }
                    Ok(())
                })
                .await;
            assert_eq!(result.is_err(), gives_up);
            until(|| slots.free() == 3).await;
            assert_eq!(gauge.most(), 3);
        }
    });
}

#[test]
fn a_wait_for_a_slot_wakes_nobody_in_vain() {
    paused(async || {
        let result = scope(async |group: &Group| -> Done {
            let limited = group.limit(1);
            let held = limited.spawn(pending::<()>()).await;
            let counting = CountingWaker::new();
            let waker = counting.waker();
            let mut cx = Context::from_waker(&waker);
            let mut waits = pin!(limited.spawn(async {}));
            assert!(waits.as_mut().poll(&mut cx).is_pending());
            assert!(limited.try_spawn(async {}).is_err());
            settle().await;
            assert_eq!(counting.wakes(), 0);
            held.cancel_and_wait().await;
            assert_eq!(counting.wakes(), 1);
            waits.await;
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

/// A waker that throws when it is woken.
struct Throws;

impl std::task::Wake for Throws {
    fn wake(self: Arc<Self>) {
        panic!("thrown by a waker");
    }
}

#[test]
fn a_waker_that_throws_costs_nobody_a_slot() {
    paused(async || {
        let result = scope(async |group: &Group| -> Done {
            let limited = group.limit(1);
            let held = limited.spawn(pending::<()>()).await;
            let waker = std::task::Waker::from(Arc::new(Throws));
            let mut first = Box::pin(limited.spawn(async {}));
            let mut cx = Context::from_waker(&waker);
            assert!(first.as_mut().poll(&mut cx).is_pending());
            let mut second = pin!(limited.spawn(async {}));
            assert!(poll!(second.as_mut()).is_pending());
            assert!(held.cancel_and_wait().await.is_cancelled());
            drop(first);
            second.await.await;
            Ok(())
        });
        result
            .await
            .expect("the child that gave its slot back did not panic");
    });
}

#[test]
fn a_limited_scope_is_send() {
    every_runtime_in_a_task(|| async {
        let slots = Slots::new(1);
        let names = [String::from("a"), String::from("b")];
        let result = scope(async |group: &Group| -> Done {
            let limited = group.limit(&slots);
            for name in &names {
                let name = name.clone();
                limited.spawn(async move { drop(name) }).await;
            }
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

/// Writes down the names of the children.
struct Names(Log<String>);

impl Observer for Names {
    fn spawned(&self, task: &TaskInfo) {
        self.0.push(task.name().unwrap_or_default().to_owned());
    }
}

#[test]
fn a_limited_group_has_the_words_of_a_group() {
    paused(async || {
        let names = Log::<String>::new();
        let notes = Arc::new(Names(names.clone()));
        let run = Scope::new().observer(notes);
        let result = run.run(async |group: &Group| -> Done {
            let limited = group.limit(2);
            let first = limited.named("first").spawn(async { Ok(1) }).await;
            assert_eq!(first.await, 1);
            // In the background: what has a slot does not hold the group open.
            limited
                .named("beat")
                .spawn_background(pending::<()>())
                .await;
            limited.spawn_background(pending::<()>()).await;
            assert_eq!(limited.free(), 0);
            let refused = limited.named("more").try_spawn(async {});
            assert!(matches!(refused, Err(TrySpawnError::Full(_))));
            assert_eq!(limited.limit(), 2);
            let anywhere = group.spawner().limit(3);
            assert_eq!((anywhere.limit(), anywhere.free()), (3, 3));
            drop(anywhere.spawn_background(pending::<()>()).await);
            assert_eq!((anywhere.limit(), anywhere.free()), (3, 2));
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!(names.entries(), ["first", "beat", "", ""]);
    });
}

#[test]
fn a_slot_comes_back_when_what_its_child_left_behind_is_gone() {
    paused(async || {
        let result = scope(async |group: &Group| -> Done {
            let limited = group.limit(1);
            let child = limited.spawn(async {
                let inside = scope(async |group: &Group| -> Done {
                    group.spawn(async { shield(ms(100), sleep(ms(50))).await });
                    pending().await
                });
                timeout(ms(10), inside).await.expect_err("it takes longer");
            });
            child.await;
            sleep(ms(20)).await;
            assert_eq!((limited.free(), group.len()), (0, 1));
            let began = Instant::now();
            limited.spawn(async {}).await;
            assert_eq!(began.elapsed(), ms(30));
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn a_try_at_the_limit_of_a_closing_group_says_that_it_is_closing() {
    paused(async || {
        let group = OwnedGroup::<String>::new();
        let limited = group.limit(1);
        limited.spawn(pending::<()>()).await;
        let refused = |limited: &LimitedSpawner<_>| limited.try_spawn(async {}).map(drop);
        assert!(refused(&limited).expect_err("no slot").is_full());
        group.close();
        let error = refused(&limited).expect_err("no slot ever");
        assert!(matches!(error, TrySpawnError::Closing(_)), "{error:?}");
        group.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn a_slot_that_was_lent_comes_back_also_when_the_lender_is_gone_first() {
    for takes in [true, false] {
        single_thread(async || outlived(&Slots::new(1), takes).await);
    }
}

/// Has a slot lent to one who comes for it when its lender is gone, or never.
async fn outlived(slots: &Slots, takes: bool) {
    let result = scope(async |group: &Group| -> Done {
        let (give, view) = oneshot::channel();
        let (go, gone) = oneshot::channel();
        let inside = slots.clone();
        let outer = group.limit(slots);
        let lender = outer.spawn(async move {
            let inner = scope(async |group: &Group| {
                let limited = group.spawner().limit(&inside);
                let lent = limited.spawn(pending::<()>()).await;
                give.send(limited).expect("the body waits");
                gone.await.expect("the body says so");
                lent.cancel();
                Ok(lent.await.is_cancelled())
            });
            inner.await.expect("nobody fails");
        });
        let lender = lender.await;
        let limited: LimitedSpawner<String> = view.await.expect("the child says so");
        let mut late = Box::pin(limited.spawn(async {}));
        assert!(poll!(late.as_mut()).is_pending());
        go.send(()).expect("the child waits");
        lender.await;
        assert_eq!(slots.free(), 0, "it was handed on to who waits for it");
        if takes {
            late.await.await;
        }
        Ok(())
    });
    result.await.expect("nobody fails");
    assert_eq!(slots.free(), 1);
}

#[test]
fn a_budget_keeps_nothing_of_those_who_lent_a_slot_and_are_gone() {
    let most = |rounds: usize| {
        let runtime = current_thread();
        let memory = allocation_counter::measure(|| {
            runtime.block_on(async {
                let slots = Slots::new(1);
                for _ in 0..rounds {
                    outlived(&slots, true).await;
                    let result = scope(async |group: &Group| -> Done {
                        group.limit(&slots).spawn(yield_now()).await.await;
                        Ok(())
                    });
                    result.await.expect("nobody fails");
                }
            });
        });
        memory.bytes_max
    };
    let (few, many) = (most(10), most(1000));
    assert!(many < few + 4096, "{few} and {many} bytes");
}

#[test]
fn a_blocking_child_lends_its_slot_to_scopes_inside() {
    single_thread(async || {
        let slots = Slots::new(1);
        let result = scope(async |group: &Group| -> Done {
            let (limited, inside) = (group.limit(&slots), slots.clone());
            let call = limited.spawn_blocking(move || {
                let inner = scope(async |group: &Group| -> Done {
                    let lent = group.limit(&inside).try_spawn(yield_now());
                    lent.expect("it is lent").await;
                    Ok(())
                });
                tokio::runtime::Handle::current()
                    .block_on(inner)
                    .expect("nobody fails");
            });
            call.await.await;
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!(slots.free(), 1);
    });
}

#[test]
fn blocking_children_take_slots_through_a_spawner_too() {
    single_thread(async || {
        let slots = Slots::new(1);
        let result = scope(async |group: &Group| -> Done {
            let (limited, drops) = (group.spawner().limit(&slots), Drops::new());
            assert_eq!((limited.limit(), limited.free()), (1, 1));
            let free = slots.clone();
            let call = limited.spawn_blocking(move || Ok(free.free())).await;
            assert_eq!((call.await.completed(), slots.free()), (Some(0), 1));
            group.cancel();
            let (a, b) = (drops.guard(), drops.guard());
            let refused = limited.spawn_blocking(move || drop(a)).await;
            assert!(refused.await.is_cancelled());
            let refused = group.limit(&slots).spawn_blocking(move || drop(b)).await;
            assert_eq!((drops.alive(), slots.free()), (0, 1));
            refused.await;
            Ok(())
        });
        assert!(result.await.expect_err("it is cancelled").is_cancelled());
    });
}
