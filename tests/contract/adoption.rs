//! Adoption: what becomes of the children when the scope itself is dropped.

mod order;

use std::{
    future::{Future, pending},
    pin::{Pin, pin},
    sync::{Arc, Mutex, mpsc},
    task::Context,
    thread,
    time::Duration,
};

use futures::{FutureExt, future::join_all, poll};
use ringfence::{
    CancelReason, Displaced, DisplacedWhat, Ended, Observer, Outcome, Scope, TaskGroup, TaskInfo,
    root, scope, shield, timeout,
};
use tokio::{
    sync::oneshot,
    task::yield_now,
    time::{Instant, sleep},
};

use crate::support::{
    Count, CountingWaker, Drops, Log, OnDrop, PATIENCE, PanicOnDrop, Watchdog, current_thread,
    every_runtime, multi_thread, paused, spawn, until,
};

/// Not the default error: a scope of boxed errors cannot be awaited inside a task, where its future has to be `Send`.
type Group = TaskGroup<String>;
type Done = Result<(), String>;

/// A child that is parked for ever, and whose destructor takes its time.
fn parked(polls: &Count, drops: &Drops) -> impl Future<Output = ()> + Send + use<> {
    let slow = OnDrop::new(|| (0..10).for_each(|_| thread::yield_now()));
    let (polls, captured) = (polls.clone(), (slow, drops.guard()));
    async move {
        let _captured = captured;
        polls.add();
        pending::<()>().await;
    }
}

/// A scope with so many parked children, which never ends by itself.
async fn endless(children: usize, polls: &Count, drops: &Drops) {
    let never = scope(async |group: &Group| -> Done {
        for _ in 0..children {
            group.spawn(parked(polls, drops));
        }
        pending().await
    });
    assert!(never.await.is_ok(), "it ended by itself");
}

/// Opens a scope, waits until all its children are parked, and drops it.
async fn abandon(children: usize, drops: &Drops) {
    let polls = Count::new();
    let mut endless = pin!(endless(children, &polls, drops));
    assert!(poll!(endless.as_mut()).is_pending());
    until(|| polls.get() == children).await;
}

/// A child whose destructor blocks its thread until the sender is gone, after it has counted itself in.
fn gated(polls: &Count, entered: &Count) -> (mpsc::Sender<()>, impl Future<Output = ()> + use<>) {
    let (open, gate) = mpsc::channel::<()>();
    let (polls, entered) = (polls.clone(), entered.clone());
    let captured = OnDrop::new(move || {
        entered.add();
        assert!(gate.recv().is_err());
    });
    let child = async move {
        let _captured = captured;
        polls.add();
        pending::<()>().await;
    };
    (open, child)
}

/// Runs a test whose destructors block a worker: the thread of the test is not one.
#[track_caller]
fn beside_workers(test: impl AsyncFn()) {
    for workers in [1, 2, 4] {
        let _watchdog = Watchdog::start("multi_thread", PATIENCE);
        multi_thread(workers).block_on(test());
    }
}

/// Writes down what it is told.
#[derive(Default)]
struct Notes {
    displaced: Log<String>,
    ended: Log<Ended>,
}

impl Observer for Notes {
    fn displaced(&self, what: &Displaced) {
        self.displaced.push(match &what.what {
            DisplacedWhat::Error(error) => error
                .downcast_ref::<String>()
                .expect("an error of the group")
                .clone(),
            other => format!("{other:?}"),
        });
    }

    fn ended(&self, _: &TaskInfo, how: &Ended) {
        self.ended.push(how.clone());
    }
}

#[test]
fn a_dropped_scope_cancels_its_children_at_once() {
    every_runtime(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        let mut scope = Box::pin(endless(10, &polls, &drops));
        assert!(poll!(&mut scope).is_pending());
        until(|| polls.get() == 10).await;
        assert_eq!(drops.alive(), 10);
        drop(scope);
        until(|| drops.alive() == 0).await;
        assert_eq!((polls.get(), drops.dropped()), (10, 10));
    });
}

