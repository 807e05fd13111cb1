//! Children that stay in their thread, and children on another runtime.

use std::{
    cell::Cell,
    future::pending,
    pin::pin,
    rc::Rc,
    thread::{self, ThreadId},
    time::Duration,
};

use futures::{FutureExt, poll};
use ringfence::{CancelReason, Outcome, Scope, TaskGroup, root, scope, timeout, token};
use tokio::{
    runtime::Handle,
    task::{LocalSet, yield_now},
    time::sleep,
};

use crate::support::{
    Count, Drops, Log, PATIENCE, Parked, Watchdog, caught, current_thread, multi_thread,
    single_thread, until,
};

type Group = TaskGroup<String>;
type Done = Result<(), String>;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Runs a test in a `LocalSet`, on a runtime with workers beside it.
#[track_caller]
fn in_a_local_set(test: impl AsyncFnOnce()) {
    let _watchdog = Watchdog::start("a LocalSet", PATIENCE);
    LocalSet::new().block_on(&multi_thread(2), test());
}

/// Says in which thread it is dropped.
struct Where(Log<ThreadId>, Rc<()>);

impl Drop for Where {
    fn drop(&mut self) {
        self.0.push(thread::current().id());
    }
}

#[test]
fn a_local_child_need_not_be_send_and_yields_its_value() {
    in_a_local_set(async || {
        let shared = Rc::new(Cell::new(1));
        let sum = scope(async |group: &Group| {
            let (a, b) = (shared.clone(), shared.clone());
            let first = group.spawn_local(async move {
                yield_now().await;
                a.set(a.get() + 1);
                Ok(a.get())
            });
            let value = first.await;
            group.spawn_local(async move { b.set(10) }).await;
            Ok(value)
        });
        assert_eq!(sum.await.expect("nobody fails"), 2);
        assert_eq!(shared.get(), 10);
    });
}

#[test]
fn a_local_child_is_dropped_in_its_own_thread() {
    in_a_local_set(async || {
        let log = Log::new();
        let result = scope(async |group: &Group| -> Done {
            let here = Where(log.clone(), Rc::new(()));
            group.spawn_local(async move {
                let here = here;
                pending::<()>().await;
                drop(here.1.clone());
            });
            yield_now().await;
            // Cancelled by a child on a worker.
            let spawner = group.spawner();
            group.spawn(async move { spawner.cancel() });
            pending().await
        });
        assert!(result.await.expect_err("cancelled").is_cancelled());
        assert_eq!(log.entries(), [thread::current().id()]);
    });
}

#[test]
fn a_local_child_that_fails_cancels_its_siblings_on_workers() {
    in_a_local_set(async || {
        let (drops, polls) = (Drops::new(), Count::new());
        let result = scope(async |group: &Group| -> Done {
            for _ in 0..5 {
                group.spawn(Parked::new(&polls, &drops));
            }
            let count = polls.clone();
            group.spawn_local(async move {
                until(|| count.get() == 5).await;
                Err::<(), _>("a local one".to_owned())
            });
            pending().await
        });
        let error = result.await.expect_err("a child failed");
        assert_eq!(error.first().map(String::as_str), Some("a local one"));
        assert_eq!(drops.alive(), 0);
    });
}

#[test]
fn a_local_child_that_panics_is_a_panic_of_the_group() {
    in_a_local_set(async || {
        let result = scope(async |group: &Group| -> Done {
            let is_fine = Rc::new(Cell::new(false));
            group.spawn_local(async move { assert!(is_fine.get(), "a local one") });
            pending().await
        });
        assert_eq!(caught(result).await.expect_err("it throws"), "a local one");
    });
}

