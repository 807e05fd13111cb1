//! Children that block a thread.

use std::{
    future::pending,
    pin::pin,
    sync::{Arc, mpsc},
    task::Poll,
    thread,
    time::Duration,
};

use futures::{FutureExt, poll};
use ringfence::{
    CancelReason, Deadline, Displaced, DisplacedWhat, Ended, Observer, Outcome, OwnedGroup, Scope,
    Straggler, TaskGroup, TaskInfo, inspect::Counters, root, scope, shield, timeout, token,
};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::yield_now,
    time::{advance, sleep},
};

use crate::support::{
    Count, Drops, Log, OnDrop, PATIENCE, PanicOnDrop, Watchdog, caught, current_thread,
    every_runtime, every_runtime_in_a_task, paused, single_thread, until,
};

type Group = TaskGroup<String>;
type Done = Result<(), String>;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A call that counts itself in, and runs until the sender is gone.
fn stuck(running: &Count, over: &Count) -> (mpsc::Sender<()>, impl FnOnce() + Send + use<>) {
    let (release, gate) = mpsc::channel::<()>();
    let (running, over) = (running.clone(), over.clone());
    let call = move || {
        running.add();
        assert!(gate.recv().is_err());
        over.add();
    };
    (release, call)
}

/// Lets go in another thread, so much later.
#[expect(
    clippy::disallowed_methods,
    reason = "a thread that is outside every runtime has the real clock alone"
)]
fn later(time: Duration, release: mpsc::Sender<()>) {
    thread::spawn(move || {
        thread::sleep(time);
        drop(release);
    });
}

/// A runtime with one thread for what blocks.
fn one_thread() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .expect("a runtime")
}

/// Keeps the only thread of the pool busy until the sender is gone.
async fn occupy() -> mpsc::Sender<()> {
    let (running, over) = (Count::new(), Count::new());
    let (release, call) = stuck(&running, &over);
    drop(Handle::current().spawn_blocking(call));
    until(|| running.get() == 1).await;
    release
}

/// Writes down what it is told.
#[derive(Default)]
struct Notes {
    displaced: Log<String>,
    abandoned: Log<String>,
    ended: Log<Ended>,
}

impl Observer for Notes {
    fn displaced(&self, what: &Displaced) {
        self.displaced.push(match &what.what {
            DisplacedWhat::Error(error) => match error.downcast_ref::<String>() {
                Some(text) => text.clone(),
                None => "another error".to_owned(),
            },
            DisplacedWhat::Panic(panic) => panic.to_string(),
            _ => "something else".to_owned(),
        });
    }
    fn abandoned(&self, straggler: &Straggler) {
        let name = straggler.name().unwrap_or("no name");
        self.abandoned.push(name.to_owned());
    }
    fn ended(&self, _: &TaskInfo, how: &Ended) {
        self.ended.push(how.clone());
    }
}

#[test]
fn a_blocking_child_yields_its_value() {
    every_runtime_in_a_task(|| async {
        let both = scope(async |group: &Group| {
            let a = group.spawn_blocking(|| Ok(1));
            let b = group.spawner().spawn_blocking(|| Ok(2));
            Ok((a.await, b.await.completed()))
        });
        assert_eq!(both.await.expect("nobody fails"), (1, Some(2)));
    });
}

