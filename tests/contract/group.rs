//! Group: spawning and waiting, spawners, background children, closed groups.

use std::{
    future::{pending, poll_fn},
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use ringfence::{
    CancelReason, GroupError, Outcome, Scope, Spawner, TaskGroup, TaskId, scope, snapshot, token,
};
use tokio::{sync::Notify, task::yield_now};

use crate::support::{
    self, Count, Drops, Log, every_runtime, every_runtime_in_a_task, multi_thread, single_thread,
    until,
};

/// An error that is easy to write.
pub(crate) type Text = &'static str;

/// Gives up its turn so many times.
pub(crate) async fn turns(count: usize) {
    for _ in 0..count {
        yield_now().await;
    }
}

/// The first failure and the number of failures.
pub(crate) fn failures<T>(result: Result<T, GroupError<Text>>) -> Vec<Text> {
    let error = result.err().expect("the scope should have failed");
    error
        .iter()
        .filter_map(|failure| failure.error().copied())
        .collect()
}

#[test]
fn a_scope_returns_only_after_every_child_has_ended() {
    every_runtime(async || {
        let (ended, drops) = (Count::new(), Drops::new());
        let done = scope(async |group: &TaskGroup| {
            for count in 0..20 {
                let (ended, guard) = (ended.clone(), drops.guard());
                group.spawn(async move {
                    let _guard = guard;
                    turns(count).await;
                    ended.add();
                });
            }
            Ok(())
        })
        .await;
        assert!(done.is_ok());
        assert_eq!((ended.get(), drops.dropped()), (20, 20));
    });
}

#[test]
fn each_handle_yields_the_result_of_its_own_child() {
    every_runtime(async || {
        let values = scope(async |group: &TaskGroup| {
            let last_first = |n: usize| {
                group.spawn(async move {
                    turns(16 - n).await;
                    Ok(n)
                })
            };
            Ok(join_all((0..16).map(last_first)).await)
        })
        .await
        .expect("nothing failed");
        assert_eq!(values, (0..16).collect::<Vec<_>>());
    });
}

#[test]
fn the_scope_yields_the_value_of_the_body() {
    every_runtime(async || {
        let log = Log::new();
        let value = scope(async |group: &TaskGroup| {
            let child = log.clone();
            group.spawn(async move {
                turns(5).await;
                child.push("child");
            });
            Ok("value")
        })
        .await
        .expect("nothing failed");
        log.push(value);
        assert_eq!(log.entries(), ["child", "value"]);
    });
}

#[test]
fn a_child_spawned_after_an_await_of_the_body_is_waited_for() {
    every_runtime(async || {
        let both = scope(async |group: &TaskGroup| {
            let first = group.spawn(async { Ok(1) });
            turns(3).await;
            let second = group.spawn(async { Ok(2) });
            Ok((first.await, second.await))
        })
        .await
        .expect("nothing failed");
        assert_eq!(both, (1, 2));
    });
}

#[test]
fn an_empty_scope_succeeds_at_once() {
    every_runtime(async || {
        let value = scope(async |_: &TaskGroup| Ok(7)).now_or_never();
        assert_eq!(value.expect("ready at the first poll").ok(), Some(7));
    });
}

/// Yields as a queue does: tokio's own `yield_now` keeps no order among those who yield.
async fn to_the_end_of_the_line() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn looping_children_take_turns() {
    single_thread(async || {
        let log = Log::new();
        let done = scope(async |group: &TaskGroup| {
            for name in ["a", "b"] {
                let log = log.clone();
                group.spawn(async move {
                    for _ in 0..4 {
                        log.push(name);
                        to_the_end_of_the_line().await;
                    }
                });
            }
            Ok(())
        })
        .await;
        assert!(done.is_ok());
        assert_eq!(log.entries(), ["a", "b", "a", "b", "a", "b", "a", "b"]);
    });
}

#[test]
fn a_child_can_spawn_siblings_while_the_body_already_waits() {
    every_runtime(async || {
        let (count, body_ended) = (Count::new(), Arc::new(Notify::new()));
        let done = scope(async |group: &TaskGroup| {
            let (spawner, count, ended) = (group.spawner(), count.clone(), body_ended.clone());
            group.spawn(async move {
                ended.notified().await;
                for _ in 0..10 {
                    let count = count.clone();
                    spawner.spawn(async move {
                        turns(3).await;
                        count.add();
                    });
                }
            });
            body_ended.notify_one();
            Ok(())
        })
        .await;
        assert!(done.is_ok());
        assert_eq!(count.get(), 10);
    });
}

/// A child that makes two of its own kind, and they two each, until the group refuses.
fn breed(spawner: Spawner<Text>, born: Count, refused: Count) -> BoxFuture<'static, ()> {
    async move {
        born.add();
        yield_now().await;
        for _ in 0..2 {
            let child = breed(spawner.clone(), born.clone(), refused.clone());
            if spawner.try_spawn(child).is_err() {
                refused.add();
            }
        }
    }
    .boxed()
}

