//! Failure: what comes out of a scope, and who is cancelled by it.

mod report;

use std::{
    fmt::Debug,
    future::pending,
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use ringfence::{CancelReason, Cause, GroupError, Scope, SpawnError, TaskGroup, scope, token};
use tokio::{task::yield_now, time::sleep};

use crate::support::{
    Count, Drops, Log, OnDrop, PATIENCE, Parked, Watchdog, every_runtime, multi_thread, paused,
    until,
};

/// Longer than any test lasts: a grace that nobody is to see the end of.
const LONG: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("lost {0}")]
struct Lost(u32);

type Text = &'static str;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn errors<E: Copy>(error: &GroupError<E>) -> Vec<E> {
    error
        .iter()
        .filter_map(|one| one.error().copied())
        .collect()
}

/// Blocks the thread, not the task.
fn spin(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

/// Waits on a child's way out, then fails.
async fn fail_in_cleanup(after: Duration, error: Text) -> Result<(), Text> {
    token().cancelled().await;
    if !after.is_zero() {
        sleep(after).await;
    }
    Err(error)
}

#[test]
fn the_first_failure_cancels_the_siblings() {
    every_runtime(async || {
        let (polls, drops, log) = (Count::new(), Drops::new(), Log::new());
        let error = scope(async |group| {
            let (parked, log) = (Parked::new(&polls, &drops), log.clone());
            group.spawn(async move {
                parked.await;
                log.push("reached");
            });
            until(|| polls.get() > 0).await;
            group.spawn(async { Err::<(), Text>("lost") });
            pending::<Result<(), Text>>().await
        })
        .await
        .unwrap_err();
        assert_eq!(errors(&error), ["lost"]);
        assert_eq!((drops.alive(), log.entries().len()), (0, 0));
    });
}

#[test]
fn the_first_failure_drops_the_body_where_it_is_parked() {
    every_runtime(async || {
        let log = Log::new();
        let error = scope(async |group| {
            let _guard = log.on_drop("dropped");
            group.spawn(async { Err::<(), Text>("lost") });
            sleep(LONG).await;
            log.push("reached");
            Ok(())
        })
        .await
        .unwrap_err();
        assert_eq!(errors(&error), ["lost"]);
        assert_eq!(log.entries(), ["dropped"]);
    });
}

#[test]
fn no_sibling_is_alive_when_the_error_returns() {
    every_runtime(async || {
        let (started, gone) = (Count::new(), Count::new());
        let error = scope(async |group| {
            for _ in 0..8 {
                let (started, gone) = (started.clone(), gone.clone());
                group.spawn(async move {
                    let _slow = OnDrop::new(move || {
                        (0..500).for_each(|_| thread::yield_now());
                        gone.add();
                    });
                    started.add();
                    pending::<()>().await;
                });
            }
            until(|| started.get() == 8).await;
            Err::<(), _>("lost")
        })
        .await
        .unwrap_err();
        assert_eq!((gone.get(), error.len()), (8, 1));
    });
}

#[test]
fn failures_of_the_same_instant_are_all_listed() {
    for _ in 0..50 {
        let _watchdog = Watchdog::start("multi_thread, 4 workers", PATIENCE);
        let error = multi_thread(4).block_on(async {
            let meet = Arc::new(Barrier::new(4));
            scope(async |group| {
                for error in ["a", "b", "c"] {
                    let meet = meet.clone();
                    group.spawn(async move {
                        meet.wait(); // each on a worker of its own
                        Err::<(), _>(error)
                    });
                }
                meet.wait();
                Err::<(), _>("body")
            })
            .await
            .unwrap_err()
        });
        let mut by_reference = errors(&error);
        let mut by_value: Vec<_> = error
            .into_iter()
            .filter_map(|one| match one.into_kind() {
                ringfence::FailureKind::Error(error) => Some(error),
                _ => None,
            })
            .collect();
        assert_eq!(by_reference, by_value);
        by_reference.sort_unstable();
        by_value.sort_unstable();
        assert_eq!(by_value, ["a", "b", "body", "c"]);
    }
}

#[test]
fn a_looping_child_is_dropped_exactly_once() {
    every_runtime(async || {
        let (turns, drops, log) = (Count::new(), Drops::new(), Log::new());
        let error = scope(async |group| {
            let (turns_of_child, guard, stopped) =
                (turns.clone(), drops.guard(), log.on_drop("stopped"));
            group.spawn(async move {
                let _kept = (guard, stopped);
                loop {
                    turns_of_child.add();
                    yield_now().await;
                }
            });
            until(|| turns.get() > 3).await;
            Err::<(), _>("lost")
        })
        .await
        .unwrap_err();
        let turns_at_return = turns.get();
        yield_now().await;
        assert_eq!(turns.get(), turns_at_return);
        assert_eq!((drops.made(), drops.dropped(), error.len()), (1, 1, 1));
        assert_eq!(log.entries(), ["stopped"]);
    });
}

#[test]
fn a_body_error_cancels_and_awaits_all_children() {
    every_runtime(async || {
        for awaits_first in [true, false] {
            let (polls, drops) = (Count::new(), Drops::new());
            let error = scope(async |group| {
                for _ in 0..3 {
                    group.spawn(Parked::new(&polls, &drops));
                }
                if awaits_first {
                    until(|| polls.get() == 3).await;
                }
                Err::<(), _>("body")
            })
            .await
            .unwrap_err();
            assert_eq!((drops.made(), drops.alive()), (3, 0));
            assert_eq!(errors(&error), ["body"]);
        }
    });
}

#[test]
fn a_body_error_and_a_child_error_are_both_listed() {
    every_runtime(async || {
        let error = Scope::new()
            .grace(LONG)
            .run(async |group| {
                let child = group.spawn(async { Err::<(), _>("child") }).id();
                group.token().cancelled().await;
                assert_eq!(group.token().reason(), Some(CancelReason::Failed(child)));
                Err::<(), _>("body")
            })
            .await
            .unwrap_err();
        assert_eq!(errors(&error), ["child", "body"]);
        let has_task: Vec<_> = error.iter().map(|one| one.task().is_some()).collect();
        assert_eq!(has_task, [true, false]);
    });
}

#[test]
fn the_order_of_body_and_child_errors_is_the_order_of_failure() {
    let runtime = multi_thread(2);
    let _watchdog = Watchdog::start("multi_thread, 2 workers", PATIENCE);
    for _ in 0..300 {
        let child_first = runtime.block_on(scope(async |group| {
            group.spawn(async { Err::<(), _>("child") });
            spin(|| group.is_cancelled());
            Err::<(), _>("body")
        }));
        assert_eq!(errors(&child_first.unwrap_err()), ["child", "body"]);

        let started = Count::new();
        let body_first = runtime.block_on(scope(async |group| {
            let (spawner, running) = (group.spawner(), started.clone());
            group.spawn(async move {
                running.add();
                spin(|| spawner.is_cancelled());
                Err::<(), _>("child")
            });
            spin(|| started.get() > 0);
            Err::<(), _>("body")
        }));
        assert_eq!(errors(&body_first.unwrap_err()), ["body", "child"]);
    }
}

#[test]
fn an_error_of_the_last_child_after_the_body_is_done_is_not_lost() {
    every_runtime(async || {
        let body = Drops::new();
        let error = scope(async |group| {
            let (_guard, body) = (body.guard(), body.clone());
            group.spawn(async move {
                until(|| body.alive() == 0).await;
                Err::<(), _>("late")
            });
            Ok(())
        })
        .await
        .unwrap_err();
        assert_eq!(
            (errors(&error), error.cause()),
            (vec!["late"], &Cause::Failed)
        );
    });

    // The same instant: both are let go by one barrier, with nothing left to do but to end.
    let runtime = multi_thread(2);
    let _watchdog = Watchdog::start("multi_thread, 2 workers", PATIENCE);
    for _ in 0..500 {
        let meet = Arc::new(Barrier::new(2));
        let ended = runtime.block_on(scope(async |group| {
            let there = meet.clone();
            group.spawn(async move {
                there.wait();
                Err::<(), _>("late")
            });
            meet.wait();
            Ok(())
        }));
        assert_eq!(errors(&ended.unwrap_err()), ["late"]);
    }
}

#[test]
fn an_error_returned_within_the_grace_joins_the_list() {
    every_runtime(async || {
        let error = Scope::new()
            .grace(LONG)
            .run(async |group| {
                group.spawn(fail_in_cleanup(Duration::ZERO, "cleanup"));
                group.spawn(async { Err::<(), _>("first") });
                pending_until_cancelled().await
            })
            .await
            .unwrap_err();
        assert_eq!(errors(&error), ["first", "cleanup"]);
    });
}

async fn pending_until_cancelled() -> Result<(), Text> {
    token().cancelled().await;
    Ok(())
}

#[test]
fn an_outer_failure_cancels_an_inner_scope_without_an_entry_for_it() {
    every_runtime(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        let error = scope(async |outer| {
            let parked = Parked::new(&polls, &drops);
            outer.spawn(async move {
                scope(async |inner| {
                    inner.spawn(parked);
                    pending::<Result<(), Lost>>().await
                })
                .await
                .map_err(|_| Lost(2))
            });
            until(|| polls.get() > 0).await;
            outer.spawn(async { Err::<(), _>(Lost(1)) });
            pending::<Result<(), Lost>>().await
        })
        .await
        .unwrap_err();
        assert_eq!((errors(&error), drops.alive()), (vec![Lost(1)], 0));
    });
}