#[test]
fn local_children_of_a_dropped_scope_are_adopted() {
    in_a_local_set(async || {
        let drops = Drops::new();
        let result = scope(async |group: &Group| -> Done {
            let counted = drops.clone();
            let handle = group.spawn_local(async move {
                let inner = scope(async |inner: &Group| -> Done {
                    inner.spawn_local(Parked::new(&Count::new(), &counted));
                    pending().await
                });
                assert!(timeout(ms(1), inner).await.is_err());
            });
            handle.await;
            assert_eq!((drops.made(), drops.alive()), (1, 0));
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!(root().orphans(), 0);
    });
}

#[test]
fn a_local_child_gets_signal_grace_and_force_like_any_other() {
    in_a_local_set(async || {
        let log = Log::new();
        let run = Scope::new().grace(ms(5));
        let result = run.run(async |group: &Group| -> Done {
            let inside = log.clone();
            group.spawn_local(async move {
                token().cancelled().await;
                inside.push("told");
                pending::<()>().await;
            });
            yield_now().await;
            group.cancel();
            Ok(())
        });
        let error = result.await.expect_err("cancelled");
        assert_eq!((error.forced().len(), log.entries()), (1, vec!["told"]));
    });
}

#[test]
fn a_local_child_refused_by_a_closing_group_is_never_polled() {
    in_a_local_set(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        let run = Scope::new().grace(ms(5));
        let result = run.run(async |group: &Group| -> Done {
            group.cancel();
            let handle = group.spawn_local(Parked::new(&polls, &drops));
            assert!(handle.outcome().await.is_cancelled());
            Ok(())
        });
        assert!(result.await.expect_err("cancelled").is_cancelled());
        assert_eq!((polls.get(), drops.alive()), (0, 0));
    });
}

#[test]
fn outside_a_local_set_a_local_child_is_refused_and_nothing_is_left() {
    single_thread(async || {
        let drops = Drops::new();
        let result = scope(async |group: &Group| -> Done {
            group.spawn_local(Parked::new(&Count::new(), &drops));
            Ok(())
        });
        let text = caught(result).await.expect_err("refused");
        assert!(text.contains("spawn_local"), "{text}");
        assert_eq!((drops.alive(), root().orphans()), (0, 0));
    });
}

#[test]
fn a_local_set_that_goes_away_is_an_outcome() {
    single_thread(async || {
        let drops = Drops::new();
        let set = LocalSet::new();
        let mut run = pin!(scope(async |group: &Group| -> Done {
            let handle = group.spawn_local(Parked::new(&Count::new(), &drops));
            assert_eq!(handle.outcome().await, Outcome::RuntimeGone);
            Ok(())
        }));
        set.run_until(async {
            assert!(poll!(run.as_mut()).is_pending());
            yield_now().await;
        })
        .await;
        drop(set);
        let error = run.await.expect_err("its runtime is gone");
        let gone = ringfence::Cause::Cancelled(CancelReason::RuntimeGone);
        assert_eq!((error.cause(), drops.alive()), (&gone, 0));
    });
}

#[test]
fn a_child_on_another_runtime_is_a_child_like_all_others() {
    single_thread(async || {
        let other = multi_thread(1);
        let drops = Drops::new();
        let there = other.handle().id();
        let result = scope(async |group: &Group| -> Done {
            let handle = group.spawn_on(other.handle(), async { Ok(Handle::current().id()) });
            assert_eq!(handle.await, there);
            let guard = drops.guard();
            let parked = group.spawn_on(other.handle(), async move {
                let _guard = guard;
                sleep(Duration::from_secs(3600)).await;
            });
            assert!(parked.cancel_and_wait().await.is_cancelled());
            assert_eq!(drops.alive(), 0);
            group.spawn_on(other.handle(), async { Err::<(), _>("there".to_owned()) });
            pending().await
        });
        let error = result.await.expect_err("a child failed");
        assert_eq!(error.first().map(String::as_str), Some("there"));
        other.shutdown_background();
    });
}

#[test]
fn the_scope_waits_for_its_child_on_another_runtime() {
    single_thread(async || {
        let other = multi_thread(1);
        let drops = Drops::new();
        let result = scope(async |group: &Group| -> Done {
            let guard = drops.guard();
            group.spawn_on(other.handle(), async move {
                let _guard = guard;
                sleep(ms(5)).await;
            });
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!(drops.alive(), 0);
        other.shutdown_background();
    });
}

#[test]
fn another_runtime_that_goes_away_is_an_outcome() {
    single_thread(async || {
        let other = multi_thread(1);
        let (drops, polls) = (Drops::new(), Count::new());
        let result = scope(async |group: &Group| -> Done {
            let handle = group.spawn_on(other.handle(), Parked::new(&polls, &drops));
            until(|| polls.get() == 1).await;
            other.shutdown_background();
            assert_eq!(handle.outcome().await, Outcome::RuntimeGone);
            Ok(())
        });
        let error = result.await.expect_err("a runtime is gone");
        let gone = ringfence::Cause::Cancelled(CancelReason::RuntimeGone);
        assert_eq!((error.cause(), drops.alive()), (&gone, 0));
    });
}

#[test]
fn on_a_runtime_that_is_gone_already_a_child_is_never_polled() {
    single_thread(async || {
        let dead = {
            let other = multi_thread(1);
            let handle = other.handle().clone();
            other.shutdown_background();
            handle
        };
        let (drops, polls) = (Drops::new(), Count::new());
        let result = scope(async |group: &Group| -> Done {
            let handle = group.spawn_on(&dead, Parked::new(&polls, &drops));
            assert_eq!(handle.outcome().await, Outcome::RuntimeGone);
            Ok(())
        });
        drop(result.await.expect_err("a runtime is gone"));
        assert_eq!((polls.get(), drops.alive()), (0, 0));
    });
}

#[test]
fn a_scope_outside_every_runtime_may_spawn_on_one() {
    let other = multi_thread(1);
    let sum = scope(async |group: &Group| {
        let handle = group.spawn_on(other.handle(), async { Ok(4) });
        Ok(handle.await)
    });
    let sum = futures::executor::block_on(sum);
    assert_eq!(sum.expect("nobody fails"), 4);
    let runtime = current_thread();
    assert_eq!(runtime.block_on(async { root().orphans() }), 0);
    let nothing = scope(async |_: &Group| -> Done { Ok(()) }).now_or_never();
    assert!(nothing.is_some());
}
