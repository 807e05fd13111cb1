//! Runtimes that go away, nest, differ, and end with their threads.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::{Future, pending, poll_fn},
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use futures::poll;
use ringfence::{
    CancelReason, Cause, Deadline, Ended, Observer, Outcome, Scope, Spawner, Straggler, root,
    scope, shield, snapshot,
};
use tokio::{
    runtime::{Handle, Runtime},
    sync::oneshot,
    task::coop::poll_proceed,
    task::{LocalSet, block_in_place, spawn_blocking, spawn_local, yield_now},
};

use super::{Boxed, Done, Group, Notes, observed};
use crate::support::{
    Count, Drops, PATIENCE, Parked, Watchdog, current_thread, every_runtime, multi_thread, settle,
    spawn, until,
};

#[test]
fn a_runtime_that_goes_away_mid_scope_is_an_outcome() {
    let _watchdog = Watchdog::start("a runtime that goes away", PATIENCE);
    for from_inside in [true, false] {
        let (gone, other) = (multi_thread(2), current_thread());
        let (polls, drops) = (Count::new(), Drops::new());
        let handles = Mutex::new(Vec::new());
        let (give, given) = oneshot::channel::<Runtime>();
        let mut orphaned = Box::pin(scope(async |group: &Group| -> Done {
            let inside = polls.clone();
            group.spawn(async move {
                inside.add();
                given.await.expect("a runtime").shutdown_background();
            });
            for _ in 0..3 {
                let parked = Parked::new(&polls, &drops);
                handles.lock().unwrap().push(group.spawn(parked).detached());
            }
            pending().await
        }));
        gone.block_on(async {
            assert!(poll!(&mut orphaned).is_pending());
            until(|| polls.get() == 4).await;
        });
        if from_inside {
            give.send(gone).unwrap();
        } else {
            drop(gone);
            drop(give);
        }
        let error = other.block_on(orphaned).unwrap_err();
        other.block_on(async {
            assert_eq!(error.cause(), &Cause::Cancelled(CancelReason::RuntimeGone));
            for handle in handles.into_inner().unwrap() {
                let outcome = handle.await;
                // One that was parked may have heard of the cancel before the end of its runtime.
                let cancelled = Outcome::Cancelled(CancelReason::RuntimeGone);
                assert!(
                    [Outcome::RuntimeGone, cancelled].contains(&outcome),
                    "{outcome:?}"
                );
            }
        });
        assert_eq!((drops.made(), drops.dropped()), (3, 3));
    }
    // A spawn on a runtime that is gone already.
    let (gone, other, drops) = (current_thread(), current_thread(), Drops::new());
    let mut spawner = None;
    let mut empty = Box::pin(scope(async |group: &Group| -> Done {
        spawner = Some(group.spawner());
        pending().await
    }));
    gone.block_on(async { assert!(poll!(&mut empty).is_pending()) });
    drop(gone);
    other.block_on(async { assert!(poll!(&mut empty).is_pending()) });
    drop(empty);
    let spawner: Spawner<String> = spawner.unwrap();
    let late = spawner.spawn(Parked::new(&Count::new(), &drops));
    assert!(other.block_on(late).is_cancelled());
    assert_eq!((drops.made(), drops.dropped()), (1, 1));
}

