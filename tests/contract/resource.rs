//! Resources: what is freed when, what a destructor may do, what grows with what.

use std::{
    future::{Future, pending, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, OnceLock, mpsc},
    time::Duration,
};

use ringfence::{
    Ended, Observer, OutcomeHandle, Scope, SpawnError, TaskGroup, TaskInfo, Token, scope, token,
};
use tokio::sync::{Notify, oneshot};

use crate::{
    group::{Text, failures, turns},
    support::{
        self, Count, DropGuard, Drops, Log, OnDrop, PATIENCE, Watchdog, every_runtime,
        multi_thread, until,
    },
};

#[test]
fn a_child_counts_as_ended_only_after_its_future_is_dropped() {
    every_runtime(async || {
        for cancel in [false, true] {
            let handle: Arc<OnceLock<OutcomeHandle<()>>> = Arc::default();
            let log = Log::new();
            let (own, dropped) = (handle.clone(), log.clone());
            let guard = OnDrop::new(move || {
                let own = own.get().expect("it was spawned before it ran");
                assert!(!own.is_finished());
                dropped.push("dropped");
            });
            let (parked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let done = scope(async |group: &TaskGroup| {
                let (told, gate) = (parked.clone(), go.clone());
                let spawned = group.spawn(async move {
                    let _guard = guard;
                    told.notify_one();
                    gate.notified().await;
                });
                handle.set(spawned.detached()).expect("set once");
                parked.notified().await;
                if cancel {
                    handle.get().expect("just set").cancel();
                } else {
                    go.notify_one();
                }
                Ok(())
            })
            .await;
            log.push("scope");
            assert!(done.is_ok());
            assert_eq!(log.entries(), ["dropped", "scope"]);
        }
    });
    for workers in [1, 2, 4] {
        let _watchdog = Watchdog::start("multi_thread, a slow destructor", PATIENCE);
        multi_thread(workers).block_on(async {
            let (reached, in_drop) = oneshot::channel();
            let (release, released) = mpsc::channel::<()>();
            let guard = OnDrop::new(move || {
                reached.send(()).expect("the body waits");
                released.recv().expect("the body releases");
            });
            let done = scope(async |group: &TaskGroup| {
                let handle = group.spawn(async move { drop(guard) });
                in_drop.await?;
                assert_eq!((handle.is_finished(), group.len()), (false, 1));
                release.send(())?;
                until(|| group.is_empty()).await;
                Ok(())
            });
            done.await.expect("nothing failed");
        });
    }
}

#[test]
fn a_destructor_that_spawns_into_an_open_group_is_served() {
    every_runtime(async || {
        let ended = Count::new();
        let done = scope(async |group: &TaskGroup| {
            let (spawner, count) = (group.spawner(), ended.clone());
            let spawns = OnDrop::new(move || {
                spawner.spawn(async move {
                    turns(5).await;
                    count.add();
                });
            });
            group.spawn(async move { drop(spawns) });
            Ok(())
        })
        .await;
        assert!(done.is_ok());
        assert_eq!(ended.get(), 1);
    });
}

#[test]
fn ended_children_leave_no_record() {
    every_runtime(async || {
        let (drops, name) = (Drops::new(), Arc::<str>::from("short"));
        let done = scope(async |group: &TaskGroup| {
            for round in 0..50 {
                for child in 0..100 {
                    let guard = drops.guard();
                    let handle = group.named(name.clone()).spawn(async move {
                        turns(child % 3).await;
                        Ok(guard)
                    });
                    if child % 10 == 0 {
                        handle.cancel();
                    }
                }
                assert!(group.len() <= 100, "round {round}");
                until(|| group.is_empty()).await;
                assert_eq!(Arc::strong_count(&name), 1, "round {round}");
                until(|| drops.alive() == 0).await;
            }
            Ok(())
        })
        .await;
        assert!(done.is_ok());
        assert_eq!(drops.dropped(), 5_000);
    });
}

#[test]
fn discarded_values_and_errors_are_dropped_exactly_once() {
    every_runtime(async || {
        for fails in [false, true] {
            let drops = Drops::new();
            let result = scope(async |group: &TaskGroup<DropGuard>| {
                for child in 0..20 {
                    let (value, error) = (drops.guard(), drops.guard());
                    let handle = group.spawn(async move {
                        turns(child % 4).await;
                        if fails && child % 5 == 4 {
                            return Err(error);
                        }
                        Ok(value)
                    });
                    if child % 2 == 0 {
                        drop(handle);
                    } else {
                        drop(handle.detached());
                    }
                }
                Ok(drops.guard())
            })
            .await;
            assert_eq!(result.is_err(), fails);
            let kept = result.as_ref().map_or_else(|error| error.len(), |_| 1);
            // The runtime needs a moment to put away what nobody asked for.
            until(|| drops.alive() == kept).await;
            drop(result);
            assert_eq!((drops.alive(), drops.dropped()), (0, drops.made()));
        }
    });
}

#[test]
fn a_refused_future_is_dropped_exactly_once() {
    every_runtime(async || {
        let (drops, polled) = (Drops::new(), Count::new());
        let work = Scope::new().grace(Duration::from_secs(50));
        let done = work.run(async |group: &TaskGroup| {
            let token: Token = group.token();
            group.spawn(async move { token.cancelled().await });
            let child = || {
                let (guard, polled) = (drops.guard(), polled.clone());
                async move {
                    let _guard = guard;
                    polled.add();
                }
            };
            let before = (group.len(), drops.made());
            group.cancel();
            drop(group.spawn(child()));
            drop(group.spawn_background(child()));
            drop(group.spawner().spawn(child()));
            assert_eq!(drops.alive(), 0);
            let refused = group.try_spawn(child()).map_err(SpawnError::into_inner);
            assert_eq!(drops.alive(), 1, "this one was given back");
            drop(refused);
            assert!(before.0 >= group.len() && group.len() <= 1);
            Ok(())
        });
        assert!(done.await.is_err_and(|error| error.is_cancelled()));
        support::settle().await;
        assert_eq!((drops.made(), drops.dropped()), (4, 4));
        assert_eq!(polled.get(), 0);
    });
}

#[test]
fn nothing_of_a_group_is_alive_after_its_error_was_taken() {
    every_runtime(async || {
        let (drops, name) = (Drops::new(), Arc::<str>::from("child"));
        let mut spawners = Vec::new();
        let result = scope(async |group| {
            spawners.push(group.spawner());
            for child in 0..20 {
                let (captured, value) = (drops.guard(), drops.guard());
                group.named(name.clone()).spawn(async move {
                    let _captured = captured;
                    turns(child % 4).await;
                    if child % 3 == 0 {
                        pending::<()>().await;
                    }
                    Ok(value)
                });
            }
            let _of_the_body = drops.guard();
            turns(2).await;
            group.spawn(async { Err::<(), _>("broken") });
            pending::<Result<(), Text>>().await
        })
        .await;
        until(|| drops.alive() == 0).await;
        assert_eq!(Arc::strong_count(&name), 1, "no record either");
        assert_eq!(failures(result), ["broken"], "still held until here");
        drop(spawners);
    });
}

/// Opens the gates of all children, in some order.
type Release = fn(Vec<oneshot::Sender<()>>);

/// How often the scope and its children are polled until so many of them, all parked, were released in some order and
/// are gone.
async fn polls(children: usize, release: Release) -> usize {
    let (polls, parked, all) = (Count::new(), Count::new(), Arc::new(Notify::new()));
    let mut work = pin!(scope(async |group: &TaskGroup| {
        let mut gates = Vec::with_capacity(children);
        for _ in 0..children {
            let (open, gate) = oneshot::channel::<()>();
            gates.push(open);
            let (polls, parked, all) = (polls.clone(), parked.clone(), all.clone());
            group.spawn(async move {
                let mut gate = pin!(gate);
                let mut is_parked = false;
                poll_fn(|cx| {
                    polls.add();
                    if !std::mem::replace(&mut is_parked, true) && parked.add() + 1 == children {
                        all.notify_one();
                    }
                    gate.as_mut().poll(cx)
                })
                .await?;
                Ok(())
            });
        }
        all.notified().await;
        release(gates);
        Ok(())
    }));
    let done = poll_fn(|cx| {
        polls.add();
        work.as_mut().poll(cx)
    });
    done.await.expect("nothing failed");
    polls.get()
}

/// Two polls a child, and a few of the scope, whatever the number of children.
async fn assert_linear(release: Release) {
    for children in [5_000, 50_000] {
        let polls = polls(children, release).await;
        assert!(polls <= 2 * children + 10, "{polls} for {children}");
    }
}

#[test]
fn fifty_thousand_children_ready_at_once_end_in_linear_time() {
    every_runtime(async || {
        assert_linear(|gates| {
            for gate in gates {
                gate.send(()).expect("it waits");
            }
        })
        .await;
    });
}

#[test]
fn children_that_end_in_reverse_order_end_in_linear_time() {
    every_runtime(async || {
        assert_linear(|gates| {
            for gate in gates.into_iter().rev() {
                gate.send(()).expect("it waits");
            }
        })
        .await;
    });
}

/// Counts what it is told.
#[derive(Clone, Default)]
struct Counts {
    spawned: Count,
    ended: Arc<Mutex<Vec<(TaskInfo, Ended)>>>,
}

impl Observer for Counts {
    fn spawned(&self, _: &TaskInfo) {
        self.spawned.add();
    }

    fn ended(&self, task: &TaskInfo, how: &Ended) {
        let mut ended = self.ended.lock().expect("no panic");
        ended.push((task.clone(), how.clone()));
    }
}

async fn throws() {
    panic!("payload");
}

#[test]
fn the_observer_counts_every_child_once() {
    every_runtime(async || {
        let counts = Counts::default();
        let options = Scope::new().observer(Arc::new(counts.clone()));
        let hasty = options.clone().run(async |group: &TaskGroup| {
            let parked = group.named("is cancelled").spawn(pending::<()>());
            Ok(parked.cancel_and_wait().await)
        });
        assert!(hasty.await.is_ok());
        let patient = options.panics_as_errors().grace(Duration::from_secs(50));
        let result = patient
            .run(async |group| {
                for _ in 0..10 {
                    group.named("completes").spawn(turns(3));
                }
                let waits = group.named("is told").spawn_background({
                    let token = group.token();
                    async move { token.cancelled().await }
                });
                let inside = group.named("has a child").spawn(async {
                    let inner = scope(async |group: &TaskGroup| {
                        Ok(group.named("inside").spawn(async { Ok(1) }).await)
                    });
                    drop(inner.await);
                });
                inside.await;
                let (go, gate) = oneshot::channel::<()>();
                let (on, second) = oneshot::channel::<()>();
                group.named("fails").spawn(async {
                    drop(gate.await);
                    Err::<(), _>("broken")
                });
                group.named("panics").spawn(async {
                    drop(second.await);
                    throws().await;
                });
                drop((go, on));
                until(|| group.is_cancelled()).await;
                assert!(group.try_spawn(throws()).is_err(), "which is no child");
                drop(waits);
                Ok::<_, Text>(())
            })
            .await;
        let error = result.expect_err("one failed");
        let ended = counts.ended.lock().expect("no panic").clone();
        assert_eq!((counts.spawned.get(), ended.len()), (16, 16));
        let mut ids: Vec<_> = ended.iter().map(|(task, _)| task.id()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), ended.len(), "each once");
        for (task, how) in &ended {
            let expected = match task.name() {
                Some("completes" | "is told" | "has a child" | "inside") => {
                    *how == Ended::Completed
                }
                Some("is cancelled") => matches!(how, Ended::Cancelled(_)),
                Some("panics") => *how == Ended::Panicked,
                _ => *how == Ended::Failed,
            };
            assert!(expected, "{task} ended as {how:?}");
        }
        assert_eq!(error.len(), 2, "the failure and the panic");
    });
}