#[test]
fn an_inner_error_travels_inside_the_inner_group_error() {
    every_runtime(async || {
        let error = scope(async |outer: &TaskGroup| {
            outer.spawn(async {
                scope(async |inner| {
                    inner.spawn(async { Err::<(), _>(Lost(1)) });
                    Ok(())
                })
                .await?;
                Ok(())
            });
            Ok(())
        })
        .await
        .unwrap_err();
        assert_eq!(error.len(), 1);
        let inner = error
            .first()
            .and_then(|one| one.downcast_ref::<GroupError<Lost>>());
        assert_eq!(inner.and_then(GroupError::first), Some(&Lost(1)));
    });
}

#[test]
fn an_outer_error_and_an_inner_group_error_are_two_entries() {
    every_runtime(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        let error = Scope::new()
            .grace(LONG)
            .run(async |outer: &TaskGroup| {
                let parked = Parked::new(&polls, &drops);
                outer.spawn(async move {
                    scope(async |inner| {
                        inner.spawn(parked); // cancelled by the inner failure: no entry
                        token().cancelled().await;
                        Err::<(), _>(Lost(2))
                    })
                    .await?;
                    Ok(())
                });
                until(|| polls.get() > 0).await;
                Err::<(), _>(Lost(1).into())
            })
            .await
            .unwrap_err();
        let found: Vec<_> = error.iter().filter_map(|one| one.error()).collect();
        assert_eq!((found.len(), drops.alive()), (2, 0));
        assert_eq!(found[0].downcast_ref(), Some(&Lost(1)));
        let inner = found[1]
            .downcast_ref::<GroupError<Lost>>()
            .expect("the inner one");
        assert_eq!((inner.len(), inner.first()), (1, Some(&Lost(2))));
    });
}