#[test]
fn aborting_the_task_that_waits_at_the_end_cancels_all_children() {
    every_runtime(async || {
        let (polls, drops, bodies) = (Count::new(), Drops::new(), Count::new());
        let seen = (polls.clone(), drops.clone(), bodies.clone());
        let task = spawn(async move {
            scope(async |group: &Group| -> Done {
                for _ in 0..5 {
                    group.spawn(parked(&polls, &drops));
                }
                bodies.add();
                Ok(())
            })
            .await
        });
        let (polls, drops, bodies) = seen;
        until(|| (polls.get(), bodies.get()) == (5, 1)).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        root().wait(PATIENCE).await.unwrap();
        assert_eq!((drops.made(), drops.dropped()), (5, 5));
    });
}

#[test]
fn aborting_the_task_in_mid_body_drops_body_and_children_once() {
    every_runtime(async || {
        let (polls, drops) = (Count::new(), [Drops::new(), Drops::new(), Drops::new()]);
        let seen = (polls.clone(), drops.clone());
        let task = spawn(async move {
            let [bodies, children, grandchildren] = drops;
            scope(async |group: &Group| -> Done {
                let _body = bodies.guard();
                for _ in 0..3 {
                    let (polls, child) = (polls.clone(), children.guard());
                    let grandchildren = grandchildren.clone();
                    group.spawn(async move {
                        let _child = child;
                        endless(4, &polls, &grandchildren).await;
                    });
                }
                pending().await
            })
            .await
        });
        let (polls, drops) = seen;
        until(|| polls.get() == 12).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        root().wait(PATIENCE).await.unwrap();
        let dropped = drops
            .each_ref()
            .map(|drops| (drops.made(), drops.dropped()));
        assert_eq!(dropped, [(1, 1), (3, 3), (12, 12)]);
    });
}

#[test]
fn the_owner_ends_only_after_adopted_children_are_gone() {
    every_runtime(async || {
        let drops = Drops::new();
        let child = async |drops: Drops| {
            abandon(3, &drops).await;
            Ok("value")
        };
        let for_its_handle = scope(async |group: &Group| {
            let value = group.spawn(child(drops.clone())).await;
            Ok((value, drops.alive()))
        });
        assert_eq!(for_its_handle.await.unwrap(), ("value", 0));
        let for_its_group = scope(async |group: &Group| {
            group.spawn(child(drops.clone()));
            Ok(())
        });
        for_its_group.await.unwrap();
        assert_eq!((drops.made(), drops.dropped()), (6, 6));
    });
}