#[test]
fn children_cancelled_one_by_one_under_a_grace_end_in_linear_time() {
    every_runtime(async || {
        for children in [2_000, 20_000] {
            let polls = Count::new();
            let options = Scope::new().grace(Duration::from_secs(3600));
            let ended = options.run(async |group: &TaskGroup| {
                let listening = Count::new();
                let handles: Vec<_> = (0..children)
                    .map(|_| {
                        let (polls, listening) = (polls.clone(), listening.clone());
                        let mut cancelled = None;
                        group.spawn(poll_fn(move |cx| {
                            polls.add();
                            let cancelled = cancelled.get_or_insert_with(|| {
                                listening.add();
                                Box::pin(async { token().cancelled().await })
                            });
                            cancelled.as_mut().poll(cx)
                        }))
                    })
                    .collect();
                until(|| listening.get() == children).await;
                for handle in handles {
                    handle.cancel_and_wait().await;
                }
                Ok(())
            });
            ended.await.expect("the group was not cancelled");
            // Each hears of its own cancel, and of no other.
            assert!(
                polls.get() <= 3 * children,
                "{} for {children}",
                polls.get()
            );
        }
    });
}

/// Cancels a child, through its handle, when it is told that the child has ended.
#[derive(Default)]
struct TooLate(Mutex<Option<OutcomeHandle<()>>>);

impl Observer for TooLate {
    fn ended(&self, _: &TaskInfo, _: &Ended) {
        let handle = self.0.lock().expect("nobody panics with it");
        handle.iter().for_each(OutcomeHandle::cancel);
    }
}

#[test]
fn a_child_cancelled_as_it_ends_leaves_no_record() {
    every_runtime(async || {
        let late = Arc::new(TooLate::default());
        let options = Scope::new().observer(late.clone());
        let done = options.run(async |group: &TaskGroup| {
            let path = group.spawner();
            for _ in 0..10 {
                let (go, gate) = oneshot::channel::<()>();
                let handle = path.spawn(async move { drop(gate.await) });
                *late.0.lock().unwrap() = Some(handle);
                drop(go);
                until(|| group.is_empty()).await;
                late.0.lock().unwrap().take();
            }
            turns(1).await; // now it is seen
            let seen = ringfence::snapshot();
            let here = path.spawn(async {}).id();
            let mine = seen.tasks().filter(|task| {
                task.id.to_string().split('.').next() == here.to_string().split('.').next()
            });
            assert_eq!(mine.count(), 0, "they are gone");
            Ok(())
        });
        assert!(done.await.is_ok());
    });
}
