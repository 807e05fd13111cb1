//! Cancel: of one child, of all, of the group; signal, grace, force; reasons.

mod child;
mod grace;
mod reason;
mod straggler;
mod token;

use std::{
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Barrier},
    task::Poll,
    thread,
    time::Duration,
};

use futures::FutureExt;
use ringfence::{
    CancelReason, Cause, Deadline, Displaced, Observer, Outcome, Scope, TaskGroup, TaskId, scope,
    token,
};
use tokio::{
    sync::oneshot,
    task::yield_now,
    time::{Instant, sleep},
};

use crate::support::{
    Count, Drops, Log, OnDrop, PATIENCE, Parked, Watchdog, every_runtime, multi_thread, paused,
    until,
};

/// Longer than any test lasts: a grace that nobody is to see the end of.
const LONG: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("lost {0}")]
struct Lost(u32);

type Group = TaskGroup<Lost>;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What `cancel` and `cancel_with` give as the reason.
fn requested(note: impl Into<Option<&'static str>>, by: Option<TaskId>) -> CancelReason {
    CancelReason::Requested {
        note: note.into().map(Arc::from),
        by,
    }
}

fn parked<T>() -> impl Future<Output = Result<T, Lost>> {
    pending()
}

/// Counts how often a future is polled.
async fn counted<F: Future>(polls: &Count, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        polls.add();
        future.as_mut().poll(cx)
    })
    .await
}

#[test]
fn cancel_drops_children_and_body_where_they_are_parked() {
    every_runtime(async || {
        let (polls, drops, log) = (Count::new(), Drops::new(), Log::new());
        let ended = scope(async |group: &Group| {
            let _guard = drops.guard();
            let (sibling, reached) = (Parked::new(&polls, &drops), log.clone());
            group.spawn(async move {
                sibling.await;
                reached.push("sibling");
            });
            until(|| polls.get() == 1).await;
            let (spawner, guard, reached) = (group.spawner(), drops.guard(), log.clone());
            group.spawn(async move {
                let _guard = guard;
                spawner.cancel(); // before it ever waited
                pending::<()>().await;
                reached.push("canceller");
            });
            parked::<()>().await?;
            log.push("body");
            Ok(())
        });
        assert!(ended.await.unwrap_err().is_cancelled());
        assert_eq!((drops.made(), drops.alive()), (3, 0));
        assert_eq!(log.entries().len(), 0);
    });
}

#[test]
fn a_cancelled_scope_reports_cancelled_with_the_reason() {
    every_runtime(async || {
        let by_body = scope(async |group: &Group| {
            group.cancel();
            parked::<()>().await
        });
        let error = by_body.await.unwrap_err();
        assert_eq!(error.cause(), &Cause::Cancelled(requested(None, None)));
        assert!(error.is_empty());

        let mut id = None;
        let by_child = scope(async |group: &Group| {
            let spawner = group.spawner();
            id = Some(group.spawn(async move { spawner.cancel() }).id());
            parked::<()>().await
        });
        let error = by_child.await.unwrap_err();
        assert_eq!(error.cause(), &Cause::Cancelled(requested(None, id)));
    });
}

#[test]
fn a_cancel_after_the_end_changes_nothing() {
    every_runtime(async || {
        for polls_first in [true, false] {
            let spawners = Log::new();
            let (end, ends) = oneshot::channel::<()>();
            let mut scope = tokio_test::task::spawn(scope(async |group: &Group| {
                spawners.push(group.spawner());
                group.spawn(async { drop(ends.await) });
                Ok(7)
            }));
            assert!(scope.poll().is_pending());
            assert!(end.send(()).is_ok());
            until(|| scope.is_woken()).await;
            // All have ended, and the scope was told, whether it has looked or not.
            let before = polls_first.then(|| scope.poll());
            let spawner = spawners.entries().remove(0);
            spawner.cancel();
            let ended = before.unwrap_or_else(|| scope.poll());
            assert!(matches!(ended, Poll::Ready(Ok(7))));
            assert!(!spawner.is_cancelled());
            assert_eq!(spawner.token().reason(), Some(CancelReason::Closed));
        }
    });

    // At the very end, from another thread: either it came in time, for all to see, or it did nothing.
    let runtime = multi_thread(2);
    let _watchdog = Watchdog::start("multi_thread, 2 workers", PATIENCE);
    for round in 0..500 {
        let (meet, spawners) = (Arc::new(Barrier::new(2)), Log::new());
        let there = meet.clone();
        let ended = runtime.block_on(scope(async |group: &Group| {
            let spawner = group.spawner();
            spawners.push(spawner.clone());
            let stranger = thread::spawn(move || {
                there.wait();
                (0..round).for_each(|_| std::hint::spin_loop());
                spawner.cancel();
            });
            let child = group.spawn(async { Ok(7) });
            meet.wait();
            Ok((stranger, child.await))
        }));
        let was_cancelled = spawners.entries()[0].is_cancelled();
        if let Ok((stranger, value)) = ended {
            assert!(!was_cancelled && value == 7);
            stranger.join().expect("a quiet thread");
            assert!(!spawners.entries()[0].is_cancelled());
        } else {
            assert!(was_cancelled);
        }
    }
}