#[test]
fn a_scope_in_a_body_is_owned_by_that_bodys_group() {
    every_runtime(async || {
        let drops = Drops::new();
        scope(async |_: &Group| -> Done {
            abandon(3, &drops).await;
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!((drops.made(), drops.dropped()), (3, 3));
        assert_eq!(root().orphans(), 0);
    });
}

#[test]
fn cancel_and_wait_of_a_child_covers_its_grandchildren() {
    every_runtime(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        scope(async |group: &Group| -> Done {
            let (p, d) = (polls.clone(), drops.clone());
            let child = group.spawn(async move { endless(5, &p, &d).await });
            until(|| polls.get() == 5).await;
            let outcome = child.cancel_and_wait().await;
            assert_eq!(outcome, Outcome::Cancelled(CancelReason::Handle));
            assert_eq!((drops.made(), drops.dropped()), (5, 5));
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn an_owner_that_is_already_closing_still_adopts() {
    every_runtime(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        let error = scope(async |group: &Group| -> Done {
            let (p, d) = (polls.clone(), drops.clone());
            group.spawn(async move { endless(3, &p, &d).await });
            let polls_now = polls.clone();
            group.spawn(async move {
                until(|| polls_now.get() == 6).await;
                Err::<(), _>("close".to_owned())
            });
            endless(3, &polls, &drops).await;
            Ok(())
        })
        .await
        .unwrap_err();
        assert_eq!((drops.made(), drops.dropped()), (6, 6));
        assert_eq!(error.into_first().unwrap(), "close");
        assert_eq!(root().orphans(), 0);
    });
}

#[test]
fn what_adopted_children_return_goes_to_the_observer() {
    beside_workers(async || {
        let notes = Arc::new(Notes::default());
        let entered = Count::new();
        Scope::new()
            .observer(notes.clone())
            .run(async |_: &Group| -> Done {
                let (dropped, was_dropped) = mpsc::channel::<()>();
                let inner = scope(async |group: &Group| {
                    let (seen, bomb) = (entered.clone(), PanicOnDrop("destructor"));
                    group.spawn(async move {
                        let _bomb = bomb;
                        seen.add();
                        pending::<()>().await;
                    });
                    until(|| entered.get() == 1).await;
                    let entered = entered.clone();
                    group.spawn(async move {
                        entered.add();
                        assert!(was_dropped.recv().is_err());
                        Err::<(), _>("returned".to_owned())
                    });
                    pending::<Done>().await
                });
                let mut inner = Box::pin(inner);
                while entered.get() < 2 {
                    assert!(poll!(&mut inner).is_pending());
                    yield_now().await;
                }
                drop(inner);
                drop(dropped);
                Ok(())
            })
            .await
            .expect("the adopter succeeds");
        let mut displaced = notes.displaced.entries();
        displaced.sort();
        assert_eq!(
            displaced,
            ["Panic(PanicPayload(\"destructor\"))", "returned"]
        );
    });
}

#[test]
fn a_child_of_an_adopted_child_is_waited_for_too() {
    every_runtime(async || {
        for inner_first in [true, false] {
            let (polls, drops) = (Count::new(), Drops::new());
            scope(async |group: &Group| -> Done {
                let (polls, drops) = (polls.clone(), drops.clone());
                group.spawn(async move {
                    let mut middle = Box::pin(scope(async |group: &Group| -> Done {
                        let (polls, drops) = (polls.clone(), drops.clone());
                        group.spawn(async move {
                            if inner_first {
                                abandon(2, &drops).await;
                                polls.add();
                                polls.add();
                                pending::<()>().await;
                            }
                            endless(2, &polls, &drops).await;
                        });
                        pending().await
                    }));
                    assert!(poll!(&mut middle).is_pending());
                    until(|| polls.get() == 2).await;
                });
                Ok(())
            })
            .await
            .unwrap();
            assert_eq!((drops.made(), drops.dropped()), (2, 2), "{inner_first}");
        }
    });
}

#[test]
fn the_owner_is_found_under_select_and_timeout() {
    every_runtime(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        scope(async |group: &Group| -> Done {
            let child = |by_select: bool| {
                let (polls, drops) = (polls.clone(), drops.clone());
                async move {
                    let inner = endless(3, &polls, &drops);
                    if by_select {
                        tokio::select! {
                            () = inner => unreachable!("it is endless"),
                            () = until(|| polls.get() == 3) => {}
                        }
                    } else {
                        assert!(timeout(Duration::ZERO, inner).await.is_err());
                    }
                }
            };
            group.spawn(child(true)).await;
            assert_eq!((drops.made(), drops.dropped()), (3, 3));
            group.spawn(child(false)).await;
            assert_eq!((drops.made(), drops.dropped()), (6, 6));
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(root().orphans(), 0);
    });
}

#[test]
fn a_scope_dropped_over_and_over_in_a_select_loop_leaves_nothing() {
    every_runtime(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        scope(async |group: &Group| -> Done {
            for _ in 0..1_000 {
                tokio::select! {
                    biased;
                    () = endless(2, &polls, &drops) => unreachable!("it is endless"),
                    () = yield_now() => {}
                }
            }
            until(|| group.is_empty()).await;
            assert_eq!((drops.made(), drops.dropped()), (2_000, 2_000));
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn an_owner_cancelled_again_while_it_waits_keeps_waiting() {
    beside_workers(async || {
        let notes = Arc::new(Notes::default());
        let (polls, entered) = (Count::new(), Count::new());
        let (open, grandchild) = gated(&polls, &entered);
        let error = Scope::new()
            .observer(notes.clone())
            .run(async |group: &Group| -> Done {
                let child = group.spawn(async move {
                    let inner = scope(async |group: &Group| -> Done {
                        group.spawn(grandchild);
                        pending().await
                    });
                    tokio::select! {
                        _ = inner => unreachable!("it is endless"),
                        () = until(|| polls.get() == 1) => {}
                    }
                });
                until(|| entered.get() == 1).await;
                for _ in 0..100 {
                    child.cancel();
                    group.cancel_children();
                    group.cancel();
                    assert!(!child.is_finished());
                    assert_eq!(group.len(), 1);
                }
                drop(open);
                Ok(())
            })
            .await
            .unwrap_err();
        assert!(error.is_cancelled());
        let ended = notes.ended.entries();
        assert_eq!(
            ended.len(),
            2,
            "the child and the grandchild, once: {ended:?}"
        );
    });
}

#[test]
fn an_outside_timeout_during_a_slow_close_is_not_swallowed() {
    paused(async || {
        let (start, drops) = (Instant::now(), Drops::new());
        let closing =
            Scope::new()
                .grace(Duration::from_secs(1))
                .run(async |group: &Group| -> Done {
                    group.spawn(parked(&Count::new(), &drops));
                    group.cancel();
                    pending().await
                });
        let late = timeout(Duration::from_millis(10), closing).await;
        assert_eq!(late.unwrap_err().to_string(), "not ready within 10ms");
        assert_eq!(start.elapsed(), Duration::from_millis(10));
        root().wait(PATIENCE).await.unwrap();
        assert_eq!(drops.alive(), 0);
    });
}

#[test]
fn a_scope_without_owner_is_adopted_by_the_root_of_its_runtime() {
    beside_workers(async || {
        let (polls, entered) = (Count::new(), Count::new());
        let (open, child) = gated(&polls, &entered);
        let task = spawn(scope(async |group: &Group| -> Done {
            group.spawn(child);
            Ok(())
        }));
        until(|| polls.get() == 1).await;
        assert_eq!(root().orphans(), 0, "it has not been dropped yet");
        task.abort();
        until(|| entered.get() == 1).await;
        assert_eq!(root().orphans(), 1);
        drop(open);
        root().wait(PATIENCE).await.unwrap();
        assert_eq!(root().orphans(), 0);
    });
}

#[test]
fn the_root_can_be_waited_for_with_a_bound() {
    paused(async || {
        let (start, drops) = (Instant::now(), Drops::new());
        abandon(3, &drops).await;
        assert_eq!(drops.alive(), 3);
        let late = root().wait(Duration::ZERO).await.unwrap_err();
        assert_eq!(late.to_string(), "not ready within 0ns");
        root().wait(Duration::from_secs(1)).await.unwrap();
        assert_eq!((drops.alive(), start.elapsed()), (0, Duration::ZERO));
        root().wait(Duration::ZERO).await.expect("nobody is there");
    });
}

#[test]
fn each_runtime_has_its_own_root() {
    let _watchdog = Watchdog::start("two runtimes", PATIENCE);
    let (one, other) = (current_thread(), current_thread());
    let drops = Drops::new();
    let ours = one.block_on(async {
        abandon(3, &drops).await;
        root()
    });
    other.block_on(async {
        assert_eq!((root().orphans(), ours.orphans()), (0, 1));
        root().wait(Duration::ZERO).await.unwrap();
        assert_eq!(drops.alive(), 3, "theirs has not moved");
    });
    one.block_on(ours.wait(PATIENCE)).unwrap();
    assert_eq!(drops.alive(), 0);
}

#[test]
fn a_hundred_tasks_waiting_for_the_root_all_return() {
    beside_workers(async || {
        let (polls, entered, waiting) = (Count::new(), Count::new(), Count::new());
        let (open, child) = gated(&polls, &entered);
        let task = spawn(scope(async |group: &Group| -> Done {
            group.spawn(child);
            Ok(())
        }));
        until(|| polls.get() == 1).await;
        task.abort();
        assert!(task.await.is_err());
        let waiters = (0..100).map(|_| {
            let (root, waiting) = (root(), waiting.clone());
            thread::spawn(move || {
                current_thread().block_on(async {
                    let mut wait = pin!(root.wait(PATIENCE));
                    assert!(poll!(wait.as_mut()).is_pending());
                    waiting.add();
                    wait.await
                })
            })
        });
        let waiters: Vec<_> = waiters.collect();
        until(|| waiting.get() == 100).await;
        drop(open);
        for waiter in waiters {
            waiter.join().unwrap().unwrap();
        }
        let all = join_all((0..100).map(|_| spawn(async { root().wait(PATIENCE).await })));
        assert!(all.await.into_iter().all(|waited| waited.unwrap().is_ok()));
    });
}

#[test]
fn a_finished_scope_leaves_no_count_on_its_owner() {
    every_runtime(async || {
        scope(async |group: &Group| -> Done {
            let finished = scope(async |group: &Group| -> Done {
                group.spawn(async {});
                Ok(())
            });
            finished.await.unwrap();
            assert_eq!(group.len(), 0);
            let mut childless = Box::pin(scope(async |_: &Group| -> Done { pending().await }));
            assert!(poll!(&mut childless).is_pending());
            drop(childless);
            assert_eq!(group.len(), 0);
            drop(scope(async |_: &Group| -> Done { Ok(()) }));
            assert_eq!(group.len(), 0);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(root().orphans(), 0);
    });
}

/// Waits until the runtime has no task: one that waits for itself would be there for ever.
async fn nobody_is_left() {
    let runtime = tokio::runtime::Handle::current();
    until(|| runtime.metrics().num_alive_tasks() == 0).await;
}

/// A future to be dropped by whoever comes first.
type Slot = Arc<Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>>;

/// A scope with a child, or one with a grandchild, that empties the slot once it may.
async fn emptied_from_inside(slot: Slot, go: oneshot::Receiver<()>, deep: bool, drops: Drops) {
    let innermost = async move {
        let _here = drops.guard();
        go.await.expect("a start");
        drop(slot.lock().expect("no panic").take());
    };
    let never = scope(async |group: &Group| -> Done {
        if deep {
            group.spawn(
                scope(async |group: &Group| -> Done {
                    group.spawn(innermost);
                    Ok(())
                })
                .map(drop),
            );
        } else {
            group.spawn(innermost);
        }
        pending().await
    });
    assert!(never.await.is_ok(), "it ended by itself");
}

#[test]
fn a_scope_dropped_by_its_own_child_is_left_to_the_next_owner() {
    every_runtime(async || {
        for deep in [false, true] {
            let (slot, drops, (start, go)) = (Slot::default(), Drops::new(), oneshot::channel());
            let outer = scope(async |_: &Group| -> Done {
                let inner = emptied_from_inside(slot.clone(), go, deep, drops.clone());
                let mut inner: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(inner);
                assert!(poll!(&mut inner).is_pending());
                until(|| drops.made() == 1).await;
                *slot.lock().unwrap() = Some(inner);
                start.send(()).unwrap();
                until(|| slot.lock().unwrap().is_none()).await;
                Ok(())
            });
            outer.await.unwrap();
            assert_eq!((drops.made(), drops.dropped()), (1, 1));
        }
        assert_eq!(root().orphans(), 0);
        nobody_is_left().await;
    });
}

/// A scope with a child that is in a section of 20 ms from its first poll on.
async fn with_a_section_of_20() {
    let never = scope(async |group: &Group| -> Done {
        group.spawn(shield(Duration::MAX, sleep(Duration::from_millis(20))));
        pending().await
    });
    assert!(never.await.is_ok(), "it ended by itself");
}

#[test]
fn who_waits_for_the_root_is_woken_by_its_last_orphan_and_leaves_no_waker() {
    paused(async || {
        let orphan = async |time| {
            let section = shield(Duration::MAX, sleep(Duration::from_millis(time)));
            let mut dropped = Box::pin(scope(async |group: &Group| -> Done {
                group.spawn(section);
                pending().await
            }));
            assert!(poll!(&mut dropped).is_pending());
            yield_now().await;
        };
        orphan(10).await;
        orphan(20).await;
        let [waits, leaves] = [(); 2].map(|()| CountingWaker::new());
        let root = root();
        let mut wait = Box::pin(root.wait(Duration::MAX));
        let mut left = Box::pin(root.wait(Duration::MAX));
        for (wait, waker) in [(&mut wait, &waits), (&mut left, &leaves)] {
            let polled = wait.as_mut().poll(&mut Context::from_waker(&waker.waker()));
            assert!(polled.is_pending());
        }
        drop(left);
        assert_eq!(Arc::strong_count(&leaves), 1);
        sleep(Duration::from_millis(15)).await;
        assert_eq!((root.orphans(), waits.wakes()), (1, 0));
        sleep(Duration::from_millis(10)).await;
        assert_eq!((root.orphans(), waits.wakes(), leaves.wakes()), (0, 1, 0));
        wait.await.expect("nobody is left");
    });
}

#[test]
fn a_scope_dropped_by_a_stranger_is_left_to_the_group_it_was_opened_in() {
    for ends_before in [false, true] {
        paused(async || {
            let began = Instant::now();
            let outer = scope(async |_: &Group| -> Done {
                let polled = async || {
                    let mut inner: Pin<Box<dyn Future<Output = ()> + Send>> =
                        Box::pin(with_a_section_of_20());
                    assert!(poll!(&mut inner).is_pending());
                    yield_now().await;
                    inner
                };
                let inner = if ends_before {
                    let middle = scope(async |_: &Group| Ok(polled().await));
                    middle.await.expect("it waits for nobody")
                } else {
                    polled().await
                };
                assert_eq!(began.elapsed(), Duration::ZERO);
                let stranger = spawn(async move { drop(inner) });
                stranger.await.expect("it only drops");
                assert_eq!(root().orphans(), 0);
                Ok(())
            });
            outer.await.expect("nobody failed");
            assert_eq!(began.elapsed(), Duration::from_millis(20));
        });
    }
}

#[test]
fn a_dropped_scope_refuses_newcomers_for_ever() {
    every_runtime(async || {
        let (polls, drops, mut spawner) = (Count::new(), Drops::new(), None);
        let mut open = Box::pin(scope(async |group: &Group| -> Done {
            spawner = Some(group.spawner());
            group.spawn(parked(&polls, &drops));
            pending().await
        }));
        assert!(poll!(&mut open).is_pending());
        drop(open);
        let spawner = spawner.expect("the body ran");
        for _ in 0..2 {
            let refused = spawner.try_spawn(parked(&polls, &drops));
            let refused = refused.expect_err("nobody would wait for it");
            assert_eq!(refused.reason(), &CancelReason::ScopeDropped);
            drop(refused);
            let outcome = spawner.spawn(parked(&polls, &drops)).await;
            assert_eq!(outcome, Outcome::Cancelled(CancelReason::ScopeDropped));
            root().wait(PATIENCE).await.unwrap(); // the second time nobody is left
        }
        assert!(polls.get() <= 1 && drops.alive() == 0);
    });
}