#[test]
fn children_that_spawn_without_end_stop_when_a_sibling_fails() {
    every_runtime(async || {
        let (born, refused) = (Count::new(), Count::new());
        let mut kept = None;
        let result = scope(async |group| {
            let spawner = kept.insert(group.spawner()).clone();
            group.spawn(breed(spawner, born.clone(), refused.clone()));
            until(|| born.get() >= 10).await;
            group.spawn(async { Err::<(), _>("enough") });
            pending::<Result<(), Text>>().await
        })
        .await;
        assert_eq!(failures(result), ["enough"]);
        let spawner = kept.expect("the body ran");
        let late = breed(spawner.clone(), born.clone(), refused.clone());
        assert!(spawner.try_spawn(late).is_err(), "later spawns are refused");
        let so_far = born.get();
        support::settle().await;
        assert_eq!(born.get(), so_far, "nobody is left to spawn");
    });
}

#[test]
fn a_quarter_million_nested_spawns_each_run_once() {
    let _watchdog = support::Watchdog::start("multi_thread, 4 workers", support::PATIENCE);
    let count = Count::new();
    multi_thread(4).block_on(async {
        let done = scope(async |group: &TaskGroup| {
            for _ in 0..256 {
                let (spawner, count) = (group.spawner(), count.clone());
                group.spawn(async move {
                    for _ in 0..1024 {
                        let count = count.clone();
                        spawner.spawn(async move {
                            count.add();
                        });
                    }
                });
            }
            Ok(())
        })
        .await;
        assert!(done.is_ok());
        assert_eq!(count.get(), 256 * 1024, "before the scope came back");
    });
    assert_eq!(count.get(), 256 * 1024, "and no more after");
}

#[test]
fn a_child_of_an_inner_scope_can_be_spawned_into_the_outer_one() {
    every_runtime(async || {
        let (release, ended) = (Arc::new(Notify::new()), Count::new());
        let done = scope(async |outer: &TaskGroup| {
            let inner = scope(async |_: &TaskGroup| {
                let (release, ended) = (release.clone(), ended.clone());
                outer.spawn(async move {
                    release.notified().await;
                    ended.add();
                });
                let asked_for = outer.spawn(async {
                    turns(3).await;
                    Ok(7)
                });
                Ok(asked_for.await)
            })
            .await;
            assert!(inner.is_ok_and(|value| value == 7));
            assert_eq!(ended.get(), 0, "the inner scope did not wait for it");
            assert_eq!(outer.len(), 1, "it is a child of the outer scope");
            release.notify_one();
            Ok(())
        })
        .await;
        assert!(done.is_ok());
        assert_eq!(ended.get(), 1);
    });
}