#[test]
fn a_handled_group_error_leaves_no_cancel_behind() {
    async fn lives_on() -> Result<u32, Lost> {
        for cancels in [true, false] {
            let handled = scope(async |group| {
                group.spawn(pending::<()>());
                if cancels {
                    group.cancel();
                }
                Err::<(), _>(Lost(1))
            })
            .await;
            assert!(handled.is_err());
            assert!(!token().is_cancelled());
            yield_now().await;
        }
        let again = scope(async |group| Ok(group.spawn(async { Ok(7) }).await)).await;
        again.map_err(|_: GroupError<Lost>| Lost(2))
    }
    every_runtime(async || {
        assert_eq!(lives_on().await, Ok(7));
        let both = scope(async |group| {
            let child = group.spawn(lives_on());
            let own = lives_on().await?;
            Ok(own + child.await + group.spawn(async { Ok(1) }).await)
        });
        assert_eq!(both.await.unwrap(), 15);
    });
}

#[test]
fn a_child_that_fails_before_spawn_returns_cancels_its_siblings() {
    for workers in [1, 2, 4] {
        let runtime = multi_thread(workers);
        let _watchdog = Watchdog::start("multi_thread", PATIENCE);
        for _ in 0..100 {
            let (polls, drops) = (Count::new(), Drops::new());
            let ended = runtime.block_on(scope(async |group| {
                group.spawn(Parked::new(&polls, &drops));
                let failed = group.spawn(async { Err::<(), _>("early") }).id();
                let refused = loop {
                    // No await in between: only another worker can have run the child.
                    match group.try_spawn(Parked::new(&polls, &drops)) {
                        Ok(_) => thread::yield_now(),
                        Err(refused) => break refused,
                    }
                };
                assert_eq!(refused.reason(), &CancelReason::Failed(failed));
                drop(SpawnError::into_inner(refused));
                group.spawn(Parked::new(&polls, &drops));
                pending::<Result<(), Text>>().await
            }));
            assert_eq!(errors(&ended.unwrap_err()), ["early"]);
            assert_eq!(drops.alive(), 0);
        }
    }
}

