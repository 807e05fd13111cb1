//! Eager start: polled once in the spawner's turn, a task only if it has to wait.

use std::{
    cell::Cell,
    future::{Future, pending, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures::FutureExt;
use ringfence::{
    BorrowGroup, CancelReason, Deadline, Displaced, DisplacedWhat, Ended, Observer, Scope,
    TaskGroup, TaskInfo, borrow_scope, root, scope, token,
};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    task::yield_now,
    time::{Instant, sleep},
};

use crate::support::{
    Count, Drops, Log, PanicOnDrop, caught, every_runtime, every_runtime_in_a_task, paused, until,
};

type Group = TaskGroup<String>;
type Done = Result<(), String>;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_child_that_is_ready_at_once_has_ended_when_the_spawn_returns() {
    every_runtime(async || {
        let drops = Drops::new();
        let value = scope(async |group: &Group| {
            let guard = drops.guard();
            let handle = group.spawn_eager(async move {
                let _guard = guard;
                Ok(5)
            });
            assert_eq!((drops.alive(), group.len()), (0, 0));
            Ok(handle.await)
        });
        assert_eq!(value.await.expect("nobody fails"), 5);
    });
}

#[test]
fn a_child_that_is_ready_at_once_makes_no_task() {
    every_runtime(async || {
        let alive = || Handle::current().metrics().num_alive_tasks();
        let result = scope(async |group: &Group| -> Done {
            let before = alive();
            for _ in 0..100 {
                group.spawn_eager(async {});
                assert_eq!(alive(), before);
            }
            let waits = group.spawn_eager(pending::<()>());
            assert_eq!(alive(), before + 1);
            waits.cancel();
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn a_tree_that_is_ready_at_once_makes_no_task() {
    fn tree(depth: u32, seen: Count) -> Pin<Box<dyn Future<Output = Done> + Send>> {
        Box::pin(async move {
            seen.add();
            let branches = if depth == 0 { 0 } else { 5 };
            let below = scope(async |group: &Group| {
                for _ in 0..branches {
                    group.spawn_eager(tree(depth - 1, seen.clone()));
                }
                Ok(())
            });
            below.await.map_err(|error| error.to_string())
        })
    }
    every_runtime(async || {
        let (seen, before) = (Count::new(), Handle::current().metrics().num_alive_tasks());
        assert_eq!(tree(4, seen.clone()).now_or_never(), Some(Ok(())));
        let alive = Handle::current().metrics().num_alive_tasks();
        assert_eq!((seen.get(), alive), (781, before));
    });
}

#[test]
fn a_child_that_has_to_wait_becomes_a_task() {
    paused(async || {
        let began = Instant::now();
        let value = scope(async |group: &Group| {
            let log = Log::new();
            let inside = log.clone();
            let handle = group.spawn_eager(async move {
                inside.push("first step");
                sleep(ms(10)).await;
                Ok(7)
            });
            assert_eq!((log.entries(), group.len()), (vec!["first step"], 1));
            Ok(handle.await)
        });
        assert_eq!(value.await.expect("nobody fails"), 7);
        assert_eq!(began.elapsed(), ms(10));
    });
}

#[test]
fn a_wake_in_the_first_step_is_not_lost() {
    every_runtime_in_a_task(|| async {
        let result = scope(async |group: &Group| -> Done {
            let mut turns = 0;
            let wakes_itself = poll_fn(move |cx| {
                turns += 1;
                cx.waker().wake_by_ref();
                if turns < 3 {
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            });
            group.spawn_eager(wakes_itself).await;
            // Woken between the first step and the first one as a task.
            let (tell, told) = oneshot::channel();
            let handle = group.spawn_eager(async move { told.await.map_err(|e| e.to_string()) });
            tell.send(1).expect("somebody listens");
            assert_eq!(handle.await, 1);
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn a_failure_in_the_first_step_fails_the_group() {
    every_runtime(async || {
        let drops = Drops::new();
        let result = scope(async |group: &Group| -> Done {
            let guard = drops.guard();
            group.spawn(async move {
                let _guard = guard;
                pending::<()>().await;
            });
            group.spawn_eager(async { Err::<(), _>("at once".to_owned()) });
            assert!(group.is_cancelled());
            pending().await
        });
        let error = result.await.expect_err("a child failed");
        assert_eq!(error.first().map(String::as_str), Some("at once"));
        let task = error.iter().next().and_then(|failure| failure.task());
        assert!(
            task.expect("a child")
                .location()
                .file()
                .ends_with("eager.rs")
        );
        assert_eq!(drops.alive(), 0);
    });
}

#[test]
fn a_panic_in_the_first_step_is_that_of_the_child() {
    every_runtime(async || {
        let went_on = Count::new();
        let result = scope(async |group: &Group| -> Done {
            let is_fine = Cell::new(false).get();
            group.spawn_eager(async move { assert!(is_fine, "thrown at once") });
            went_on.add(); // the spawner's own turn goes on
            pending().await
        });
        assert_eq!(
            caught(result).await.expect_err("it throws"),
            "thrown at once"
        );
        assert_eq!(went_on.get(), 1);
        // What its destructor throws then is told, too.
        let told = Arc::new(Told::default());
        let run = Scope::new().observer(told.clone());
        let result = run.run(async |group: &Group| -> Done {
            let bomb = PanicOnDrop("in its destructor");
            group.spawn_eager(poll_fn(move |_| -> Poll<()> {
                let _captured = &bomb;
                panic!("thrown at once");
            }));
            went_on.add();
            pending().await
        });
        assert_eq!(
            caught(result).await.expect_err("it throws"),
            "thrown at once"
        );
        assert_eq!(told.0.entries(), ["in its destructor"]);
        assert_eq!(went_on.get(), 2);
    });
}

/// Writes down what panics are displaced.
#[derive(Default)]
struct Told(Log<String>);

impl Observer for Told {
    fn displaced(&self, what: &Displaced) {
        if let DisplacedWhat::Panic(panic) = &what.what {
            self.0.push(panic.message().to_owned());
        }
    }
}

#[test]
fn awaiting_a_child_that_failed_in_the_first_step_ends_the_body_there() {
    every_runtime(async || {
        let after = Count::new();
        let result = scope(async |group: &Group| -> Done {
            let handle = group.spawn_eager(async { Err::<(), _>("at once".to_owned()) });
            handle.await;
            after.add();
            Ok(())
        });
        assert_eq!(result.await.expect_err("a child failed").len(), 1);
        assert_eq!(after.get(), 0);
    });
}

#[test]
fn into_a_closing_group_it_is_never_polled() {
    paused(async || {
        let (polls, drops, log) = (Count::new(), Drops::new(), Log::new());
        let run = Scope::new().grace(ms(10));
        let result = run.run(async |group: &Group| -> Done {
            group.cancel();
            let handle = group.spawn_eager(crate::support::Parked::new(&polls, &drops));
            log.push(handle.outcome().await.is_cancelled());
            Ok(())
        });
        assert!(result.await.expect_err("cancelled").is_cancelled());
        assert_eq!(
            (polls.get(), drops.alive(), log.entries()),
            (0, 0, vec![true])
        );
    });
}

#[test]
fn cancelled_where_it_waits_it_is_dropped_like_any_other() {
    every_runtime(async || {
        let drops = Drops::new();
        let result = scope(async |group: &Group| -> Done {
            let guard = drops.guard();
            let handle = group.spawn_eager(async move {
                let _guard = guard;
                pending::<()>().await;
            });
            assert!(handle.cancel_and_wait().await.is_cancelled());
            assert_eq!(drops.alive(), 0);
            Ok(())
        });
        result.await.expect("one child was cancelled alone");
    });
}

#[test]
fn one_that_cancels_its_group_in_the_first_step_ends_where_it_would_wait() {
    every_runtime(async || {
        let drops = Drops::new();
        let result = scope(async |group: &Group| -> Done {
            let (spawner, guard) = (group.spawner(), drops.guard());
            group.spawn_eager(async move {
                let _guard = guard;
                spawner.cancel();
                pending::<()>().await;
            });
            assert_eq!((drops.alive(), group.len()), (0, 0));
            Ok(())
        });
        assert!(result.await.expect_err("cancelled").is_cancelled());
    });
}

#[test]
fn a_destructor_that_panics_in_the_first_step_is_a_panic_of_the_child() {
    every_runtime(async || {
        let run = Scope::new().panics_as_errors();
        let result = run.run(async |group: &Group| -> Done {
            let bomb = PanicOnDrop("in a destructor");
            group.spawn_eager(async move {
                let _bomb = bomb;
            });
            pending().await
        });
        let error = result.await.expect_err("a child panicked");
        let panic = error.iter().next().and_then(|failure| failure.panic());
        assert_eq!(panic.expect("a panic").to_string(), "in a destructor");
        // Captured, and so dropped after it has returned.
        let run = Scope::new().panics_as_errors();
        let result = run.run(async |group: &Group| -> Done {
            let bomb = PanicOnDrop("after it returned");
            group.spawn_eager(poll_fn(move |_| {
                let _captured = &bomb;
                Poll::Ready(())
            }));
            pending().await
        });
        let error = result.await.expect_err("a child panicked");
        assert!(error.iter().all(|failure| failure.task().is_some()));
        let panic = error.iter().next().and_then(|failure| failure.panic());
        assert_eq!(panic.expect("a panic").to_string(), "after it returned");
    });
}

#[test]
fn it_may_spawn_in_the_first_step() {
    every_runtime(async || {
        let ran = Count::new();
        let result = scope(async |group: &Group| -> Done {
            let (spawner, count) = (group.spawner(), ran.clone());
            group.spawn_eager(async move {
                for _ in 0..10 {
                    let count = count.clone();
                    spawner.spawn(async move { assert!(count.add() < 10) });
                }
            });
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!(ran.get(), 10);
    });
}

#[test]
fn the_first_step_runs_in_the_childs_context_and_the_spawners_is_restored() {
    paused(async || {
        let log = Log::new();
        let at = Deadline::after(ms(1000));
        let run = Scope::new().grace(ms(10)).deadline(at);
        let result = run.run(async |group: &Group| -> Done {
            let inside = log.clone();
            let handle = group.spawn_eager(async move {
                let mine = token();
                inside.push(Deadline::current() == at);
                mine.cancelled().await;
                inside.push(mine.reason() == Some(CancelReason::Handle));
            });
            handle.cancel();
            log.push(token().is_cancelled());
            handle.outcome().await;
            Ok(())
        });
        result.await.expect("one child was cancelled alone");
        assert_eq!(log.entries(), [true, false, true]);
    });
}

#[test]
fn scopes_left_behind_in_the_first_step_are_waited_for() {
    every_runtime(async || {
        let drops = Drops::new();
        let result = scope(async |group: &Group| -> Done {
            let guard = drops.guard();
            let handle = group.spawn_eager(async move {
                let inner = scope(async |inner: &Group| -> Done {
                    inner.spawn(async move {
                        let _guard = guard;
                        pending::<()>().await;
                    });
                    pending().await
                });
                assert!(inner.now_or_never().is_none());
                Ok(3)
            });
            assert_eq!(handle.await, 3);
            assert_eq!(drops.alive(), 0, "it has not ended before");
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!(root().orphans(), 0);
    });
}

/// Counts who comes and goes.
#[derive(Default)]
struct Notes {
    spawned: Count,
    ended: Log<Ended>,
}

impl Observer for Notes {
    fn spawned(&self, _: &TaskInfo) {
        self.spawned.add();
    }
    fn ended(&self, _: &TaskInfo, how: &Ended) {
        self.ended.push(how.clone());
    }
}

#[test]
fn the_observer_hears_the_same_as_of_any_other_child() {
    paused(async || {
        let notes = Arc::new(Notes::default());
        let run = Scope::new().observer(notes.clone());
        let result = run.run(async |group: &Group| -> Done {
            group.spawn_eager(async {});
            group.spawn_eager(async { yield_now().await });
            let handle = group.spawn_eager(pending::<()>());
            handle.cancel_and_wait().await;
            group.spawn_eager(async { Err::<(), _>("no".to_owned()) });
            Ok(())
        });
        assert_eq!(result.await.expect_err("one failed").len(), 1);
        assert_eq!(notes.spawned.get(), 4);
        let (completed, handle) = (Ended::Completed, Ended::Cancelled(CancelReason::Handle));
        assert_eq!(
            notes.ended.entries(),
            [completed.clone(), completed, handle, Ended::Failed]
        );
    });
}

#[test]
fn children_ready_at_once_keep_no_memory_and_starve_nobody() {
    every_runtime_in_a_task(|| async {
        let result = scope(async |group: &Group| -> Done {
            let other = group.spawn(async { yield_now().await });
            for _ in 0..10_000 {
                group.spawn_eager(async {});
                assert!(group.len() <= 1);
            }
            other.await;
            until(|| group.is_empty()).await;
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn ready_at_once_it_needs_no_runtime() {
    let sum = scope(async |group: &Group| {
        let handle = group.spawn_eager(async { Ok(5) });
        Ok(handle.await)
    });
    let sum = sum.now_or_never().expect("nothing waits");
    assert_eq!(sum.expect("nobody fails"), 5);
    let waits = scope(async |group: &Group| -> Done {
        group.spawn_eager(pending::<()>());
        Ok(())
    });
    let text = caught(waits).now_or_never().expect("nothing waits");
    assert!(
        text.expect_err("refused")
            .contains("outside a tokio runtime")
    );
}

#[test]
fn a_borrowing_child_that_is_ready_at_once_has_ended_when_the_spawn_returns() {
    every_runtime(async || {
        let (drops, mut seen) = (Drops::new(), 0);
        let value = borrow_scope(async |group: BorrowGroup<'_, String>| {
            let guard = drops.guard();
            let handle = group.spawn_eager(async {
                let _guard = guard;
                seen = 5;
                Ok(seen)
            });
            assert_eq!((drops.alive(), group.len()), (0, 0));
            Ok(handle.await)
        });
        assert_eq!(value.await.expect("nobody fails"), 5);
        assert_eq!(seen, 5);
    });
}

#[test]
fn a_borrowing_child_that_has_to_wait_is_one_of_the_groups() {
    paused(async || {
        let (began, log) = (Instant::now(), Log::new());
        let result = borrow_scope(async |group: BorrowGroup<'_, String>| -> Done {
            // Woken in its first step, by nobody yet.
            let polls = Cell::new(0);
            let woken = group.spawn_eager(poll_fn(move |cx| {
                cx.waker().wake_by_ref();
                polls.set(polls.get() + 1);
                if polls.get() == 3 {
                    Poll::Ready(Ok(polls.get()))
                } else {
                    Poll::Pending
                }
            }));
            let slow = group.spawn_eager(async {
                log.push("first step");
                sleep(ms(10)).await;
                Ok(7)
            });
            assert_eq!((log.entries(), group.len()), (vec!["first step"], 2));
            assert_eq!((woken.await, slow.await), (3, 7));
            // Cancelled before anybody polls it again, it hears of it.
            let parked = group.spawn_eager(pending::<()>());
            assert!(parked.cancel_and_wait().await.is_cancelled());
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!(began.elapsed(), ms(10));
    });
}

#[test]
fn what_a_borrowing_child_throws_or_fails_with_in_its_first_step_is_the_groups() {
    every_runtime(async || {
        let thrown = borrow_scope(async |group: BorrowGroup<'_, String>| -> Done {
            group.spawn_eager(async { panic!("at once") });
            Ok(())
        });
        let thrown = caught(thrown).await.map(|_| ());
        assert_eq!(thrown, Err("at once".to_owned()));
        let failed = borrow_scope(async |group: BorrowGroup<'_, String>| -> Done {
            group.spawn_eager(async { Err::<(), _>("no".to_owned()) });
            assert!(group.is_cancelled());
            let refused = group.spawn_eager(async { unreachable!("it is closing") });
            refused.await;
            Ok(())
        });
        let error = failed.await.expect_err("it failed");
        assert_eq!(error.len(), 1);
    });
}