#[test]
fn an_inner_scope_waits_only_for_its_own_children() {
    every_runtime(async || {
        let (release, log) = (Arc::new(Notify::new()), Log::new());
        let done = scope(async |outer: &TaskGroup| {
            let (gate, older) = (release.clone(), log.clone());
            outer.spawn(async move {
                gate.notified().await;
                older.push("older");
            });
            let inner = scope(async |group: &TaskGroup| {
                let own = log.clone();
                group.spawn(async move {
                    turns(3).await;
                    own.push("own");
                });
                Ok(())
            })
            .await;
            assert!(inner.is_ok());
            log.push("inner");
            release.notify_one();
            Ok(())
        })
        .await;
        assert!(done.is_ok());
        assert_eq!(log.entries(), ["own", "inner", "older"]);
    });
}

#[test]
fn len_and_is_empty_follow_the_live_children() {
    every_runtime(async || {
        let gate = Arc::new(Notify::new());
        let done = scope(async |group: &TaskGroup| {
            assert_eq!((group.len(), group.is_empty()), (0, true));
            let child = gate.clone();
            let _handle = group.spawn(async move { child.notified().await });
            turns(3).await;
            assert_eq!((group.len(), group.is_empty()), (1, false));
            gate.notify_one();
            until(|| group.is_empty()).await;
            assert_eq!(group.len(), 0);
            Ok(())
        })
        .await;
        assert!(done.is_ok());
    });
}

#[test]
fn a_child_that_ended_before_the_body_waits_is_not_lost() {
    every_runtime(async || {
        let value = scope(async |group: &TaskGroup| {
            let handle = group.spawn(async { Ok(9) });
            until(|| handle.is_finished()).await;
            Ok(handle.now_or_never())
        })
        .await
        .expect("nothing failed");
        assert_eq!(value, Some(9));
    });
}

#[test]
fn a_scope_with_borrows_in_its_body_runs_inside_a_spawned_task() {
    every_runtime_in_a_task(|| async {
        let words = vec!["structured".to_owned(), "concurrency".to_owned()];
        let mut seen = Vec::new();
        let total = scope(async |group: &TaskGroup| {
            let mut total = 0;
            for word in &words {
                seen.push(word.as_str());
                let word = word.clone();
                total += group.spawn(async move { Ok(word.len()) }).await;
            }
            Ok(total)
        })
        .await;
        assert_eq!((total.ok(), seen.len()), (Some(21), 2));
    });
}

#[test]
fn an_endless_child_needs_no_annotation() {
    every_runtime(async || {
        let ticks = Count::new();
        let done = scope(async |group: &TaskGroup| {
            let ticking = ticks.clone();
            group.spawn_background(async move {
                loop {
                    ticking.add();
                    yield_now().await;
                }
            });
            until(|| ticks.get() > 3).await;
            Ok(())
        })
        .await;
        assert!(done.is_ok());
    });
}

#[test]
fn normal_children_are_waited_for_when_the_body_ends() {
    every_runtime(async || {
        let ended = Count::new();
        let done = scope(async |group: &TaskGroup| {
            for _ in 0..3 {
                let ended = ended.clone();
                group.spawn(async move {
                    turns(10).await;
                    assert!(!token().is_cancelled());
                    ended.add();
                    Ok("never taken")
                });
            }
            Ok(())
        })
        .await;
        assert!(done.is_ok());
        assert_eq!(ended.get(), 3);
    });
}