#[test]
fn errors_are_listed_in_the_order_of_failure() {
    paused(async || {
        let error = Scope::new()
            .grace(ms(100))
            .run(async |group| {
                for (after, error) in [(30, "third"), (10, "first"), (20, "second")] {
                    group.spawn(fail_in_cleanup(ms(after), error));
                }
                sleep(ms(5)).await;
                Err::<(), _>("cause")
            })
            .await
            .unwrap_err();
        assert_eq!(errors(&error), ["cause", "first", "second", "third"]);
    });
}

#[test]
fn cancelled_siblings_add_no_entry() {
    every_runtime(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        let error = scope(async |group| {
            for _ in 0..100 {
                group.spawn(Parked::new(&polls, &drops));
            }
            until(|| polls.get() == 100).await;
            group.spawn(async { Err::<(), _>("cause") }).await;
            Ok(())
        })
        .await
        .unwrap_err();
        assert_eq!((error.len(), drops.alive()), (1, 0));
    });
}

#[test]
fn a_child_that_handles_its_own_error_leaves_the_group_running() {
    every_runtime(async || {
        let sum = scope(async |group| {
            let handles = group.spawn(async { Ok::<_, Text>("no number".parse().unwrap_or(1)) });
            let sibling = group.spawn(async {
                yield_now().await;
                Ok(2)
            });
            Ok(handles.await + sibling.await)
        });
        assert_eq!(sum.await.unwrap(), 3);
    });
}

#[test]
fn an_inner_error_caught_at_the_inner_boundary_leaves_the_outer_scope_running() {
    async fn caught() -> Result<u32, Lost> {
        let inner = scope(async |group| {
            group.spawn(async { Err::<(), _>(Lost(1)) });
            pending::<Result<u32, _>>().await
        });
        Ok(inner.await.unwrap_or(1))
    }
    every_runtime(async || {
        let sum = scope(async |outer| {
            let child = outer.spawn(caught());
            let own = caught().await?;
            let sum = own + child.await;
            assert!(!outer.is_cancelled());
            Ok(sum + outer.spawn(async { Ok(1) }).await)
        });
        assert_eq!(sum.await.unwrap(), 3);
    });
}

#[test]
fn either_of_two_awaited_children_may_fail_first() {
    every_runtime(async || {
        for first_fails in [true, false] {
            let (polls, drops, log) = (Count::new(), Drops::new(), Log::new());
            let error = scope(async |group| {
                let child = |fails: bool| {
                    let (parked, polls) = (Parked::new(&polls, &drops), polls.clone());
                    async move {
                        if fails {
                            until(|| polls.get() > 0).await;
                            return Err("lost");
                        }
                        parked.await;
                        Ok(())
                    }
                };
                let first = group.spawn(child(first_fails));
                let second = group.spawn(child(!first_fails));
                let _guard = log.on_drop("body");
                first.await;
                second.await;
                log.push("reached");
                Ok(())
            })
            .await
            .unwrap_err();
            assert_eq!((errors(&error), drops.alive()), (vec!["lost"], 0));
            assert_eq!(log.entries(), ["body"]);
        }
    });
}