#[test]
fn others_run_meanwhile() {
    single_thread(async || {
        let (running, over) = (Count::new(), Count::new());
        let result = scope(async |group: &Group| -> Done {
            let (release, call) = stuck(&running, &over);
            let blocking = group.spawn_blocking(call);
            group.spawn(async { yield_now().await }).await;
            until(|| running.get() == 1).await;
            assert_eq!(over.get(), 0);
            drop(release);
            blocking.await;
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn an_error_of_a_blocking_child_fails_the_group() {
    every_runtime(async || {
        let result = scope(async |group: &Group| -> Done {
            group.spawn_blocking(|| Err::<(), _>("no such file".to_owned()));
            pending().await
        });
        let error = result.await.expect_err("a child failed");
        assert_eq!(error.first().map(String::as_str), Some("no such file"));
        let place = error.iter().next().and_then(|failure| failure.task());
        assert!(
            place
                .expect("a child")
                .location()
                .file()
                .ends_with("blocking.rs")
        );
    });
}

#[test]
fn a_panic_of_a_blocking_child_is_resumed_in_the_caller() {
    every_runtime(async || {
        let result = scope(async |group: &Group| -> Done {
            let thrown: fn() = || panic!("thrown in a thread");
            group.spawn_blocking(thrown);
            pending().await
        });
        assert_eq!(
            caught(result).await.expect_err("it throws"),
            "thrown in a thread"
        );
    });
}

#[test]
fn the_scope_waits_for_a_blocking_child_that_nobody_awaits() {
    single_thread(async || {
        let (running, over) = (Count::new(), Count::new());
        let result = scope(async |group: &Group| -> Done {
            let (release, call) = stuck(&running, &over);
            group.spawn_blocking(call);
            later(ms(5), release);
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!(over.get(), 1);
    });
}

#[test]
fn cancelled_before_a_thread_took_it_it_never_runs() {
    one_thread().block_on(async {
        let _watchdog = Watchdog::start("one thread", PATIENCE);
        let release = occupy().await;
        let (ran, drops) = (Count::new(), Drops::new());
        let result = scope(async |group: &Group| -> Done {
            let (count, guard) = (ran.clone(), drops.guard());
            group.spawn_blocking(move || {
                let _guard = guard;
                count.add();
            });
            yield_now().await; // it is in the queue now
            group.cancel();
            Ok(())
        });
        // The thread is still busy: nobody waits for it.
        assert!(result.await.expect_err("cancelled").is_cancelled());
        assert_eq!(drops.alive(), 0, "what it captured is gone");
        drop(release);
        // Whoever is next in the queue comes after it.
        let next = Handle::current().spawn_blocking(|| {});
        next.await.expect("the pool goes on");
        assert_eq!(ran.get(), 0);
    });
}

#[test]
fn one_queued_blocking_child_can_be_cancelled_alone() {
    one_thread().block_on(async {
        let _watchdog = Watchdog::start("one thread", PATIENCE);
        let release = occupy().await;
        let ran = Count::new();
        let result = scope(async |group: &Group| -> Done {
            let count = ran.clone();
            let handle = group.spawn_blocking(move || assert_eq!(count.add(), 0));
            yield_now().await;
            assert!(handle.cancel_and_wait().await.is_cancelled());
            drop(release);
            group.spawn_blocking(|| {}).await;
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!(ran.get(), 0);
    });
}

#[test]
fn a_blocking_child_of_a_closing_group_never_runs() {
    every_runtime(async || {
        let ran = Count::new();
        let group = OwnedGroup::<String>::new();
        group.close();
        let count = ran.clone();
        let outcome = group
            .spawner()
            .spawn_blocking(move || assert_eq!(count.add(), 0));
        assert!(outcome.await.is_cancelled());
        assert!(group.wait().await.is_clean());
        assert_eq!(ran.get(), 0);
    });
}

#[test]
fn a_cancelled_group_waits_for_a_call_that_has_started() {
    single_thread(async || {
        let (running, over) = (Count::new(), Count::new());
        let result = scope(async |group: &Group| -> Done {
            let (release, call) = stuck(&running, &over);
            group.spawn_blocking(call);
            until(|| running.get() == 1).await;
            group.cancel();
            later(ms(5), release);
            Ok(())
        });
        assert!(result.await.expect_err("cancelled").is_cancelled());
        assert_eq!(over.get(), 1);
    });
}

#[test]
fn cancel_and_wait_waits_for_a_call_that_has_started() {
    single_thread(async || {
        let (running, over) = (Count::new(), Count::new());
        let result = scope(async |group: &Group| -> Done {
            let (release, call) = stuck(&running, &over);
            let handle = group.spawn_blocking(call);
            until(|| running.get() == 1).await;
            later(ms(5), release);
            assert!(handle.cancel_and_wait().await.is_cancelled());
            assert_eq!(over.get(), 1);
            Ok(())
        });
        result.await.expect("one child was cancelled alone");
    });
}

#[test]
fn the_task_that_drops_a_scope_waits_for_its_calls() {
    single_thread(async || {
        let (running, over) = (Count::new(), Count::new());
        let result = scope(async |group: &Group| -> Done {
            let (release, call) = stuck(&running, &over);
            let count = running.clone();
            let child = async move {
                let inner = scope(async |inner: &Group| -> Done {
                    inner.spawn_blocking(call);
                    pending().await
                });
                let mut inner = pin!(inner);
                assert!(poll!(inner.as_mut()).is_pending());
                until(|| count.get() == 1).await;
            };
            let handle = group.spawn(child);
            until(|| running.get() == 1).await;
            later(ms(5), release);
            handle.await;
            assert_eq!(over.get(), 1);
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn the_root_waits_exactly_until_the_last_call_is_over() {
    single_thread(async || {
        let (running, over) = (Count::new(), Count::new());
        let (release, call) = stuck(&running, &over);
        {
            let inner = scope(async |inner: &Group| -> Done {
                inner.spawn_blocking(call);
                pending().await
            });
            let mut inner = pin!(inner);
            assert!(poll!(inner.as_mut()).is_pending());
            until(|| running.get() == 1).await;
        }
        assert!(root().wait(ms(5)).await.is_err());
        assert_eq!((root().orphans(), over.get()), (1, 0));
        later(ms(5), release);
        root().wait(PATIENCE).await.expect("it ends");
        assert_eq!((root().orphans(), over.get()), (0, 1));
    });
}

#[test]
fn a_call_on_a_runtime_that_is_shut_down_is_waited_for_from_outside() {
    single_thread(async || {
        let other = Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .expect("a runtime");
        let (running, over) = (Count::new(), Count::new());
        let result = scope(async |group: &Group| -> Done {
            let (release, call) = stuck(&running, &over);
            let child = async {
                let inner = scope(async |inner: &Group| -> Done {
                    inner.spawn_blocking(call);
                    Ok(())
                });
                drop(inner.await);
            };
            group.spawn_on(other.handle(), child);
            until(|| running.get() == 1).await;
            other.shutdown_background();
            later(ms(10), release);
            pending().await
        });
        drop(result.await.expect_err("its runtime is gone"));
        assert_eq!(over.get(), 1);
    });
}

#[test]
fn a_call_in_the_queue_of_a_runtime_that_is_shut_down_never_runs() {
    let _watchdog = Watchdog::start("two runtimes", PATIENCE);
    let other = one_thread();
    let (ran, drops) = (Count::new(), Drops::new());
    let (group, release) = other.block_on(async { (OwnedGroup::<String>::new(), occupy().await) });
    let (count, guard) = (ran.clone(), drops.guard());
    let handle = group.spawner().spawn_blocking(move || {
        let _guard = guard;
        count.add();
    });
    other.block_on(yield_now()); // it is in the queue now
    other.shutdown_background();
    drop(release);
    current_thread().block_on(async {
        let outcome = handle.await;
        assert_eq!(outcome, Outcome::RuntimeGone);
        let report = group.wait().await;
        assert_eq!(report.cancelled(), Some(&CancelReason::RuntimeGone));
    });
    assert_eq!((ran.get(), drops.alive()), (0, 0));
}

#[test]
fn a_call_reads_the_token_the_deadline_and_the_names_of_its_child() {
    single_thread(async || {
        let run = Scope::new()
            .deadline(Deadline::after(Duration::from_secs(3600)))
            .name("outer");
        let (tell, told) = mpsc::channel();
        let result = run
            .run(async |group: &Group| -> Done {
                let spawner = group.spawner();
                group.named("call").spawn_blocking(move || {
                    let in_time = Deadline::current() != Deadline::NEVER;
                    let before = token().is_cancelled();
                    spawner.cancel();
                    let inner = Scope::new().name("inner").run(async |_: &Group| {
                        Err::<(), _>("no".to_owned()) // says where it is
                    });
                    let names = inner
                        .now_or_never()
                        .expect("it is ready")
                        .expect_err("it fails");
                    tell.send((in_time, before, token().is_cancelled(), names.to_string()))
                        .expect("somebody listens");
                });
                pending().await
            })
            .await;
        let error = result.expect_err("cancelled");
        let names = "group `outer/call/inner` failed: the body: no".to_owned();
        assert_eq!(told.recv(), Ok((true, false, true, names)));
        let ringfence::Cause::Cancelled(CancelReason::Requested { by, .. }) = error.cause() else {
            panic!("{error:?}")
        };
        assert!(by.is_some(), "the call cancelled it");
    });
}

#[test]
fn a_call_sees_a_signal_within_the_grace() {
    single_thread(async || {
        let result = Scope::new()
            .grace(PATIENCE)
            .run(async |group: &Group| -> Done {
                let running = Count::new();
                let count = running.clone();
                let handle = group.spawn_blocking(move || {
                    count.add();
                    while !token().is_cancelled() {
                        thread::yield_now();
                    }
                    Ok(5)
                });
                until(|| running.get() == 1).await;
                handle.cancel();
                // It came to its end by itself: it has completed.
                assert_eq!(handle.outcome().await.completed(), Some(5));
                Ok(())
            });
        result.await.expect("nobody fails");
    });
}

#[test]
fn the_error_of_a_call_that_is_over_too_late_is_observed() {
    single_thread(async || {
        let notes = Arc::new(Notes::default());
        let result = Scope::new()
            .observer(notes.clone())
            .run(async |group: &Group| -> Done {
                for panics in [false, true] {
                    let (release, gate) = mpsc::channel::<()>();
                    let running = Count::new();
                    let count = running.clone();
                    let handle = group.spawn_blocking(move || {
                        count.add();
                        assert!(gate.recv().is_err());
                        assert!(!panics, "thrown too late");
                        Err::<(), _>("failed too late".to_owned())
                    });
                    until(|| running.get() == 1).await;
                    later(ms(2), release);
                    assert!(handle.cancel_and_wait().await.is_cancelled());
                }
                Ok(())
            });
        result.await.expect("they were cancelled before");
        assert_eq!(
            notes.displaced.entries(),
            ["failed too late", "thrown too late"]
        );
        assert_eq!(notes.ended.entries().len(), 2);
    });
}

#[test]
fn the_value_of_a_call_that_is_over_too_late_is_dropped_in_silence() {
    single_thread(async || {
        let (notes, drops) = (Arc::new(Notes::default()), Drops::new());
        let result = Scope::new()
            .observer(notes.clone())
            .run(async |group: &Group| -> Done {
                let (release, gate) = mpsc::channel::<()>();
                let running = Count::new();
                let (count, guard) = (running.clone(), drops.guard());
                group.spawn_blocking(move || {
                    count.add();
                    assert!(gate.recv().is_err());
                    Ok(guard)
                });
                until(|| running.get() == 1).await;
                later(ms(2), release);
                group.cancel();
                Ok(())
            });
        assert!(result.await.expect_err("cancelled").is_cancelled());
        assert_eq!((notes.displaced.entries().len(), drops.alive()), (0, 0));
    });
}

#[test]
fn a_call_that_never_runs_and_panics_in_its_destructor_is_a_panicked_child() {
    one_thread().block_on(async {
        let _watchdog = Watchdog::start("one thread", PATIENCE);
        let release = occupy().await;
        let result = Scope::new()
            .panics_as_errors()
            .run(async |group: &Group| -> Done {
                let bomb = PanicOnDrop("in a capture");
                group.spawn_blocking(move || drop(bomb));
                yield_now().await;
                group.cancel();
                Ok(())
            });
        let error = result.await.expect_err("cancelled");
        let panic = error.iter().next().and_then(|failure| failure.panic());
        assert_eq!(panic.expect("a panic").to_string(), "in a capture");
        drop(release);
    });
}

#[test]
fn giving_up_comes_back_without_the_call_and_names_it() {
    single_thread(async || {
        let (running, over) = (Count::new(), Count::new());
        let notes = Arc::new(Notes::default());
        let (release, call) = stuck(&running, &over);
        let run = Scope::new()
            .observer(notes.clone())
            .give_up_blocking_after(ms(10));
        let result = run.run(async |group: &Group| -> Done {
            group.spawn_blocking(call);
            until(|| running.get() == 1).await;
            group.cancel_with("enough");
            Ok(())
        });
        let error = result.await.expect_err("cancelled");
        assert_eq!(over.get(), 0);
        let [call] = error.abandoned() else {
            panic!("{error:?}")
        };
        let place = call.task.as_ref().expect("a child").location();
        assert!(place.file().ends_with("blocking.rs"));
        assert!(matches!(
            &call.reason,
            CancelReason::Requested { note: Some(_), .. }
        ));
        assert_eq!(notes.abandoned.entries().len(), 1);
        assert!(error.to_string().contains("1 given up"), "{error}");
        drop(release);
        until(|| over.get() == 1).await;
    });
}

#[test]
fn the_report_of_a_long_lived_group_names_what_a_scope_around_gave_up() {
    single_thread(async || {
        // Also where nothing else is to be told of.
        for ends_well in [false, true] {
            let (running, over) = (Count::new(), Count::new());
            let (release, call) = stuck(&running, &over);
            let run = Scope::new().give_up_blocking_after(ms(10));
            let result = run.run(async |_: &Group| -> Done {
                let own = OwnedGroup::<String>::new();
                let handle = own.spawner().spawn_blocking(call);
                until(|| running.get() == 1).await;
                let report = if ends_well {
                    handle.cancel();
                    own.wait().await
                } else {
                    own.shutdown(Duration::ZERO).await
                };
                assert_eq!((report.abandoned().len(), over.get()), (1, 0));
                assert!(!report.is_clean());
                Ok(())
            });
            result.await.expect("nobody fails");
            drop(release);
            until(|| over.get() == 1).await;
        }
    });
}

#[test]
fn a_shield_in_a_call_holds_nobody_up_beyond_its_bound() {
    single_thread(async || {
        let (running, over) = (Count::new(), Count::new());
        let (release, call) = stuck(&running, &over);
        let run = Scope::new().give_up_blocking_after(ms(10));
        let result = run.run(async |group: &Group| -> Done {
            group.spawn_blocking(move || {
                let mut section = pin!(shield(ms(10), pending::<()>()));
                assert!(section.as_mut().now_or_never().is_none());
                call();
            });
            until(|| running.get() == 1).await;
            group.cancel();
            Ok(())
        });
        let error = result.await.expect_err("cancelled");
        assert_eq!((error.abandoned().len(), over.get()), (1, 0));
        drop(release);
        until(|| over.get() == 1).await;
    });
}

#[test]
fn giving_up_counts_from_the_force_of_each_call() {
    single_thread(async || {
        let (running, over) = (Count::new(), Count::new());
        let notes = Arc::new(Notes::default());
        let (release, call) = stuck(&running, &over);
        let run = Scope::new()
            .observer(notes.clone())
            .give_up_blocking_after(ms(10));
        // The group itself goes on: one child is cancelled alone.
        let result = run.run(async |group: &Group| -> Done {
            let handle = group.spawn_blocking(call);
            until(|| running.get() == 1).await;
            assert!(handle.cancel_and_wait().await.is_cancelled());
            assert_eq!(over.get(), 0);
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!(notes.abandoned.entries().len(), 1);
        drop(release);
    });
}

#[test]
fn of_two_calls_the_one_that_was_forced_later_is_given_up_later() {
    let _watchdog = Watchdog::start("two calls", PATIENCE);
    for all in [false, true] {
        paused(async || {
            let (running, over) = (Count::new(), Count::new());
            let notes = Arc::new(Notes::default());
            let ((first, a), (second, b)) = (stuck(&running, &over), stuck(&running, &over));
            let run = Scope::new()
                .observer(notes.clone())
                .give_up_blocking_after(ms(10));
            let mut handles = Vec::new();
            let mut whole = Box::pin(run.run(async |group: &Group| -> Done {
                handles.push(group.spawn_blocking(a).detached());
                handles.push(group.spawn_blocking(b).detached());
                until(|| running.get() == 2).await;
                handles[0].cancel();
                sleep(ms(5)).await;
                if all {
                    group.cancel();
                } else {
                    handles[1].cancel();
                }
                Ok(())
            }));
            while running.get() < 2 {
                assert!(poll!(&mut whole).is_pending());
                yield_now().await;
            }
            // The clock stands still by itself as long as a call runs.
            let mut given_up = Vec::new();
            let mut ended = None;
            for _ in 0..=15 {
                for _ in 0..10 {
                    if ended.is_none() {
                        if let Poll::Ready(result) = poll!(&mut whole) {
                            ended = Some(result);
                        }
                    }
                    yield_now().await;
                }
                given_up.push(notes.abandoned.entries().len());
                advance(ms(1)).await;
            }
            assert_eq!(given_up[..10], [0; 10]);
            assert_eq!(given_up[10..15], [1; 5]);
            assert_eq!((given_up[15], over.get()), (2, 0));
            let ended = ended.expect("nobody is waited for");
            assert_eq!(ended.is_err(), all);
            drop((first, second));
        });
    }
}

#[test]
fn giving_up_covers_the_scopes_inside() {
    single_thread(async || {
        let (running, over) = (Count::new(), Count::new());
        let (release, call) = stuck(&running, &over);
        let run = Scope::new().give_up_blocking_after(ms(10));
        let result = run.run(async |group: &Group| -> Done {
            group.spawn(async move {
                let inner = scope(async |inner: &Group| -> Done {
                    inner.spawn_blocking(call);
                    pending().await
                });
                drop(inner.await);
            });
            until(|| running.get() == 1).await;
            group.cancel();
            Ok(())
        });
        let error = result.await.expect_err("cancelled");
        assert_eq!((error.abandoned().len(), over.get()), (1, 0));
        drop(release);
    });
}

#[test]
fn a_call_that_is_over_in_time_is_not_given_up() {
    single_thread(async || {
        let notes = Arc::new(Notes::default());
        for bound in [PATIENCE, Duration::MAX] {
            let (running, over) = (Count::new(), Count::new());
            let (release, call) = stuck(&running, &over);
            let run = Scope::new()
                .observer(notes.clone())
                .give_up_blocking_after(bound);
            let result = run.run(async |group: &Group| -> Done {
                group.spawn_blocking(call);
                until(|| running.get() == 1).await;
                group.cancel();
                later(ms(5), release);
                Ok(())
            });
            let error = result.await.expect_err("cancelled");
            assert_eq!((error.abandoned().len(), over.get()), (0, 1));
        }
        assert!(notes.abandoned.entries().is_empty());
    });
}

#[test]
fn what_comes_of_a_call_that_was_given_up_is_observed() {
    single_thread(async || {
        let notes = Arc::new(Notes::default());
        let counters = Arc::new(Counters::new());
        let (release, gate) = mpsc::channel::<()>();
        let running = Count::new();
        let count = running.clone();
        let run = Scope::new()
            .observer(Arc::new((notes.clone(), counters.clone())))
            .give_up_blocking_after(Duration::ZERO);
        let result = run.run(async |group: &Group| -> Done {
            group.spawn_blocking(move || {
                count.add();
                assert!(gate.recv().is_err());
                Err::<(), _>("long after".to_owned())
            });
            until(|| running.get() == 1).await;
            group.cancel();
            Ok(())
        });
        assert_eq!(result.await.expect_err("cancelled").abandoned().len(), 1);
        assert!(notes.displaced.entries().is_empty());
        drop(release);
        // Of the two it hears the second one last.
        until(|| counters.total().displaced > 0).await;
        assert_eq!(notes.displaced.entries(), ["long after"]);
        let total = counters.total();
        assert_eq!((total.abandoned, total.displaced), (1, 1));
    });
}

#[test]
fn a_call_that_was_given_up_may_outlast_its_runtime() {
    let (running, over) = (Count::new(), Count::new());
    let (release, call) = stuck(&running, &over);
    let runtime = current_thread();
    runtime.block_on(async {
        let run = Scope::new().give_up_blocking_after(Duration::ZERO);
        let result = run.run(async |group: &Group| -> Done {
            group.spawn_blocking(call);
            until(|| running.get() == 1).await;
            group.cancel();
            Ok(())
        });
        assert_eq!(result.await.expect_err("cancelled").abandoned().len(), 1);
    });
    runtime.shutdown_background();
    drop(release);
    let _watchdog = Watchdog::start("a thread of the pool", PATIENCE);
    while over.get() == 0 {
        thread::yield_now();
    }
}

#[test]
fn a_scope_that_a_call_blocks_on_keeps_the_contract() {
    single_thread(async || {
        let drops = Drops::new();
        let result = Scope::new()
            .grace(PATIENCE)
            .run(async |group: &Group| -> Done {
                let guard = drops.guard();
                group.spawn_blocking(move || {
                    let inner = scope(async |inner: &Group| -> Done {
                        inner.spawn(async move {
                            let _guard = guard;
                            token().cancelled().await;
                        });
                        Ok(())
                    });
                    let ended = Handle::current().block_on(inner);
                    ended.map_err(|error| error.to_string())
                });
                until(|| drops.made() == 1).await;
                group.cancel();
                Ok(())
            });
        let error = result.await.expect_err("cancelled");
        assert!(error.forced().is_empty());
        assert_eq!(drops.alive(), 0);
    });
}

#[test]
fn a_blocking_child_counts_as_one() {
    single_thread(async || {
        let (running, over) = (Count::new(), Count::new());
        let result = scope(async |group: &Group| -> Done {
            let (release, call) = stuck(&running, &over);
            let handle = group.spawn_blocking(call);
            until(|| running.get() == 1).await;
            assert_eq!(group.len(), 1);
            drop(release);
            handle.await;
            until(|| group.is_empty()).await;
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn cancelling_while_the_pool_takes_the_call_has_one_outcome() {
    every_runtime_in_a_task(|| async {
        for _ in 0..200 {
            let (ran, drops) = (Count::new(), Drops::new());
            let result = scope(async |group: &Group| -> Done {
                let (count, guard) = (ran.clone(), drops.guard());
                let handle = group.spawn_blocking(move || {
                    count.add();
                    drop(guard);
                    Ok(1)
                });
                yield_now().await;
                let outcome = handle.cancel_and_wait().await;
                assert_eq!(drops.alive(), 0);
                assert!(ran.get() == 1 || outcome.is_cancelled(), "{outcome:?}");
                Ok(())
            });
            result.await.expect("nobody fails");
        }
    });
}

#[test]
fn a_timeout_around_a_scope_does_not_wait_for_its_calls_but_the_owner_does() {
    single_thread(async || {
        let (running, over) = (Count::new(), Count::new());
        let (release, call) = stuck(&running, &over);
        let result = scope(async |_: &Group| -> Done {
            let inner = scope(async |inner: &Group| -> Done {
                inner.spawn_blocking(call);
                pending().await
            });
            assert!(timeout(ms(20), inner).await.is_err());
            assert_eq!(over.get(), 0);
            let _later = OnDrop::new(move || later(ms(5), release));
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!((running.get(), over.get()), (1, 1));
    });
}

#[test]
#[should_panic(expected = "cannot spawn a child outside a tokio runtime")]
fn outside_a_runtime_it_is_refused_at_the_caller() {
    use futures::FutureExt;
    let result = scope(async |group: &Group| -> Done {
        group.spawn_blocking(|| {});
        Ok(())
    });
    drop(result.now_or_never());
}

#[test]
fn of_nested_bounds_for_giving_up_the_earlier_one_counts() {
    for (inside, outside) in [(600_000, 10), (10, 600_000)] {
        single_thread(async || {
            let (running, over) = (Count::new(), Count::new());
            let (release, call) = stuck(&running, &over);
            let (tell, told) = mpsc::channel();
            let run = Scope::new().give_up_blocking_after(ms(outside));
            let result = run.run(async |group: &Group| -> Done {
                group.spawn(async move {
                    let inner = Scope::new().give_up_blocking_after(ms(inside));
                    let inner = inner.run(async |inner: &Group| -> Done {
                        inner.spawn_blocking(call);
                        until(|| running.get() == 1).await;
                        inner.cancel();
                        pending().await
                    });
                    let error = inner.await.expect_err("cancelled");
                    tell.send(error.abandoned().len()).expect("it is heard");
                });
                Ok(())
            });
            result.await.expect("only the group inside was cancelled");
            assert_eq!(over.get(), 0);
            assert_eq!(
                told.recv(),
                Ok(1),
                "its own group names it, whoever gave it up"
            );
            drop(release);
        });
    }
}

#[test]
fn the_signal_of_a_cancel_ends_the_wait_for_a_thread() {
    let _watchdog = Watchdog::start("one thread for what blocks", PATIENCE);
    one_thread().block_on(async {
        let release = occupy().await;
        let (drops, long) = (Drops::new(), ms(1_000_000));
        let call = || {
            let guard = drops.guard();
            move || {
                drop(guard);
                unreachable!("it was cancelled before")
            }
        };
        let note = |note: &str| CancelReason::Requested {
            note: Some(note.into()),
            by: None,
        };
        // Of the group, of one around it, of the child alone, of a long-lived group, of one that was never polled.
        let run = Scope::new().grace(long).run(async |group: &Group| -> Done {
            let alone = group.spawn_blocking(call());
            let child = group.spawn_blocking(call());
            let inner = call();
            let inside = group.spawn(async move {
                let inside =
                    scope(async |group: &Group| Ok(group.spawn_blocking(inner).outcome().await));
                inside.await.map_err(|error| error.to_string())
            });
            yield_now().await;
            alone.cancel();
            let handle = Outcome::Cancelled(CancelReason::Handle);
            assert_eq!(alone.outcome().await, handle);
            let late = group.spawn_blocking(call());
            group.cancel_with("go");
            let go = Outcome::Cancelled(note("go"));
            assert_eq!(child.outcome().await, go);
            assert_eq!(late.outcome().await, go);
            assert_eq!(inside.outcome().await, Outcome::Completed(go));
            Ok(())
        });
        let error = run.await.expect_err("cancelled");
        assert!(error.forced().is_empty(), "{error:?}");
        let owned = OwnedGroup::<String>::new();
        let child = owned.spawner().spawn_blocking(call());
        yield_now().await;
        let report = owned.shutdown(long).await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(child.await, Outcome::Cancelled(CancelReason::Shutdown));
        assert_eq!(drops.alive(), 0);
        drop(release);
    });
}

#[test]
fn a_call_that_is_spawned_within_a_grace_is_run() {
    single_thread(async || {
        let run = Scope::new().grace(PATIENCE).run(async |group: &Group| {
            let flush = group.spawn(async {
                token().cancelled().await;
                let flush = scope(async |group: &Group| Ok(group.spawn_blocking(|| Ok(5)).await));
                flush.await.map_err(|error| error.to_string())
            });
            yield_now().await;
            group.cancel();
            assert_eq!(flush.outcome().await.completed(), Some(5));
            Ok(())
        });
        assert!(run.await.expect_err("a cancel").is_empty());
    });
}