#[test]
fn background_children_are_cancelled_when_body_and_normal_children_are_done() {
    every_runtime(async || {
        let (log, seen) = (Log::new(), Arc::new(Mutex::new(None)));
        let patient = Scope::new().grace(Duration::from_secs(50));
        let value = patient
            .run(async |group: &TaskGroup| {
                let (signalled, dropped) = (log.clone(), log.on_drop("dropped"));
                let seen = seen.clone();
                group.spawn_background(async move {
                    let _dropped = dropped;
                    token().cancelled().await;
                    *seen.lock().expect("no panic") = token().reason();
                    signalled.push("cancelled");
                });
                let (normal, (last, body_is_done)) = (log.clone(), tokio::sync::oneshot::channel());
                group.spawn(async move {
                    body_is_done.await.expect("the body says so");
                    turns(10).await;
                    normal.push("normal");
                });
                log.push("body");
                last.send(()).expect("the child waits for it");
                Ok("value")
            })
            .await
            .expect("nothing failed");
        log.push(value);
        assert_eq!(
            log.entries(),
            ["body", "normal", "cancelled", "dropped", "value"]
        );
        let reason = seen.lock().expect("no panic").take();
        assert_eq!(reason, Some(CancelReason::Finished));
    });
}

#[test]
fn a_background_child_that_fails_fails_the_group() {
    every_runtime(async || {
        let drops = Drops::new();
        let result = scope(async |group| {
            let guard = drops.guard();
            group.spawn(async move {
                let _guard = guard;
                pending::<()>().await;
            });
            group.spawn_background(async { Err::<(), _>("heartbeat lost") });
            pending::<Result<(), Text>>().await
        })
        .await;
        assert_eq!(failures(result), ["heartbeat lost"]);
        assert_eq!(drops.alive(), 0);
    });
}

#[test]
fn dropping_a_spawner_cancels_nothing() {
    every_runtime(async || {
        let ended = Count::new();
        let done = scope(async |group: &TaskGroup| {
            let spawner = group.spawner();
            let (clone, child) = (spawner.clone(), ended.clone());
            spawner.spawn(async move {
                drop(clone);
                turns(5).await;
                child.add();
            });
            drop(spawner);
            Ok(())
        })
        .await;
        assert!(done.is_ok());
        assert_eq!(ended.get(), 1);
    });
}

#[test]
fn a_stranger_can_spawn_while_the_group_is_open() {
    every_runtime(async || {
        let result = scope(async |group| {
            let spawner = group.spawner();
            let stranger = support::spawn(async move {
                spawner.spawn(async {
                    turns(5).await;
                    Err::<(), _>("from afar")
                });
            });
            stranger.await.expect("the stranger did not panic");
            Ok(())
        })
        .await;
        assert_eq!(failures(result), ["from afar"], "it was our child");
    });
}

#[test]
fn a_spawner_that_is_kept_does_not_hold_the_scope_open() {
    every_runtime(async || {
        let spawner = scope(async |group: &TaskGroup| Ok(group.spawner()))
            .await
            .expect("nothing failed");
        assert!(!spawner.is_open());
        assert!(!spawner.is_cancelled());
    });
}

/// Spawns into a closed group, twice by each way, and sees that nothing is polled.
async fn assert_refuses(spawner: &Spawner<Text>, reason: fn(&CancelReason) -> bool) {
    let (polled, drops) = (Count::new(), Drops::new());
    for _ in 0..2 {
        let child = || {
            let (polled, guard) = (polled.clone(), drops.guard());
            async move {
                let _guard = guard;
                polled.add();
            }
        };
        for handle in [spawner.spawn(child()), spawner.spawn_background(child())] {
            assert!(handle.is_finished());
            assert!(matches!(handle.await, Outcome::Cancelled(why) if reason(&why)));
        }
    }
    support::settle().await;
    assert_eq!((polled.get(), drops.dropped()), (0, 4));
    assert!(!spawner.is_open());
}

#[test]
fn spawn_into_a_closed_group_never_polls_the_future() {
    every_runtime(async || {
        let spawner = scope(async |group| Ok(group.spawner())).await;
        assert_refuses(&spawner.expect("nothing failed"), |why| {
            *why == CancelReason::Closed
        })
        .await;
    });
}

#[test]
fn spawn_into_a_failed_group_is_refused_like_any_other() {
    every_runtime(async || {
        let mut kept = None;
        let result = scope(async |group| {
            kept = Some(group.spawner());
            Err::<(), _>("broken")
        })
        .await;
        assert_eq!(failures(result), ["broken"]);
        assert_refuses(&kept.expect("the body ran"), |why| {
            *why == CancelReason::BodyFailed
        })
        .await;
    });
}