#[test]
fn block_in_place_and_block_on_elsewhere_keep_the_contract() {
    async fn abandoned_and_finished(drops: Drops) -> Result<u8, String> {
        let mut dropped = Box::pin(scope(async |group: &Group| -> Done {
            group.spawn(Parked::new(&Count::new(), &drops));
            pending().await
        }));
        assert!(poll!(&mut dropped).is_pending());
        drop(dropped);
        let finished = scope(async |group: &Group| Ok(group.spawn(async { Ok(7) }).await));
        finished.await.map_err(|error| error.to_string())
    }
    let _watchdog = Watchdog::start("blocked workers", PATIENCE);
    for workers in [1, 2, 4] {
        multi_thread(workers).block_on(async {
            let (drops, turns) = (Drops::new(), Count::new());
            let values = scope(async |group: &Group| {
                let (inside, turns_inside) = (drops.clone(), turns.clone());
                group.spawn_background(async move {
                    loop {
                        turns_inside.add();
                        yield_now().await;
                    }
                });
                let in_place = group.spawn(async move {
                    let here = Handle::current();
                    block_in_place(|| here.block_on(abandoned_and_finished(inside)))
                });
                let inside = drops.clone();
                let elsewhere = group.spawn(async move {
                    let blocking = spawn_blocking(|| {
                        let runtime = current_thread();
                        runtime.block_on(async {
                            let value = abandoned_and_finished(inside).await;
                            root().wait(PATIENCE).await.unwrap();
                            value
                        })
                    });
                    blocking.await.unwrap()
                });
                Ok((in_place.await, elsewhere.await))
            });
            assert_eq!(values.await.unwrap(), (7, 7));
            assert_eq!((drops.made(), drops.dropped()), (2, 2));
            assert!(turns.get() > 0);
        });
    }
}

#[test]
fn a_scope_inside_a_local_set_keeps_the_contract_when_it_is_dropped() {
    every_runtime(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        let body_drops = drops.clone();
        let (polls_inside, drops_inside) = (polls.clone(), drops.clone());
        LocalSet::new()
            .run_until(async {
                let task = spawn_local(async move {
                    let local = std::rc::Rc::new(body_drops.guard());
                    scope(async |group: &Group| -> Done {
                        let _local = local.clone();
                        for _ in 0..3 {
                            group.spawn(Parked::new(&polls_inside, &drops_inside));
                        }
                        pending().await
                    })
                    .await
                });
                until(|| polls.get() == 3).await;
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled());
            })
            .await;
        root().wait(PATIENCE).await.unwrap();
        assert_eq!((drops.made(), drops.dropped()), (4, 4));
    });
}

