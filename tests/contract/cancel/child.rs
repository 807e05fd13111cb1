//! Cancel of one child, or of all, while the group stays open.

use std::{
    future::pending,
    sync::{Arc, Barrier},
    thread,
};

use futures::FutureExt;
use ringfence::{CancelReason, Outcome, OutcomeHandle, Scope, scope, token};
use tokio::{
    sync::oneshot,
    task::yield_now,
    time::{Instant, sleep},
};

use super::{Group, Lost, ms, parked};
use crate::support::{
    Count, Drops, Log, OnDrop, PATIENCE, Parked, Watchdog, every_runtime, multi_thread, paused,
    settle, single_thread, until,
};

#[test]
fn cancelling_one_child_leaves_siblings_and_body_running() {
    every_runtime(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        let ended = scope(async |group: &Group| {
            let (go, goes) = oneshot::channel();
            let sibling = group.spawn(async { goes.await.map_err(|_| Lost(1)) });
            let child = group.spawn(Parked::new(&polls, &drops));
            until(|| polls.get() > 0).await;
            child.cancel();
            assert_eq!(
                child.outcome().await,
                Outcome::Cancelled(CancelReason::Handle)
            );
            assert!(!group.is_cancelled() && !token().is_cancelled());
            yield_now().await;
            assert!(go.send(7).is_ok());
            Ok(sibling.await)
        });
        assert_eq!((ended.await.unwrap(), drops.alive()), (7, 0));
    });
}

#[test]
fn a_child_cancelled_before_its_first_poll_never_runs() {
    single_thread(async || {
        for alone in [true, false] {
            let (polls, drops) = (Count::new(), Drops::new());
            let ended = scope(async |group: &Group| {
                let child = group.spawn(Parked::new(&polls, &drops));
                if alone {
                    child.cancel();
                    assert!(child.outcome().await.is_cancelled());
                } else {
                    group.cancel();
                }
                Ok(())
            });
            assert_eq!(ended.await.is_ok(), alone);
            assert_eq!((polls.get(), drops.made(), drops.alive()), (0, 1, 0));
        }
    });
}

#[test]
fn a_child_that_cancels_itself_ends_at_its_next_await() {
    every_runtime(async || {
        let steps = Log::new();
        let ended = scope(async |group: &Group| {
            let (give, given) = oneshot::channel::<Arc<OutcomeHandle<()>>>();
            let log = steps.clone();
            let own = Arc::new(group.spawner().spawn(async move {
                let own = given.await.map_err(|_| Lost(1))?;
                own.cancel();
                log.push("on to its next await");
                yield_now().await;
                log.push("behind it");
                Ok(())
            }));
            assert!(give.send(own.clone()).is_ok());
            until(|| Arc::strong_count(&own) == 1).await;
            let own = Arc::into_inner(own).expect("the child is gone");
            assert_eq!(own.await, Outcome::Cancelled(CancelReason::Handle));
            Ok(())
        });
        assert!(ended.await.is_ok());
        assert_eq!(steps.entries(), ["on to its next await"]);
    });
}

#[test]
fn cancel_and_wait_returns_after_the_childs_cleanup() {
    every_runtime(async || {
        let (started, log) = (Count::new(), Log::new());
        let ended = scope(async |group: &Group| {
            let (running, child_gone, grandchild_gone) =
                (started.clone(), log.clone(), log.clone());
            let child = group.spawn(async move {
                let _slow = OnDrop::new(move || {
                    (0..500).for_each(|_| thread::yield_now());
                    child_gone.push("child");
                });
                let inner = scope(async move |inner: &Group| {
                    inner.spawn(async move {
                        let _guard = grandchild_gone.on_drop("grandchild");
                        running.add();
                        pending::<()>().await;
                    });
                    parked::<()>().await
                });
                inner.await.map_err(|_| Lost(1))
            });
            until(|| started.get() > 0).await;
            let outcome = child.cancel_and_wait().await;
            assert_eq!(outcome, Outcome::Cancelled(CancelReason::Handle));
            let mut gone = log.entries();
            gone.sort_unstable();
            Ok(gone)
        });
        assert_eq!(ended.await.unwrap(), ["child", "grandchild"]);
    });
}