#[test]
fn try_spawn_on_a_closed_group_gives_the_future_back() {
    every_runtime(async || {
        let spawner = scope(async |group: &TaskGroup<Text>| Ok(group.spawner()))
            .await
            .expect("nothing failed");
        let polled = Count::new();
        let polls = polled.clone();
        let refused = spawner
            .try_spawn(async move {
                polls.add();
                Ok(7)
            })
            .expect_err("the group is closed");
        assert_eq!(refused.reason(), &CancelReason::Closed);
        assert_eq!(polled.get(), 0);
        assert_eq!(refused.into_inner().await, Ok(7), "it runs elsewhere");
    });
}

#[test]
fn a_child_that_spawns_while_the_group_is_closing_is_refused() {
    every_runtime(async || {
        let (reasons, failed) = (Log::new(), Arc::new(Mutex::new(None)));
        let result = scope(async |group| {
            let (spawner, log) = (group.spawner(), reasons.clone());
            let cleanup = support::OnDrop::new(move || {
                let late = async { Err::<(), _>("late") };
                let refused = spawner.try_spawn(late).expect_err("the group is closing");
                log.push(refused.reason().clone());
            });
            let parked = Arc::new(Notify::new());
            let told = parked.clone();
            group.spawn(async move {
                let _cleanup = cleanup;
                told.notify_one();
                pending::<()>().await;
            });
            parked.notified().await;
            let handle = group.spawn(async { Err::<(), _>("first") });
            *failed.lock().expect("no panic") = Some(handle.id());
            pending::<Result<(), Text>>().await
        })
        .await;
        assert_eq!(failures(result), ["first"]);
        let id: Option<TaskId> = *failed.lock().expect("no panic");
        let id = id.expect("the body ran");
        assert_eq!(reasons.entries(), [CancelReason::Failed(id)]);
    });
}

#[test]
fn children_of_a_named_spawner_have_its_name() {
    every_runtime(async || {
        for which in 0..6 {
            let result = scope(async |group: &TaskGroup<Text>| {
                let fails = || Err::<(), _>("no");
                let named = group.spawner().named("any").clone();
                match which {
                    0 => drop(named.spawn(async move { fails() })),
                    1 => drop(named.spawn_blocking(fails)),
                    2 => drop(group.named("any").spawn_blocking(fails)),
                    3 => drop(named.limit(1).spawn(async move { fails() }).await),
                    4 => {
                        let limited = group.spawner().limit(1).named("any");
                        drop(limited.spawn(async move { fails() }).await);
                    }
                    _ => drop(group.limit(1).named("any").spawn_blocking(fails).await),
                }
                pending::<Result<(), Text>>().await
            });
            let error = result.await.expect_err("it fails");
            let task = error.iter().next().and_then(|it| it.task());
            assert_eq!(task.and_then(|it| it.name()), Some("any"));
        }
        let result = scope(async |group: &TaskGroup<Text>| {
            let guard = group.spawner().named("who holds it up").guard();
            turns(1).await;
            let now = snapshot();
            let mut names = now.tasks().map(|task| task.name.as_deref());
            assert!(names.any(|name| name == Some("who holds it up")));
            drop(guard.expect("open"));
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn debug_shows_the_name_also_of_a_group_that_is_over() {
    every_runtime(async || {
        let run = Scope::new().name("fetcher");
        assert!(format!("{run:?}").contains("fetcher"));
        let kept = run.run(async |group: &TaskGroup| {
            assert!(format!("{group:?}").contains("fetcher"));
            Ok(group.spawner())
        });
        let kept = kept.await.expect("nobody fails");
        assert!(format!("{kept:?}").contains("fetcher"), "{kept:?}");
    });
}
