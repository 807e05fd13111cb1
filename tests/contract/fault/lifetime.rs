//! Scopes that are dropped, leaked or moved; cancels from unusual places.

use std::{
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, mpsc},
    task::Poll,
    thread,
};

use futures::poll;
use ringfence::{CancelReason, Cause, Ended, Outcome, OutcomeHandle, Scope, root, scope, token};
use tokio::{
    sync::oneshot,
    task::yield_now,
    time::{Instant, sleep},
};

use super::{Done, Group, Notes, ms, observed};
use crate::support::{
    Count, Drops, Log, PATIENCE, Parked, Watchdog, caught, current_thread, every_runtime,
    multi_thread, paused, spawn, until,
};

#[test]
fn a_scope_dropped_before_its_first_poll_leaves_nothing() {
    every_runtime(async || {
        let (ran, drops) = (Count::new(), Drops::new());
        scope(async |outer: &Group| -> Done {
            let (captured, ran) = (drops.guard(), ran.clone());
            drop(scope(async move |group: &Group| -> Done {
                let _captured = captured;
                ran.add();
                group.spawn(async {});
                Ok(())
            }));
            assert_eq!(outer.len(), 0);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!((ran.get(), drops.made(), drops.dropped()), (0, 1, 1));
        assert_eq!(root().orphans(), 0);
    });
}

/// Drops the future after it was polled so many times, each time because it was woken. Says whether it ended.
async fn cut_after(polls: usize, future: impl Future) -> bool {
    let (mut future, mut polled) = (pin!(future), 0);
    poll_fn(|cx| {
        if polled == polls {
            return Poll::Ready(false);
        }
        polled += 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if polled == polls => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[test]
fn a_scope_dropped_at_any_await_leaves_nothing_after_its_owner() {
    every_runtime(async || {
        for children in [1, 10, 1_000] {
            for cut in 0.. {
                let drops = Drops::new();
                let inner = || async {
                    let inner = scope(async |group: &Group| -> Done {
                        for _ in 0..children {
                            let guard = drops.guard();
                            group.spawn(async move {
                                let _guard = guard;
                                yield_now().await;
                                yield_now().await;
                            });
                        }
                        group.spawn_background(Parked::new(&Count::new(), &drops));
                        yield_now().await;
                        group.spawn(yield_now()).await;
                        group
                            .spawn(Parked::new(&Count::new(), &drops))
                            .cancel_and_wait()
                            .await;
                        Ok(())
                    });
                    inner.await.unwrap();
                };
                let owner = scope(async |_: &Group| Ok(cut_after(cut, inner()).await));
                let ended = owner.await.unwrap();
                assert_eq!(drops.alive(), 0, "{children} children, cut {cut}");
                if ended {
                    assert!(cut > 1, "there was nothing to cut");
                    break;
                }
            }
        }
    });
}

#[test]
fn a_leaked_scope_keeps_its_children_counted() {
    every_runtime(async || {
        let (drops, mut spawner) = (Drops::new(), None);
        let (go, gate) = oneshot::channel::<()>();
        scope(async |outer: &Group| -> Done {
            let parked = Parked::new(&Count::new(), &drops);
            let mut leaked = Box::pin(scope(async |group: &Group| -> Done {
                spawner = Some(group.spawner());
                group.spawn(parked);
                let guard = drops.guard();
                group.spawn(async move {
                    let _guard = guard;
                    drop(gate.await);
                });
                pending().await
            }));
            assert!(poll!(&mut leaked).is_pending());
            #[expect(clippy::mem_forget, reason = "this is what the test is about")]
            std::mem::forget(leaked);
            assert_eq!(outer.len(), 0);
            Ok(())
        })
        .await
        .expect("the owner does not hang");
        assert_eq!(drops.alive(), 2, "they run on");
        let spawner = spawner.unwrap();
        let counted =
            |normal: usize| format!("{spawner:?}").contains(&format!("normal: {normal},"));
        assert!(
            spawner.is_open() && counted(3),
            "the body and two: {spawner:?}"
        );
        drop(go);
        until(|| counted(2)).await;
        assert_eq!(spawner.spawn(async { Ok(7) }).await, Outcome::Completed(7));
        spawner.cancel();
        until(|| counted(1)).await;
        assert_eq!(drops.alive(), 0);
    });
}

#[test]
fn a_scope_moved_between_threads_and_runtimes_loses_no_wake() {
    let _watchdog = Watchdog::start("three runtimes", PATIENCE);
    let (home, other) = (multi_thread(1), multi_thread(2));
    for round in 0..20 {
        let (go, gate) = oneshot::channel::<()>();
        let moved = scope(async move |group: &Group| {
            let child = group.spawn(async move {
                drop(gate.await);
                Ok(tokio::runtime::Handle::current().id())
            });
            yield_now().await;
            Ok(child.await)
        });
        let mut moved: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(moved);
        home.block_on(async { assert!(poll!(&mut moved).is_pending()) });
        let (give, mut given) = oneshot::channel();
        other.block_on(async {
            let there = spawn(async move {
                assert!(poll!(&mut moved).is_pending());
                drop(give.send(moved));
            });
            there.await.unwrap();
        });
        let mut moved = given.try_recv().unwrap();
        let there = thread::spawn(move || {
            current_thread().block_on(async {
                if round % 2 == 0 {
                    assert!(poll!(&mut moved).is_pending());
                }
                drop(go);
                moved.await
            })
        });
        assert_eq!(there.join().unwrap().unwrap(), home.handle().id());
    }
}

#[test]
fn a_child_that_returns_ok_after_the_cancel_counts_as_completed() {
    every_runtime(async || {
        let (notes, mut handle) = (Notes::default(), None);
        let error = observed(&notes)
            .run(async |group: &Group| -> Done {
                let spawner = group.spawner();
                let child = group.spawn(async move {
                    spawner.cancel();
                    assert!(token().is_cancelled());
                    Ok(7)
                });
                handle = Some(child.detached());
                pending().await
            })
            .await
            .unwrap_err();
        assert!(error.is_cancelled());
        assert_eq!(handle.unwrap().await, Outcome::Completed(7));
        assert_eq!(notes.ended.entries(), [Ended::Completed]);
    });
}

#[test]
fn a_child_that_loops_over_yield_now_is_cancelled_at_its_next_await() {
    every_runtime(async || {
        let (turns, after) = (Count::new(), Count::new());
        let error = scope(async |group: &Group| -> Done {
            let (turns_inside, after, spawner) = (turns.clone(), after.clone(), group.spawner());
            group.spawn(async move {
                loop {
                    turns_inside.add();
                    if spawner.is_cancelled() {
                        after.add();
                    }
                    yield_now().await;
                }
            });
            until(|| turns.get() > 100).await;
            group.cancel();
            Ok(())
        })
        .await
        .unwrap_err();
        assert!(error.is_cancelled());
        assert!(after.get() <= 1, "{} turns after the cancel", after.get());
    });
}

#[test]
fn a_child_that_cancels_its_own_group_at_its_first_step_ends_it() {
    every_runtime(async || {
        for waits in [true, false] {
            let (drops, mut id) = (Drops::new(), None);
            let error = scope(async |group: &Group| -> Done {
                let (spawner, guard) = (group.spawner(), drops.guard());
                let child = group.spawn(async move {
                    let _guard = guard;
                    spawner.cancel();
                    if waits {
                        pending::<()>().await;
                    }
                });
                id = Some(child.id());
                pending().await
            })
            .await
            .unwrap_err();
            let reason = CancelReason::Requested { note: None, by: id };
            assert_eq!(error.cause(), &Cause::Cancelled(reason));
            assert_eq!((error.len(), drops.alive()), (0, 0));
        }
    });
}

#[test]
fn an_outer_cancel_while_the_inner_group_closes_for_an_error_is_seen_by_both() {
    /// Fails after 10 ms, and has a cleanup of 50 ms.
    async fn inner() -> Result<(), ringfence::GroupError<String>> {
        Scope::new()
            .grace(ms(100))
            .run(async |group: &Group| -> Done {
                group.spawn(async {
                    sleep(ms(10)).await;
                    Err::<(), _>("inner".to_owned())
                });
                group.spawn(async {
                    token().cancelled().await;
                    sleep(ms(50)).await;
                });
                Ok(())
            })
            .await
    }
    paused(async || {
        let (start, kept) = (Instant::now(), Log::new());
        let error = Scope::new()
            .grace(ms(200))
            .run(async |group: &Group| -> Done {
                let kept = kept.clone();
                group.spawn(async move {
                    kept.push(inner().await.unwrap_err().into_first().unwrap());
                    assert!(token().is_cancelled(), "the outer cancel is still there");
                });
                sleep(ms(30)).await;
                group.cancel();
                Ok(())
            })
            .await
            .unwrap_err();
        assert_eq!(start.elapsed(), ms(60));
        assert_eq!(kept.entries(), ["inner"]);
        assert!(error.is_cancelled() && error.is_empty());
        // Without a grace outside, the inner scope is dropped: its error goes to the observer.
        let (start, notes) = (Instant::now(), Notes::default());
        let error = observed(&notes)
            .run(async |group: &Group| -> Done {
                group.spawn(async { drop(inner().await) });
                sleep(ms(30)).await;
                group.cancel();
                Ok(())
            })
            .await
            .unwrap_err();
        assert_eq!(start.elapsed(), ms(30));
        assert_eq!(notes.displaced.entries(), ["inner"]);
        assert!(error.is_cancelled() && error.is_empty());
    });
}

#[test]
fn a_million_spawns_against_a_closing_group_add_up() {
    const THREADS: usize = 4;
    const EACH: usize = if cfg!(debug_assertions) {
        5_000
    } else {
        250_000
    };
    let _watchdog = Watchdog::start("a million spawns", PATIENCE);
    for runtime in [current_thread(), multi_thread(2)] {
        let (notes, drops) = (Notes::default(), Drops::new());
        let [accepted, refused, ran] = [Count::new(), Count::new(), Count::new()];
        let (hand_out, spawners) = mpsc::channel();
        let threads = thread::spawn({
            let (drops, accepted, refused, ran) = (
                drops.clone(),
                accepted.clone(),
                refused.clone(),
                ran.clone(),
            );
            move || {
                let spawner: ringfence::Spawner<String> = spawners.recv().unwrap();
                thread::scope(|threads| {
                    for _ in 0..THREADS {
                        threads.spawn(|| {
                            for _ in 0..EACH {
                                let (guard, ran) = (drops.guard(), ran.clone());
                                let spawned = spawner.try_spawn(async move {
                                    let _guard = guard;
                                    ran.add();
                                });
                                if spawned.is_ok() {
                                    accepted.add()
                                } else {
                                    refused.add()
                                };
                            }
                        });
                    }
                });
            }
        });
        let closing = observed(&notes).run(async |group: &Group| -> Done {
            hand_out.send(group.spawner()).unwrap();
            until(|| accepted.get() > THREADS * EACH / 4).await;
            group.cancel();
            Ok(())
        });
        assert!(runtime.block_on(closing).unwrap_err().is_cancelled());
        threads.join().unwrap();
        assert_eq!(accepted.get() + refused.get(), THREADS * EACH);
        assert_eq!((drops.made(), drops.alive()), (THREADS * EACH, 0));
        let ended = notes.ended.entries();
        let completed = ended.iter().filter(|how| **how == Ended::Completed).count();
        assert_eq!(completed, ran.get());
        assert_eq!(
            (ended.len(), notes.spawned.get()),
            (accepted.get(), accepted.get())
        );
    }
}

#[test]
fn awaiting_a_child_that_was_cancelled_alone_cancels_the_group() {
    every_runtime(async || {
        let (drops, after, mut id) = (Drops::new(), Count::new(), None);
        let error = scope(async |group: &Group| -> Done {
            group.spawn(Parked::new(&Count::new(), &drops));
            let child = group.spawn(Parked::new(&Count::new(), &drops));
            id = Some(child.id());
            child.cancel();
            child.await;
            after.add();
            Ok(())
        })
        .await
        .unwrap_err();
        let reason = CancelReason::AwaitedCancelled(id.unwrap());
        assert_eq!(error.cause(), &Cause::Cancelled(reason));
        assert_eq!((after.get(), drops.alive()), (0, 0));
    });
}

#[test]
fn a_handle_polled_after_its_end_is_a_documented_panic() {
    every_runtime(async || {
        scope(async |group: &Group| -> Done {
            let mut handle = group.spawn(async { Ok(7) });
            assert_eq!((&mut handle).await, 7);
            let text = caught(&mut handle).await.unwrap_err();
            assert!(text.contains("polled after it had yielded"), "{text}");
            let mut handle = group.spawner().spawn(async { Ok(7) });
            assert_eq!((&mut handle).await, Outcome::Completed(7));
            let text = caught(&mut handle).await.unwrap_err();
            assert!(text.contains("polled after it had yielded"), "{text}");
            // A child that cancels itself, and needs no other await.
            let own = Arc::new(Mutex::new(None::<OutcomeHandle<u8>>));
            let (put, taken) = oneshot::channel::<()>();
            let inside = own.clone();
            *own.lock().unwrap() = Some(group.spawner().spawn(async move {
                taken.await.unwrap();
                inside.lock().unwrap().as_ref().unwrap().cancel();
                Ok(7)
            }));
            put.send(()).unwrap();
            until(|| own.lock().unwrap().as_ref().unwrap().is_finished()).await;
            let own = own.lock().unwrap().take().unwrap();
            assert_eq!(own.await, Outcome::Completed(7));
            Ok(())
        })
        .await
        .unwrap();
    });
}