#[test]
fn cancel_returns_at_once_and_the_group_still_waits() {
    paused(async || {
        let (start, drops) = (Instant::now(), Drops::new());
        let ended = Scope::new().grace(ms(100)).run(async |group: &Group| {
            let guard = drops.guard();
            let child = group.spawn(async move {
                let _guard = guard;
                token().cancelled().await;
                sleep(ms(50)).await;
            });
            yield_now().await;
            child.cancel();
            assert_eq!((start.elapsed(), drops.alive()), (ms(0), 1));
            Ok(())
        });
        assert_eq!(ended.await.unwrap(), ());
        assert_eq!((start.elapsed(), drops.alive()), (ms(50), 0));
    });
}

#[test]
fn cancel_and_wait_on_an_ended_child_gives_its_result() {
    every_runtime(async || {
        let ended = scope(async |group: &Group| {
            let child = group.spawn(async { Ok(7) });
            until(|| child.is_finished()).await;
            Ok(child.cancel_and_wait().await)
        });
        assert_eq!(ended.await.unwrap(), Outcome::Completed(7));
    });
}

#[test]
fn cancel_and_wait_dropped_halfway_still_cancels() {
    every_runtime(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        let ended = scope(async |group: &Group| {
            let child = group.spawn(Parked::new(&polls, &drops));
            until(|| polls.get() > 0).await;
            drop(child.cancel_and_wait().now_or_never());
            Ok(())
        });
        assert_eq!(ended.await.unwrap(), ());
        assert_eq!(drops.alive(), 0);
    });
}

#[test]
fn a_cancel_that_races_with_the_start_never_leaks() {
    let runtime = multi_thread(2);
    let _watchdog = Watchdog::start("multi_thread, 2 workers", PATIENCE);
    for round in 0..1000 {
        let (drops, started) = (Drops::new(), Count::new());
        let ended = runtime.block_on(scope(async |group: &Group| {
            let (guard, running) = (drops.guard(), started.clone());
            let child = group.spawn(async move {
                let _guard = guard;
                running.add();
                pending::<()>().await;
            });
            (0..round % 50).for_each(|_| std::hint::spin_loop());
            let outcome = child.cancel_and_wait().await;
            assert_eq!(drops.alive(), 0);
            Ok(outcome)
        }));
        assert_eq!(ended.unwrap(), Outcome::Cancelled(CancelReason::Handle));
        assert!(started.get() <= 1);
    }

    // The group is cancelled from another thread, somewhere among the spawns.
    for round in 0..300 {
        let (drops, meet) = (Drops::new(), Arc::new(Barrier::new(2)));
        let ended = runtime.block_on(scope(async |group: &Group| {
            let (spawner, there) = (group.spawner(), meet.clone());
            let stranger = thread::spawn(move || {
                there.wait();
                (0..round).for_each(|_| std::hint::spin_loop());
                spawner.cancel();
            });
            meet.wait();
            while !group.is_cancelled() {
                let guard = drops.guard();
                group.spawn(async move {
                    let _guard = guard;
                    pending::<()>().await;
                });
            }
            stranger.join().expect("a quiet thread");
            Ok(())
        }));
        assert!(ended.unwrap_err().is_cancelled());
        assert_eq!(drops.alive(), 0);
    }
}

#[test]
fn cancel_children_leaves_body_and_group_open() {
    every_runtime(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        let ended = scope(async |group: &Group| {
            let children: Vec<_> = (0..4)
                .map(|_| group.spawn(Parked::new(&polls, &drops)))
                .collect();
            until(|| polls.get() >= 2).await;
            group.cancel_children();
            for child in children {
                let reason = CancelReason::ChildrenCancelled;
                assert_eq!(child.outcome().await, Outcome::Cancelled(reason));
            }
            assert_eq!(drops.alive(), 0);
            assert!(!group.is_cancelled());
            settle().await;
            Ok(group.spawn(async { Ok(7) }).await)
        });
        assert_eq!(ended.await.unwrap(), 7);
    });
}
