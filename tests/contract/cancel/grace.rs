//! Cancel in two rungs: what the grace gives, and to whom, to the millisecond.

use std::{future::pending, sync::Arc, time::Duration};

use futures::FutureExt;
use ringfence::{CancelReason, Deadline, Observer, Outcome, Scope, Straggler, TaskInfo, token};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use super::{Group, Lost, ms, parked, requested};
use crate::support::{Drops, Log, OnDrop, every_runtime, paused};

/// Writes down when a future was dropped, counted from `start`.
fn timed(log: &Log<(&'static str, Duration)>, name: &'static str) -> impl Drop + use<> {
    let (log, start) = (log.clone(), Instant::now());
    OnDrop::new(move || log.push((name, start.elapsed())))
}

#[test]
fn with_a_grace_the_signal_comes_first() {
    paused(async || {
        let (start, drops) = (Instant::now(), Drops::new());
        let ended = Scope::new().grace(ms(100)).run(async |group: &Group| {
            let (guards, token) = ([drops.guard(), drops.guard()], group.token());
            let [ignoring, finishing] = guards;
            group.spawn(async move {
                let _guard = ignoring;
                pending::<()>().await;
            });
            let finishing = group.spawn(async move {
                let _guard = finishing;
                sleep(ms(50)).await;
            });
            yield_now().await;
            group.cancel();
            assert!(token.cancelled().now_or_never().is_some());
            assert_eq!(finishing.outcome().await, Outcome::Completed(()));
            sleep(ms(49)).await;
            assert_eq!((start.elapsed(), drops.alive()), (ms(99), 1));
            Ok(())
        });
        assert!(ended.await.unwrap_err().is_cancelled());
        assert_eq!((start.elapsed(), drops.alive()), (ms(100), 0));
    });
}

#[test]
fn a_value_returned_within_the_grace_is_kept() {
    every_runtime(async || {
        let mut outcomes = Vec::new();
        let ended = Scope::new().grace(super::LONG).run(async |group: &Group| {
            let child = group.spawn(async {
                token().cancelled().await;
                Ok(7)
            });
            let alone = group.spawn(async {
                token().cancelled().await;
                Ok(8)
            });
            outcomes.push(alone.cancel_and_wait().await);
            group.cancel();
            outcomes.push(child.outcome().await);
            Ok(())
        });
        assert!(ended.await.unwrap_err().is_empty());
        assert_eq!(outcomes, [Outcome::Completed(8), Outcome::Completed(7)]);
    });
}

#[test]
fn what_ignores_the_signal_is_dropped_when_the_grace_ends() {
    // Each in its own time: one child asked at 10, those present asked at 20, the group at 45.
    paused(async || {
        let (start, log) = (Instant::now(), Log::new());
        let ended = Scope::new().grace(ms(100)).run(async |group: &Group| {
            let _body = timed(&log, "body");
            let spawn = |name| {
                let guard = timed(&log, name);
                group.spawn(async move {
                    let _guard = guard;
                    parked::<()>().await
                })
            };
            let (alone, _present) = (spawn("alone"), spawn("present"));
            sleep(ms(10)).await;
            alone.cancel();
            sleep(ms(10)).await;
            group.cancel_children();
            let _later = spawn("later, at 20");
            sleep(ms(25)).await;
            group.cancel();
            parked().await
        });
        let error = ended.map(|ended: Result<(), _>| ended.unwrap_err()).await;
        assert!(error.is_cancelled());
        let mut log = log.entries();
        log.sort_by_key(|(name, after)| (*after, *name));
        let expected = [
            ("alone", 110),
            ("present", 120),
            ("later, at 20", 125),
            ("body", 145),
        ];
        assert_eq!(log, expected.map(|(name, after)| (name, ms(after))));
        let forced = error.forced();
        assert_eq!((start.elapsed(), forced.len()), (ms(145), 4));
        assert!(forced.iter().any(|one| one.task.is_none()), "the body");
    });

    // Asked by a sibling: the body sleeps meanwhile.
    paused(async || {
        let start = Instant::now();
        let ended = Scope::new().grace(ms(100)).run(async |group: &Group| {
            let deaf = group.spawn(parked::<()>()).detached();
            group.spawn(async move {
                sleep(ms(7)).await;
                deaf.cancel_and_wait().await;
                assert_eq!(start.elapsed(), ms(107));
            });
            sleep(ms(500)).await;
            Ok(())
        });
        ended.await.expect("one child was cancelled alone");
    });

    // A child asked alone after its group was goes with the group.
    paused(async || {
        let start = Instant::now();
        let ended = Scope::new().grace(ms(100)).run(async |group: &Group| {
            let child = group.spawn(parked::<()>());
            yield_now().await;
            group.cancel();
            sleep(ms(60)).await;
            child.cancel();
            drop(child.outcome().await);
            parked::<()>().await
        });
        assert!(ended.await.is_err());
        assert_eq!(start.elapsed(), ms(100));
    });

    // The wait for the end of the grace starts with the cancel, from wherever it comes: a child at 7, the deadline at 30.
    for (cancels, expected) in [(true, 107), (false, 130)] {
        paused(async || {
            let start = Instant::now();
            let made = Scope::new().grace(ms(100));
            let ended = made
                .deadline(Deadline::after(ms(30)))
                .run(async |group: &Group| {
                    let spawner = group.spawner();
                    group.spawn(async move {
                        sleep(ms(7)).await;
                        if cancels {
                            spawner.cancel();
                        }
                        sleep(ms(1000)).await;
                    });
                    Ok(())
                });
            assert_eq!(ended.await.unwrap_err().is_deadline_exceeded(), !cancels);
            assert_eq!(start.elapsed(), ms(expected));
        });
    }
}

#[test]
fn the_scope_returns_as_soon_as_the_last_child_has_obeyed() {
    paused(async || {
        let start = Instant::now();
        let ended = Scope::new().grace(ms(100)).run(async |group: &Group| {
            for after in [10, 30, 20] {
                group.spawn(async move {
                    token().cancelled().await;
                    sleep(ms(after)).await;
                });
            }
            sleep(ms(5)).await;
            group.cancel();
            Ok(())
        });
        let error = ended.await.unwrap_err();
        assert_eq!((start.elapsed(), error.forced().len()), (ms(35), 0));
    });
}

struct Forced(Log<Straggler>);

impl Observer for Forced {
    fn forced(&self, straggler: &Straggler) {
        self.0.push(straggler.clone());
    }
}

#[test]
fn the_report_names_who_needed_force() {
    paused(async || {
        let (log, mut line) = (Log::new(), 0);
        let scope = Scope::new().observer(Arc::new(Forced(log.clone())));
        let ended = scope.grace(ms(100)).run(async |group: &Group| {
            sleep(ms(3)).await;
            let slow = group.named("slow");
            line = line!() + 1;
            slow.spawn(parked::<()>());
            group.spawn(async { token().cancelled().await });
            sleep(ms(20)).await;
            group.cancel_with("enough");
            Ok(())
        });
        let error = ended.await.unwrap_err();
        let told = log.entries();
        for forced in [error.forced(), &told] {
            let [slow] = forced else {
                panic!("one was slow, not {forced:?}");
            };
            let task: &TaskInfo = slow.task.as_ref().expect("a child");
            assert_eq!((task.name(), task.location().line()), (Some("slow"), line));
            assert_eq!(slow.reason, requested("enough", None));
            assert_eq!(slow.age, Some(ms(120)));
        }
        assert!(
            error.to_string().ends_with("(1 had to be forced)"),
            "{error:?}"
        );
    });
}

#[test]
fn a_failure_gives_the_siblings_the_grace_too() {
    paused(async || {
        let (start, log) = (Instant::now(), Log::new());
        let ended = Scope::new().grace(ms(100)).run(async |group| {
            for (name, after) in [("obeys", 40), ("too slow", 1000)] {
                let guard = timed(&log, name);
                group.spawn(async move {
                    let _guard = guard;
                    token().cancelled().await;
                    sleep(ms(after)).await;
                });
            }
            let failing = group.spawn(async {
                sleep(ms(5)).await;
                Err::<(), _>(Lost(1))
            });
            failing.outcome().await;
            let _body = timed(&log, "body, from 5");
            parked::<()>().await
        });
        let error = ended.await.unwrap_err();
        assert_eq!((error.len(), start.elapsed()), (1, ms(105)));
        let mut log = log.entries();
        log.sort_by_key(|(name, after)| (*after, *name));
        let expected = [("obeys", 45), ("body, from 5", 100), ("too slow", 105)];
        assert_eq!(log, expected.map(|(name, after)| (name, ms(after))));
        assert!(matches!(error.forced()[0].reason, CancelReason::Failed(_)));
    });
}