#[test]
fn a_real_error_after_a_cancel_is_listed() {
    every_runtime(async || {
        let ended = Scope::new().grace(LONG).run(async |group| {
            group.spawn(async {
                token().cancelled().await;
                Err::<(), _>(Lost(1))
            });
            group.cancel();
            Ok(())
        });
        let error = ended.await.unwrap_err();
        assert_eq!(error.cause(), &Cause::Cancelled(requested(None, None)));
        assert_eq!((error.len(), error.first()), (1, Some(&Lost(1))));
    });
}

#[test]
fn a_body_that_cancels_and_never_awaits_again_is_reported_as_cancelled() {
    every_runtime(async || {
        for grace in [Duration::ZERO, LONG] {
            let ended = Scope::new().grace(grace).run(async |group: &Group| {
                group.cancel();
                Ok(7)
            });
            assert!(ended.await.unwrap_err().is_cancelled());
        }
    });
}

#[test]
fn a_section_without_an_await_runs_to_its_end() {
    every_runtime(async || {
        let log = Log::new();
        let ended = scope(async |group: &Group| {
            let (spawner, entries) = (group.spawner(), log.clone());
            let child = group.spawn(async move {
                spawner.cancel();
                entries.push("child");
                std::future::ready(()).await; // never pending: no place to be dropped at
                entries.push("child, still");
                yield_now().await;
                entries.push("reached");
            });
            child.await;
            Ok(())
        });
        assert!(ended.await.unwrap_err().is_cancelled());
        let ended = scope(async |group: &Group| {
            group.cancel();
            log.push("body");
            yield_now().await;
            log.push("reached");
            Ok(())
        });
        assert!(ended.await.unwrap_err().is_cancelled());
        assert_eq!(log.entries(), ["child", "child, still", "body"]);
    });
}

#[test]
fn the_signal_is_level_triggered() {
    every_runtime(async || {
        let mut kept = None;
        let ended = Scope::new().grace(LONG).run(async |group: &Group| {
            let token = group.token();
            kept = Some(token.clone());
            assert!(token.cancelled().now_or_never().is_none());
            group.cancel();
            for _ in 0..3 {
                assert!(token.cancelled().now_or_never().is_some());
                token.cancelled().await;
            }
            group.cancel();
            group.cancel_children();
            assert!(token.is_cancelled() && group.is_cancelled());
            assert!(ringfence::token().cancelled().now_or_never().is_some());
            Ok(())
        });
        assert!(ended.await.is_err());
        assert!(kept.is_some_and(|token| token.is_cancelled()));
    });
}

#[test]
fn of_two_cancelled_scopes_the_outer_one_reports() {
    every_runtime(async || {
        let log = Log::new();
        let first = scope(async |first: &Group| {
            let second = scope(async |second: &Group| {
                let third = scope(async |third: &Group| {
                    third.cancel_with("third");
                    second.cancel_with("second");
                    parked::<()>().await
                });
                drop(third.await);
                yield_now().await;
                log.push("reached");
                Ok(())
            });
            let error = second.await.unwrap_err();
            yield_now().await;
            assert!(!first.is_cancelled() && !token().is_cancelled());
            Ok(error.cause().clone())
        });
        let cause = first.await.unwrap();
        assert_eq!(cause, Cause::Cancelled(requested("second", None)));
        assert_eq!(log.entries().len(), 0);
    });
}

/// Adds up what is displaced.
struct Displacements(Count);

impl Observer for Displacements {
    fn displaced(&self, _: &Displaced) {
        self.0.add();
    }
}

#[test]
fn an_outer_cancel_cuts_the_grace_of_an_inner_group_that_is_closing() {
    // The inner group closes for an error at 0, and its child would need 1000 of its grace; the outer cancel is at 20.
    for (outer_grace, expected) in [(0, 20), (50, 70), (80, 100), (500, 100)] {
        paused(async || {
            let (start, displaced, drops) = (Instant::now(), Count::new(), Drops::new());
            let gone = Log::new();
            let outer = Scope::new()
                .observer(Arc::new(Displacements(displaced.clone())))
                .grace(ms(outer_grace));
            let ended = outer.run(async |outer| {
                let (guard, times) = (drops.guard(), gone.clone());
                outer.spawn(
                    Scope::new()
                        .grace(ms(100))
                        .run(async move |inner: &Group| {
                            inner.spawn(async move {
                                let _guard = guard;
                                let _time = OnDrop::new(move || times.push(start.elapsed()));
                                sleep(ms(1000)).await;
                                Ok(())
                            });
                            Err::<(), _>(Lost(1))
                        })
                        .map(|ended| ended.map_err(|_| Lost(2))),
                );
                sleep(ms(20)).await;
                outer.cancel();
                Ok(())
            });
            let error = ended.await.unwrap_err();
            assert!(error.is_cancelled());
            assert_eq!(gone.entries(), [ms(expected)]);
            assert_eq!((start.elapsed(), drops.alive()), (ms(expected), 0));
            // Either the inner scope came back with its error, or that had nobody to go to but the observer.
            assert_eq!(error.len() + displaced.get(), 1);
        });
    }
}