#[test]
fn outcomes_are_the_same_on_every_shape_of_runtime() {
    /// What comes out: the sum of the values, the outcomes that stand out, and the error.
    async fn one_run() -> (usize, Vec<Outcome<usize>>, String) {
        let (mut outcomes, turns) = (Vec::new(), Count::new());
        let mut sum = 0;
        let error = scope(async |group: &Group| -> Done {
            let inside = turns.clone();
            group.spawn_background(async move {
                loop {
                    inside.add();
                    yield_now().await;
                }
            });
            // The body's budget is spent.
            poll_fn(|cx| match poll_proceed(cx) {
                Poll::Ready(spent) => {
                    spent.made_progress();
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Pending => Poll::Ready(()),
            })
            .now_or_later();
            let children: Vec<_> = (0..10_000)
                .map(|number| {
                    group.spawn(async move {
                        tokio::task::consume_budget().await;
                        Ok(number)
                    })
                })
                .collect();
            for child in children {
                sum += child.await;
            }
            assert!(turns.get() > 1, "ten thousand ready children starve nobody");
            outcomes.push(group.spawn(async { Ok(7) }).outcome().await);
            let cancelled = group.spawn(async {
                pending::<()>().await;
                Ok(8)
            });
            outcomes.push(cancelled.cancel_and_wait().await);
            let failed = group.spawn(async { Err::<usize, _>("failed".to_owned()) });
            failed.await;
            Ok(())
        })
        .await
        .unwrap_err();
        (sum, outcomes, error.into_first().unwrap())
    }
    let _watchdog = Watchdog::start("every shape", PATIENCE);
    let expected = (
        10_000 * 9_999 / 2,
        vec![
            Outcome::Completed(7),
            Outcome::Cancelled(CancelReason::Handle),
        ],
        "failed".to_owned(),
    );
    let shapes = [
        current_thread(),
        multi_thread(1),
        multi_thread(2),
        multi_thread(16),
    ];
    for runtime in shapes {
        assert_eq!(runtime.block_on(one_run()), expected);
        let in_a_task = runtime.block_on(async { spawn(one_run()).await.unwrap() });
        assert_eq!(in_a_task, expected);
    }
}

/// Polls a future that is about the task's budget until it says so, all in one poll.
trait NowOrLater: Future<Output = ()> + Sized {
    fn now_or_later(self) {
        let mut this = pin!(self);
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..1_000 {
            if this.as_mut().poll(&mut cx).is_ready() {
                return;
            }
        }
    }
}

impl<F: Future<Output = ()>> NowOrLater for F {}

thread_local! {
    /// What is dropped when its thread exits, after ringfence's own thread-local may have gone.
    static LEFT: RefCell<VecDeque<Boxed>> = const { RefCell::new(VecDeque::new()) };
}

#[test]
fn two_runtimes_that_end_on_their_threads_do_not_disturb_each_other() {
    let _watchdog = Watchdog::start("two runtimes", PATIENCE);
    let drops = Drops::new();
    let endless = |drops: Drops| async move {
        let never = scope(async |group: &Group| -> Done {
            for _ in 0..3 {
                group.spawn(Parked::new(&Count::new(), &drops));
            }
            pending().await
        });
        drop(never.await);
    };
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let drops = drops.clone();
            thread::spawn(move || {
                let runtime = current_thread();
                runtime.block_on(async {
                    let mut dropped = Box::pin(endless(drops.clone()));
                    assert!(poll!(&mut dropped).is_pending());
                    drop(dropped);
                    assert_eq!(root().orphans(), 1, "only our own");
                    root().wait(PATIENCE).await.unwrap();
                    // One scope outlives its runtime, and is dropped when the thread exits.
                    let mut left: Boxed = Box::pin(endless(drops.clone()));
                    assert!(poll!(&mut left).is_pending());
                    LEFT.with(|slot| slot.borrow_mut().push_back(left));
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a quiet exit");
    }
    assert_eq!((drops.made(), drops.dropped()), (12, 12));
}

#[test]
fn a_runtime_shut_down_under_the_clock_of_a_scope_is_an_outcome() {
    let _watchdog = Watchdog::start("a clock that goes away", PATIENCE);
    let long = Duration::from_secs(3600);
    // Its child on the same runtime, or on one that lasts.
    for (has_grace, lasts) in [(false, false), (true, false), (false, true), (true, true)] {
        let (runtime, polls, drops) = (multi_thread(2), Count::new(), Drops::new());
        let lasting = multi_thread(1);
        let options = Scope::new().deadline(Deadline::after(long));
        let options = if has_grace {
            options.grace(long)
        } else {
            options
        };
        let child = Parked::new(&polls, &drops);
        let waiting = thread::spawn({
            let handle = runtime.handle().clone();
            let on = if lasts { lasting.handle() } else { &handle }.clone();
            move || {
                handle.block_on(options.run(async |group: &Group| -> Done {
                    group.spawn_on(&on, child);
                    pending().await
                }))
            }
        });
        while polls.get() == 0 {
            thread::yield_now();
        }
        drop(runtime);
        let error = waiting.join().expect("no panic").unwrap_err();
        assert_eq!(error.cause(), &Cause::Cancelled(CancelReason::RuntimeGone));
        assert_eq!((drops.made(), drops.dropped()), (1, 1));
    }
}

#[test]
fn the_observer_hears_of_those_whose_runtime_is_gone() {
    let _watchdog = Watchdog::start("a runtime that goes away", PATIENCE);
    for is_cancelled in [false, true] {
        let (gone, other, notes) = (current_thread(), current_thread(), Notes::default());
        let (polls, drops) = (Count::new(), Drops::new());
        let mut orphaned = Box::pin(observed(&notes).run(async |group: &Group| -> Done {
            for _ in 0..3 {
                group.spawn(Parked::new(&polls, &drops));
            }
            until(|| polls.get() == 3).await;
            if is_cancelled {
                group.cancel_with("before");
            }
            pending().await
        }));
        gone.block_on(async {
            while polls.get() < 3 {
                assert!(poll!(&mut orphaned).is_pending());
                yield_now().await;
            }
        });
        other.block_on(async { assert!(poll!(&mut orphaned).is_pending()) });
        drop(gone);
        let error = other.block_on(orphaned).unwrap_err();
        let Cause::Cancelled(reason) = error.cause() else {
            panic!("{error:?}")
        };
        let cancelled = Ended::Cancelled(reason.clone());
        let mut ended = notes.ended.entries();
        assert_eq!(ended.len(), 3);
        if is_cancelled {
            // They were told to end before, and did.
            assert_ne!(reason, &CancelReason::RuntimeGone);
            assert_eq!(ended, vec![cancelled; 3]);
        } else {
            // The first of them to go cancels the rest.
            ended.retain(|how| how != &cancelled);
            assert_eq!(ended, [Ended::RuntimeGone]);
        }
    }
}

#[test]
fn one_that_has_returned_before_its_runtime_is_gone_has_completed() {
    let _watchdog = Watchdog::start("a runtime that goes away", PATIENCE);
    let (gone, other, notes) = (current_thread(), current_thread(), Notes::default());
    let (drops, returned) = (Drops::new(), Count::new());
    let options = observed(&notes).name("outlived");
    let mut orphaned = Box::pin(options.run(async |group: &Group| -> Done {
        let (drops, returned) = (drops.clone(), returned.clone());
        group.named("first").spawn(async move {
            // What it leaves behind is in a section that nobody ends.
            let mut inner = Box::pin(scope(async |group: &Group| -> Done {
                let guard = drops.guard();
                group.spawn(async move {
                    let _guard = guard;
                    shield(Duration::MAX, pending::<()>()).await;
                });
                pending().await
            }));
            assert!(poll!(&mut inner).is_pending());
            yield_now().await;
            drop(inner);
            returned.add();
        });
        pending().await
    }));
    gone.block_on(async {
        assert!(poll!(&mut orphaned).is_pending());
        until(|| returned.get() == 1).await;
        settle().await;
    });
    assert!(notes.ended.entries().is_empty(), "it waits");
    let seen = || snapshot().within("outlived").tasks().count();
    assert_eq!((drops.alive(), seen()), (1, 2));
    drop(gone);
    assert_eq!((drops.alive(), seen()), (0, 0));
    let completed = notes.ended.entries().into_iter();
    assert_eq!(completed.filter(|how| how == &Ended::Completed).count(), 1);
    other.block_on(async { assert!(poll!(&mut orphaned).is_pending(), "its body goes on") });
}

/// Counts those who are said to have outlasted a grace.
struct Stragglers(Count);

impl Observer for Stragglers {
    fn forced(&self, _: &Straggler) {
        self.0.add();
    }
}

#[test]
fn children_of_a_runtime_that_is_gone_are_no_stragglers() {
    let _watchdog = Watchdog::start("a runtime that goes away", PATIENCE);
    let (gone, other) = (multi_thread(2), current_thread());
    let (stragglers, polls, drops) = (Count::new(), Count::new(), Drops::new());
    let options = Scope::new()
        .grace(Duration::from_secs(3600))
        .observer(Arc::new(Stragglers(stragglers.clone())));
    let mut orphaned = Box::pin(options.run(async |group: &Group| -> Done {
        for _ in 0..3 {
            group.spawn(Parked::new(&polls, &drops));
        }
        pending().await
    }));
    gone.block_on(async {
        assert!(poll!(&mut orphaned).is_pending());
        until(|| polls.get() == 3).await;
    });
    drop(gone);
    let error = other.block_on(orphaned).unwrap_err();
    assert_eq!(error.cause(), &Cause::Cancelled(CancelReason::RuntimeGone));
    assert_eq!((error.forced().len(), stragglers.get()), (0, 0));
    assert_eq!((drops.made(), drops.dropped()), (3, 3));
}
