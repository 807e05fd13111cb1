//! Many children, deep scopes, close races, odd deadlines.

use std::{future::pending, sync::Arc, thread};

use ringfence::{CancelReason, Cause, Deadline, Ended, Outcome, Scope, root, scope, token};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    task::yield_now,
    time::{Instant, sleep},
};

use super::{Boxed, Done, Group, Notes, ms, scaled};
use crate::support::{
    Count, Drops, PATIENCE, Parked, Watchdog, current_thread, every_runtime, multi_thread, paused,
    settle, spawn, until,
};

#[test]
fn a_million_children_at_once_and_ten_million_short_ones_fit() {
    let at_once = scaled(1_000_000, 20_000);
    let batches = scaled(10_000, 200);
    let _watchdog = Watchdog::start("a million children", PATIENCE);
    for runtime in [current_thread(), multi_thread(2)] {
        runtime.block_on(async {
            let metrics = Handle::current().metrics();
            let (polls, drops) = (Count::new(), Drops::new());
            scope(async |group: &Group| -> Done {
                for _ in 0..at_once {
                    group.spawn(Parked::new(&polls, &drops));
                }
                assert_eq!((group.len(), drops.alive()), (at_once, at_once));
                group.cancel_children();
                until(|| group.is_empty()).await;
                assert_eq!(drops.alive(), 0);
                for _ in 0..batches {
                    for _ in 0..1_000 {
                        let polls = polls.clone();
                        group.spawn(async move {
                            polls.add();
                        });
                    }
                    until(|| group.is_empty()).await;
                    // What has ended is freed, while the scope goes on; a worker may be about to free its last.
                    assert!(metrics.num_alive_tasks() < 100);
                }
                Ok(())
            })
            .await
            .unwrap();
            assert!(polls.get() >= batches * 1_000);
        });
    }
}

/// Scopes nested through spawn: the innermost parks.
fn nested(depth: usize, reached: Count, drops: Drops) -> Boxed {
    Box::pin(async move {
        let nested = scope(async |group: &Group| -> Done {
            if depth > 0 {
                let guard = drops.guard();
                let inner = nested(depth - 1, reached, drops.clone());
                group.spawn(async move {
                    let _guard = guard;
                    inner.await;
                });
            } else {
                reached.add();
            }
            pending().await
        });
        assert!(nested.await.is_ok(), "it ended by itself");
    })
}

#[test]
fn ten_thousand_scopes_nested_through_spawn_drop_from_the_top() {
    const DEPTH: usize = 10_000;
    every_runtime(async || {
        let (reached, drops) = (Count::new(), Drops::new());
        let top = spawn(nested(DEPTH, reached.clone(), drops.clone()));
        until(|| reached.get() == 1).await;
        top.abort();
        assert!(top.await.unwrap_err().is_cancelled());
        root().wait(PATIENCE).await.unwrap();
        assert_eq!((drops.made(), drops.dropped()), (DEPTH, DEPTH));
    });
    // And with the runtime.
    for runtime in [current_thread(), multi_thread(2)] {
        let (reached, drops) = (Count::new(), Drops::new());
        runtime.block_on(async {
            drop(spawn(nested(DEPTH, reached.clone(), drops.clone())));
            until(|| reached.get() == 1).await;
        });
        drop(runtime);
        assert_eq!((drops.made(), drops.dropped()), (DEPTH, DEPTH));
    }
}

/// Scopes nested in one task: the innermost says how deep it is, or parks.
fn inline(depth: usize, parks: bool, drops: Drops) -> Boxed<usize> {
    Box::pin(async move {
        scope(async |group: &Group| {
            let guard = drops.guard();
            group.spawn_background(async move {
                let _guard = guard;
                pending::<()>().await;
            });
            match depth {
                0 if parks => pending().await,
                0 => Ok(0),
                _ => Ok(1 + inline(depth - 1, parks, drops.clone()).await),
            }
        })
        .await
        .expect("nobody fails")
    })
}

/// A worker's default, or where nothing is optimized (some 5 KiB a level) that of a main thread.
const STACK: usize = scaled(2, 8) << 20;

#[test]
fn a_thousand_scopes_nested_inline_fit_a_debug_stack() {
    async fn in_one_task_and_in_another() {
        let drops = Drops::new();
        assert_eq!(inline(1_000, false, drops.clone()).await, 1_000);
        assert_eq!((drops.made(), drops.dropped()), (1_001, 1_001));
        let dropped = spawn(inline(1_000, true, drops.clone()));
        until(|| drops.made() == 2_002).await;
        dropped.abort();
        assert!(dropped.await.unwrap_err().is_cancelled());
        root().wait(PATIENCE).await.unwrap();
        assert_eq!(drops.alive(), 0);
    }
    let _watchdog = Watchdog::start("scopes nested inline", PATIENCE);
    let own = thread::Builder::new().stack_size(STACK);
    let own = own.spawn(|| current_thread().block_on(in_one_task_and_in_another()));
    own.unwrap().join().unwrap();
    for workers in [1, 2] {
        let runtime = Builder::new_multi_thread()
            .worker_threads(workers)
            .thread_stack_size(STACK)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async { spawn(in_one_task_and_in_another()).await.unwrap() });
    }
}