#[test]
fn the_task_around_a_cancelled_group_is_not_cancelled() {
    every_runtime(async || {
        let deadline = Deadline::after(LONG);
        let outer = Scope::new().deadline(deadline).run(async |outer: &Group| {
            let child = outer.spawn(async move {
                let inner = scope(async |inner: &Group| {
                    inner.cancel();
                    parked::<()>().await
                });
                assert!(inner.await.is_err());
                yield_now().await;
                Ok((token().is_cancelled(), Deadline::current()))
            });
            assert_eq!(child.await, (false, deadline));
            Ok(outer.is_cancelled())
        });
        assert!(!outer.await.unwrap());
    });
}

#[test]
fn locals_of_cancelled_children_are_dropped_before_the_scope_returns() {
    every_runtime(async || {
        let (started, log) = (Count::new(), Log::new());
        let ended = scope(async |group: &Group| {
            let (running, log) = (started.clone(), log.clone());
            group.spawn(async move {
                let _first = log.on_drop("first");
                let _second = log.on_drop("second");
                let _third = log.on_drop("third");
                running.add();
                pending::<()>().await;
            });
            until(|| started.get() > 0).await;
            group.cancel();
            Ok(())
        });
        assert!(ended.await.is_err());
        assert_eq!(log.entries(), ["third", "second", "first"]);
    });
}

type Tree = Pin<Box<dyn Future<Output = Result<(), Lost>> + Send>>;

/// A scope in each child of a scope, with `leaf` at the ends.
fn tree<F>(depth: u32, leaf: impl Fn() -> F + Clone + Send + 'static) -> Tree
where
    F: Future<Output = ()> + Send,
{
    Box::pin(async move {
        if depth == 0 {
            leaf().await;
            return Ok(());
        }
        scope(async move |group: &Group| {
            group.spawn(tree(depth - 1, leaf.clone()));
            group.spawn(tree(depth - 1, leaf)).await;
            Ok(())
        })
        .await
        .map_err(|_| Lost(depth))
    })
}

#[test]
fn a_cancel_reaches_every_depth() {
    every_runtime(async || {
        let (started, steps, drops) = (Count::new(), Count::new(), Drops::new());
        let ended = scope(async |group: &Group| {
            let (running, steps, drops) = (started.clone(), steps.clone(), drops.clone());
            group.spawn(tree(3, move || {
                let (running, steps, guard) = (running.clone(), steps.clone(), drops.guard());
                async move {
                    let _guard = guard;
                    running.add();
                    loop {
                        yield_now().await;
                        steps.add();
                    }
                }
            }));
            until(|| started.get() == 8).await;
            group.cancel();
            Ok(())
        });
        assert!(ended.await.is_err());
        let at_return = steps.get();
        yield_now().await;
        assert_eq!((drops.made(), drops.alive()), (8, 0));
        assert_eq!(steps.get(), at_return);
    });
}

#[test]
fn a_signal_reaches_every_depth() {
    every_runtime(async || {
        for way in ["group", "children", "handle"] {
            let (waiting, heard) = (Count::new(), Count::new());
            let expected = move || match way {
                "group" => requested(None, None),
                "children" => CancelReason::ChildrenCancelled,
                _ => CancelReason::Handle,
            };
            let ended = Scope::new().grace(LONG).run(async |group: &Group| {
                let (running, hearing) = (waiting.clone(), heard.clone());
                let top = group.spawn(tree(3, move || {
                    let (running, hearing) = (running.clone(), hearing.clone());
                    async move {
                        running.add();
                        token().cancelled().await;
                        let reason = token().reason();
                        assert_eq!(reason, Some(expected()), "{way}");
                        hearing.add();
                    }
                }));
                until(|| waiting.get() == 8).await;
                match way {
                    "group" => group.cancel(),
                    "children" => group.cancel_children(),
                    _ => top.cancel(),
                }
                assert_eq!(top.outcome().await, Outcome::Completed(()));
                Ok(())
            });
            assert_eq!(ended.await.is_err(), way == "group");
            assert_eq!(heard.get(), 8, "{way}");
        }
    });
}

#[test]
fn a_cancelled_group_with_ended_children_does_not_spin() {
    paused(async || {
        let (scope_polls, child_polls) = (Count::new(), Count::new());
        let polls = child_polls.clone();
        let ended = counted(
            &scope_polls,
            Scope::new().grace(LONG).run(async |group: &Group| {
                group.spawn(async {}).await;
                group.spawn(async { token().cancelled().await });
                group.spawn(async move {
                    counted(&polls, async {
                        token().cancelled().await;
                        sleep(ms(1000)).await; // slow to go
                    })
                    .await;
                });
                yield_now().await;
                group.cancel();
                Ok(())
            }),
        );
        assert!(ended.await.is_err());
        // The start, the first child's end, the yield, the signal, the end: a wake more may come, but no stream of them.
        assert!(scope_polls.get() <= 6, "{}", scope_polls.get());
        assert_eq!(child_polls.get(), 3);
    });
}