#[test]
fn a_past_deadline_and_one_that_fires_while_closing_are_both_honoured() {
    paused(async || {
        let (start, drops) = (Instant::now(), Drops::new());
        let past = Scope::new()
            .deadline(Deadline::at(start))
            .run(async |group: &Group| -> Done {
                group.spawn(Parked::new(&Count::new(), &drops));
                pending().await
            });
        assert!(past.await.unwrap_err().is_deadline_exceeded());
        assert_eq!(
            (start.elapsed(), drops.made(), drops.alive()),
            (ms(0), 1, 0)
        );
        // One that fires while its group closes for an error: the error stands, and so does the cleanup.
        let closing = Scope::new()
            .grace(ms(100))
            .deadline(Deadline::after(ms(20)))
            .run(async |group: &Group| -> Done {
                group.spawn(async {
                    token().cancelled().await;
                    sleep(ms(30)).await;
                });
                sleep(ms(10)).await;
                Err("first".to_owned())
            });
        let error = closing.await.unwrap_err();
        assert_eq!((start.elapsed(), error.cause()), (ms(40), &Cause::Failed));
        assert_eq!(error.into_first().unwrap(), "first");
        // The earliest of nested ones: it is the outer scope that is late, and it drops the inner one.
        let nested =
            Scope::new()
                .deadline(Deadline::after(ms(20)))
                .run(async |_: &Group| -> Done {
                    let inner = Scope::new().deadline(Deadline::after(ms(50))).run(
                        async |group: &Group| -> Done {
                            group.spawn(Parked::new(&Count::new(), &drops));
                            pending().await
                        },
                    );
                    inner.await.map_err(|error| error.to_string())
                });
        let error = nested.await.unwrap_err();
        assert!(error.is_deadline_exceeded() && error.is_empty());
        assert_eq!(
            (start.elapsed(), drops.made(), drops.alive()),
            (ms(60), 2, 0)
        );
    });
}

#[test]
fn a_wait_that_loses_against_cancel_has_exactly_one_outcome() {
    paused(async || {
        for parked in [true, false] {
            for send_first in [true, false] {
                let notes = Notes::default();
                Scope::new()
                    .observer(Arc::new(notes.clone()))
                    .run(async |group: &Group| -> Done {
                        let (go, gate) = oneshot::channel::<u8>();
                        let child =
                            group.spawn(async move { gate.await.map_err(|_| "?".to_owned()) });
                        if parked {
                            settle().await;
                        }
                        if send_first {
                            go.send(7).unwrap();
                            child.cancel();
                        } else {
                            child.cancel();
                            let _unless_cancelled = go.send(7);
                        }
                        // Neither has run yet, so the cancel is seen first, in every order of the two.
                        let outcome = child.outcome().await;
                        assert_eq!(outcome, Outcome::Cancelled(CancelReason::Handle));
                        Ok(())
                    })
                    .await
                    .unwrap();
                assert_eq!(
                    notes.ended.entries(),
                    [Ended::Cancelled(CancelReason::Handle)]
                );
            }
        }
    });
    every_runtime(async || {
        let notes = Notes::default();
        let rounds = scaled(20_000, 1_000);
        let (mut completed, mut cancelled) = (0, 0);
        Scope::new()
            .observer(Arc::new(notes.clone()))
            .run(async |group: &Group| -> Done {
                for round in 0..rounds {
                    let (go, gate) = oneshot::channel::<u8>();
                    let child = group.spawn(async move { gate.await.map_err(|_| "?".to_owned()) });
                    let sender = group.spawn(async move {
                        let _unless_cancelled = go.send(7);
                    });
                    for _ in 0..round % 4 {
                        yield_now().await;
                    }
                    match child.cancel_and_wait().await {
                        Outcome::Completed(7) => completed += 1,
                        Outcome::Cancelled(CancelReason::Handle) => cancelled += 1,
                        other => panic!("{other:?}"),
                    }
                    sender.await;
                }
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(completed + cancelled, rounds);
        let ended = notes.ended.entries();
        let seen = ended.iter().filter(|how| **how == Ended::Completed).count();
        assert_eq!((seen, ended.len()), (completed + rounds, 2 * rounds));
    });
}
