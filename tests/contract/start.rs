//! The start handshake: a child says when it is ready, and its spawner waits for that.

use std::{
    cell::Cell,
    future::pending,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    thread,
    time::Duration,
};

use futures::{FutureExt, poll};
use ringfence::{
    CancelReason, Displaced, Ended, Failure, GroupError, Observer, Outcome, OwnedGroup, Ready,
    Scope, StartError, TaskGroup, TaskInfo, scope, shield, timeout, token,
};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use crate::support::{
    Count, Drops, Log, PanicOnDrop, caught, every_runtime, every_runtime_in_a_task, paused, settle,
};

type Group = TaskGroup<String>;
type Done = Result<(), String>;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Counts who comes and goes.
#[derive(Default)]
struct Notes {
    spawned: Count,
    ended: Log<Ended>,
    displaced: Count,
}

impl Observer for Notes {
    fn displaced(&self, _: &Displaced) {
        self.displaced.add();
    }
    fn spawned(&self, _: &TaskInfo) {
        self.spawned.add();
    }
    fn ended(&self, _: &TaskInfo, how: &Ended) {
        self.ended.push(how.clone());
    }
}

#[test]
fn a_child_that_is_ready_yields_its_value_and_goes_on_in_the_group() {
    paused(async || {
        let began = Instant::now();
        let result = scope(async |group: &Group| -> Done {
            let started = group.start(|ready| async move {
                sleep(ms(5)).await;
                ready.set("port 80");
                sleep(ms(10)).await;
                Ok(7)
            });
            let (value, handle) = started.await.expect("it is ready");
            assert_eq!((value, began.elapsed(), group.len()), ("port 80", ms(5), 1));
            assert_eq!((handle.await, began.elapsed()), (7, ms(15)));
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn a_child_may_be_ready_and_over_in_its_first_step() {
    every_runtime_in_a_task(|| async {
        let result = scope(async |group: &Group| -> Done {
            let started = group.start(|ready| async move {
                ready.set(());
                Ok(7)
            });
            let ((), handle) = started.await.expect("it is ready");
            assert_eq!(handle.await, 7);
            // Even before there is a future.
            let started = group.start(|ready| {
                ready.set(());
                async { Ok(8) }
            });
            let ((), handle) = started.await.expect("it is ready");
            assert_eq!(handle.await, 8);
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn the_scope_waits_for_a_started_child_that_nobody_awaits() {
    paused(async || {
        let (began, drops) = (Instant::now(), Drops::new());
        let result = scope(async |group: &Group| -> Done {
            let guard = drops.guard();
            let started = group.start(|ready: Ready<()>| async move {
                let _guard = guard;
                ready.set(());
                sleep(ms(10)).await;
            });
            started.await.expect("it is ready");
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!((began.elapsed(), drops.alive()), (ms(10), 0));
    });
}

#[test]
fn a_failure_before_ready_comes_out_of_start_and_the_group_goes_on() {
    paused(async || {
        let result = scope(async |group: &Group| {
            let sibling = group.spawn(async {
                sleep(ms(50)).await;
                Ok(1)
            });
            let started = group.start(|ready: Ready<()>| async move {
                let _ready = ready;
                sleep(ms(5)).await;
                Err::<(), _>("address in use".to_owned())
            });
            let error = started.await.map(drop).expect_err("it failed");
            assert_eq!(error, StartError::Failed("address in use".to_owned()));
            assert!(!group.is_cancelled() && group.len() == 1);
            Ok(sibling.await)
        });
        assert_eq!(result.await.expect("the group heard nothing of it"), 1);
    });
}

#[test]
fn a_failure_after_ready_goes_to_the_group() {
    paused(async || {
        for time in [0, 5] {
            let result = scope(async |group: &Group| -> Done {
                let started = group.start(|ready| async move {
                    ready.set(());
                    if time > 0 {
                        sleep(ms(time)).await;
                    }
                    Err::<(), _>("later".to_owned())
                });
                started.await.expect("it is ready");
                pending().await
            });
            let error = result.await.expect_err("a child failed");
            assert_eq!(error.first().map(String::as_str), Some("later"));
            assert!(
                error
                    .iter()
                    .next()
                    .and_then(|failure| failure.task())
                    .is_some()
            );
        }
    });
}

#[test]
fn a_child_that_ends_without_being_ready_is_reported() {
    paused(async || {
        let result = scope(async |group: &Group| -> Done {
            let started = group.start(|ready: Ready<()>| async move {
                sleep(ms(5)).await;
                drop(ready);
            });
            assert!(matches!(started.await, Err(StartError::NotReady)));
            assert!(group.is_empty());
            Ok(())
        });
        result.await.expect("the group heard nothing of it");
    });
}

#[test]
fn a_child_that_can_never_be_ready_any_more_is_dropped() {
    paused(async || {
        let (began, drops) = (Instant::now(), Drops::new());
        let result = scope(async |group: &Group| -> Done {
            let guard = drops.guard();
            let started = group.start(|ready: Ready<()>| async move {
                let _guard = guard;
                drop(ready);
                pending::<()>().await;
            });
            assert!(matches!(started.await, Err(StartError::NotReady)));
            assert_eq!((drops.alive(), group.len()), (0, 0));
            Ok(())
        });
        result.await.expect("the group heard nothing of it");
        assert_eq!(began.elapsed(), Duration::ZERO);
    });
}

#[test]
fn a_panic_before_ready_comes_out_of_start() {
    paused(async || {
        let caught_in_body = Log::new();
        let result = scope(async |group: &Group| -> Done {
            let started = group.start(|ready: Ready<()>| async move {
                sleep(ms(5)).await;
                let is_late = ready_is_late(&ready);
                assert!(is_late, "thrown before");
            });
            let thrown = caught(started).await.map(drop);
            caught_in_body.push(thrown.expect_err("it throws"));
            assert!(!group.is_cancelled() && group.is_empty());
            Ok(())
        });
        result.await.expect("the body has dealt with it");
        assert_eq!(caught_in_body.entries(), ["thrown before"]);
    });
}

fn ready_is_late<R>(_: &Ready<R>) -> bool {
    false
}

#[test]
fn a_panic_after_ready_is_that_of_the_child() {
    paused(async || {
        for time in [0, 5] {
            let run = Scope::new().panics_as_errors();
            let result = run.run(async |group: &Group| -> Done {
                let started = group.start(|ready| async move {
                    ready.set(());
                    if time > 0 {
                        sleep(ms(time)).await;
                    }
                    let is_fine = Cell::new(false).get();
                    assert!(is_fine, "thrown after");
                });
                started.await.expect("it is ready");
                pending().await
            });
            let error = result.await.expect_err("a child panicked");
            let failure = error.iter().next().expect("it is listed");
            assert!(failure.panic().is_some() && failure.task().is_some());
        }
    });
}

#[test]
fn dropped_before_it_is_ready_the_child_is_gone_with_it() {
    paused(async || {
        let (drops, kept) = (Drops::new(), Arc::new(Mutex::new(None)));
        let result = scope(async |group: &Group| -> Done {
            let (guard, keep) = (drops.guard(), kept.clone());
            let started = group.start(|ready: Ready<u8>| async move {
                let _guard = guard;
                *keep.lock().expect("nobody throws") = Some(ready);
                pending::<()>().await;
            });
            assert!(timeout(ms(5), started).await.is_err());
            assert_eq!((drops.alive(), group.len()), (0, 0));
            Ok(())
        });
        result.await.expect("nobody fails");
        // What comes later has no effect.
        let late = kept.lock().expect("nobody throws").take();
        late.expect("it was kept").set(1);
    });
}

#[test]
fn scopes_that_a_child_leaves_behind_before_it_is_ready_are_waited_for() {
    every_runtime(async || {
        let (drops, polls) = (Drops::new(), Count::new());
        let result = scope(async |group: &Group| -> Done {
            let (guard, count) = (drops.guard(), polls.clone());
            let started = group.start(|ready: Ready<()>| async move {
                let inner = scope(async |inner: &Group| -> Done {
                    inner.spawn(async move {
                        let _guard = guard;
                        count.add();
                        pending::<()>().await;
                    });
                    pending().await
                });
                drop(inner.await);
                ready.set(());
            });
            {
                let mut started = pin!(started);
                assert!(poll!(started.as_mut()).is_pending());
                crate::support::until(|| polls.get() == 1).await;
            }
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!(drops.alive(), 0);
    });
}

#[test]
fn a_start_into_a_closing_group_fails_at_once() {
    paused(async || {
        let (log, run) = (Log::new(), Scope::new().grace(ms(10)));
        let result = run.run(async |group: &Group| -> Done {
            let polls = Count::new();
            let start = || {
                let count = polls.clone();
                group.start(|ready| async move {
                    count.add();
                    ready.set(());
                })
            };
            let early = start();
            group.cancel();
            for started in [early, start()] {
                let error = started.await.map(drop).expect_err("it is closing");
                assert!(matches!(
                    error,
                    StartError::Cancelled(CancelReason::Requested { .. })
                ));
            }
            log.push(polls.get());
            Ok(())
        });
        assert!(result.await.expect_err("cancelled").is_cancelled());
        assert_eq!(log.entries(), [0]);
    });
}

#[test]
fn the_cancel_of_all_children_ends_one_that_is_not_ready() {
    paused(async || {
        let drops = Drops::new();
        let result = scope(async |group: &Group| -> Done {
            let guard = drops.guard();
            let started = group.start(|ready: Ready<()>| async move {
                let _guard = guard;
                sleep(ms(5)).await;
                pending::<()>().await;
                ready.set(());
            });
            let mut started = pin!(started);
            assert!(poll!(started.as_mut()).is_pending());
            group.cancel_children();
            let error = started.await.map(drop).expect_err("it was cancelled");
            assert_eq!(
                error,
                StartError::Cancelled(CancelReason::ChildrenCancelled)
            );
            assert_eq!((drops.alive(), group.len()), (0, 0));
            Ok(())
        });
        result.await.expect("the group goes on");
    });
}

#[test]
fn a_group_cancelled_before_or_after_ready_ends_the_child_and_all_below() {
    paused(async || {
        for is_ready in [false, true] {
            let drops = Drops::new();
            let result = scope(async |group: &Group| -> Done {
                let (mine, below) = (drops.guard(), drops.guard());
                let spawner = group.spawner();
                let started = group.start(move |ready: Ready<()>| async move {
                    let _mine = mine;
                    let inner = scope(async |inner: &Group| -> Done {
                        inner.spawn(async move {
                            let _below = below;
                            pending::<()>().await;
                        });
                        if is_ready {
                            ready.set(());
                        }
                        spawner.cancel();
                        pending().await
                    });
                    drop(inner.await);
                });
                drop(started.await);
                pending().await
            });
            assert!(result.await.expect_err("cancelled").is_cancelled());
            assert_eq!((drops.made(), drops.alive()), (2, 0));
        }
    });
}

#[test]
fn a_failing_sibling_cancels_a_start_that_is_pending() {
    paused(async || {
        let (began, drops) = (Instant::now(), Drops::new());
        let result = scope(async |group: &Group| -> Done {
            let guard = drops.guard();
            group.spawn(async {
                sleep(ms(5)).await;
                Err::<(), _>("a sibling".to_owned())
            });
            let started = group.start(|ready: Ready<()>| async move {
                let (_guard, _ready) = (guard, ready);
                pending::<()>().await;
            });
            drop(started.await);
            Ok(())
        });
        let error = result.await.expect_err("a child failed");
        assert_eq!((error.len(), drops.alive(), began.elapsed()), (1, 0, ms(5)));
    });
}

#[test]
fn within_a_grace_a_child_may_still_become_ready() {
    paused(async || {
        let log = Log::new();
        let run = Scope::new().grace(ms(50));
        let result = run.run(async |group: &Group| -> Done {
            let started = group.start(|ready| async move {
                token().cancelled().await;
                sleep(ms(5)).await;
                ready.set("just in time");
            });
            let mut started = pin!(started);
            assert!(poll!(started.as_mut()).is_pending());
            group.cancel();
            log.push(started.await.expect("it is ready").0);
            Ok(())
        });
        assert!(result.await.expect_err("cancelled").is_cancelled());
        assert_eq!(log.entries(), ["just in time"]);
    });
}

#[test]
fn only_a_pending_start_keeps_the_group_busy() {
    paused(async || {
        let result = scope(async |group: &Group| -> Done {
            let started = group.start(|ready: Ready<()>| async move {
                sleep(ms(5)).await;
                drop(ready);
            });
            let mut started = pin!(started);
            assert_eq!(group.len(), 0, "nothing has begun");
            assert!(poll!(started.as_mut()).is_pending());
            assert_eq!(group.len(), 1);
            assert!(started.await.is_err());
            assert_eq!(group.len(), 0);
            assert!(group.try_spawn(async {}).is_ok(), "it is open");
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn the_scope_waits_for_a_start_that_another_task_has_pending() {
    for (fails, took) in [(false, 6), (true, 3)] {
        paused(async || {
            let began = Instant::now();
            let result = scope(async |outer: &Group| -> Done {
                let inner = scope(async |inner: &Group| -> Done {
                    for wait in [0, 1] {
                        sleep(ms(wait)).await;
                        let spawner = inner.spawner();
                        outer.spawn(async move {
                            let started = spawner.start(|ready| async move {
                                sleep(ms(2)).await;
                                if fails {
                                    return Err("lost".to_owned());
                                }
                                ready.set(());
                                sleep(ms(3)).await;
                                Ok(())
                            });
                            assert_eq!(started.await.is_err(), fails);
                        });
                        yield_now().await;
                    }
                    Ok(())
                });
                inner
                    .await
                    .expect("what fails before it is ready is not its");
                assert_eq!(began.elapsed(), ms(took));
                Ok(())
            });
            result.await.expect("nobody fails");
        });
    }
}

#[test]
fn anybody_may_say_that_it_is_ready() {
    every_runtime_in_a_task(|| async {
        let result = scope(async |group: &Group| -> Done {
            let started = group.start(|ready| async move {
                let elsewhere = thread::spawn(move || ready.set(9));
                pending::<()>().await;
                drop(elsewhere);
            });
            let (value, handle) = started.await.expect("it is ready");
            assert_eq!(value, 9);
            assert!(handle.cancel_and_wait().await.is_cancelled());
            Ok(())
        });
        result.await.expect("one child was cancelled alone");
    });
}

#[test]
fn before_ready_it_runs_as_the_child_that_it_will_be() {
    paused(async || {
        let log = Log::new();
        let run = Scope::new().grace(ms(10));
        let result = run.run(async |group: &Group| -> Done {
            let (spawner, inside) = (group.spawner(), log.clone());
            let started = group.start(|ready| async move {
                yield_now().await;
                spawner.spawn(async {}).await;
                let mine = token();
                ready.set(spawner.clone());
                mine.cancelled().await;
                inside.push(mine.reason());
            });
            let (_, handle) = started.await.expect("it is ready");
            handle.cancel();
            assert!(!group.is_cancelled() && !token().is_cancelled());
            Ok(())
        });
        result.await.expect("one child was cancelled alone");
        assert_eq!(log.entries(), [Some(CancelReason::Handle)]);
    });
}

#[test]
fn the_observer_hears_of_each_start_and_its_end_once() {
    paused(async || {
        let notes = Arc::new(Notes::default());
        let run = Scope::new().observer(notes.clone());
        let result = run.run(async |group: &Group| -> Done {
            for how in 0..6 {
                let started = group.start(|ready: Ready<()>| async move {
                    yield_now().await;
                    match how {
                        0 => ready.set(()),
                        1 => return Err("no".to_owned()),
                        2 => drop(ready),
                        3 => {
                            drop(ready);
                            pending::<()>().await;
                        }
                        4 => panic!("before it is ready"),
                        _ => pending().await,
                    }
                    Ok(())
                });
                drop(caught(timeout(ms(5), started)).await);
            }
            Ok(())
        });
        result.await.expect("nobody fails the group");
        assert_eq!(notes.spawned.get(), 6);
        let handle = Ended::Cancelled(CancelReason::Handle);
        let ended = notes.ended.entries();
        let times = |how: &Ended| ended.iter().filter(|it| *it == how).count();
        assert_eq!(times(&Ended::Completed), 2, "{ended:?}");
        assert_eq!(times(&handle), 2, "{ended:?}");
        assert_eq!((times(&Ended::Failed), times(&Ended::Panicked)), (1, 1));
        assert_eq!(ended.len(), 6);
    });
}

#[test]
fn a_start_that_waits_wakes_nobody_in_vain() {
    paused(async || {
        let result = scope(async |group: &Group| -> Done {
            let kept = Arc::new(Mutex::new(None));
            let keep = kept.clone();
            let started = group.start(|ready: Ready<u8>| async move {
                *keep.lock().expect("nobody throws") = Some(ready);
                pending::<()>().await;
            });
            let counting = crate::support::CountingWaker::new();
            let waker = counting.waker();
            let mut cx = Context::from_waker(&waker);
            let mut started = pin!(started);
            assert!(Future::poll(started.as_mut(), &mut cx).is_pending());
            settle().await;
            assert_eq!(counting.wakes(), 0);
            let ready = kept.lock().expect("nobody throws").take();
            ready.expect("it was kept").set(5);
            assert_eq!(counting.wakes(), 1);
            let (value, handle) = started.await.expect("it is ready");
            assert_eq!(value, 5);
            handle.cancel();
            Ok(())
        });
        result.await.expect("one child was cancelled alone");
    });
}

#[test]
fn a_started_server_listens_before_its_client_connects() {
    use tokio::net::{TcpListener, TcpStream};
    every_runtime_in_a_task(|| async {
        let result = scope(async |group: &TaskGroup<std::io::Error>| {
            let server = group.start(|ready| async move {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                ready.set(listener.local_addr()?);
                listener.accept().await?;
                Ok(())
            });
            let (address, _server) = server.await.map_err(std::io::Error::other)?;
            TcpStream::connect(address).await?;
            Ok(())
        });
        result.await.expect("nobody fails");
    });
}

#[test]
fn outside_a_runtime_a_ready_child_is_refused() {
    let result = scope(async |group: &Group| -> Done {
        let started = group.start(|ready| async move {
            ready.set(());
            pending::<()>().await;
        });
        started.await.expect("it is ready");
        Ok(())
    });
    let text = caught(result).now_or_never().expect("nothing waits");
    assert!(
        text.expect_err("refused")
            .contains("outside a tokio runtime")
    );
}

#[test]
fn the_errors_of_a_start_say_what_happened() {
    let failed: StartError<String> = StartError::Failed("no".to_owned());
    let reason = CancelReason::Shutdown;
    let texts = [
        failed.to_string(),
        StartError::<String>::NotReady.to_string(),
        StartError::<String>::Cancelled(reason).to_string(),
    ];
    assert_eq!(
        texts,
        [
            "failed before it was ready: no",
            "ended without being ready",
            "cancelled before it was ready, because it was shut down"
        ]
    );
    assert_eq!(failed.into_failed(), Ok("no".to_owned()));
    drop(OwnedGroup::<String>::new());
    let outcome: Outcome<()> = Outcome::Failed;
    assert!(!outcome.is_completed());
}

#[test]
fn an_output_that_panics_when_it_is_dropped_before_ready_is_a_panic_of_the_child() {
    paused(async || {
        let notes = Arc::new(Notes::default());
        let run = Scope::new().observer(notes.clone());
        let ended = run.run(async |group: &Group| -> Done {
            let started = group.start(|ready: Ready<()>| async move {
                drop(ready);
                Ok(PanicOnDrop("its value"))
            });
            drop(started.await);
            Ok(())
        });
        let thrown = caught(ended).await.map(|_| ()).expect_err("it throws");
        assert_eq!(thrown, "its value");
        assert_eq!(notes.ended.entries(), [Ended::Panicked]);
    });
}

#[test]
fn a_start_that_is_given_up_cancels_the_child_as_its_handle_would() {
    paused(async || {
        let notes = Arc::new(Notes::default());
        let run = Scope::new().observer(notes.clone());
        let result = run.run(async |group: &Group| -> Done {
            let started = group.start(async |_ready: Ready<()>| pending::<()>().await);
            assert!(timeout(ms(5), started).await.is_err());
            Ok(())
        });
        result.await.expect("nobody fails");
        let handle = Ended::Cancelled(CancelReason::Handle);
        assert_eq!(notes.ended.entries(), [handle]);

        let notes = Arc::new(Notes::default());
        let run = Scope::new().observer(notes.clone());
        let result = run.run(async |group: &Group| -> Done {
            let started = group.start(async |_ready: Ready<()>| {
                let _bomb = PanicOnDrop("in its destructor");
                pending::<()>().await;
            });
            assert!(timeout(ms(5), started).await.is_err());
            Ok(())
        });
        result.await.expect("nobody else has to do with it");
        assert_eq!(notes.ended.entries(), [Ended::Panicked]);
        assert_eq!(notes.displaced.get(), 1);
    });
}

/// Says that it is ready, ends with an answer, and throws when it is dropped.
struct ReadyAndThrows(Option<Ready<u8>>, Done);

impl Drop for ReadyAndThrows {
    fn drop(&mut self) {
        panic!("bang");
    }
}

impl Future for ReadyAndThrows {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Done> {
        self.0.take().expect("polled once").set(7);
        Poll::Ready(self.1.clone())
    }
}

#[test]
fn one_that_is_ready_and_over_and_throws_when_it_is_dropped_is_a_panicked_child() {
    paused(async || {
        for answer in [Ok(()), Err("no".to_owned())] {
            let notes = Arc::new(Notes::default());
            let run = Scope::new().observer(notes.clone()).panics_as_errors();
            let mut got = None;
            let result = run.run(async |group: &Group| -> Done {
                let child = |ready| ReadyAndThrows(Some(ready), answer.clone());
                got = group.start(child).await.ok().map(|(value, _)| value);
                Ok(())
            });
            let error = result.await.expect_err("it panicked");
            assert_eq!(got, Some(7));
            let of_the_child = |it: &Failure<String>| it.task().is_some() && it.panic().is_some();
            assert!(error.iter().all(of_the_child), "{error:?}");
            assert_eq!(error.len(), 1);
            assert_eq!(notes.ended.entries(), [Ended::Panicked]);
            assert_eq!(notes.displaced.get(), usize::from(answer.is_err()));
        }
    });
}

#[test]
fn one_that_is_ready_and_over_in_a_group_that_is_cancelled_then_is_heard_of() {
    paused(async || {
        for throws in [false, true] {
            let run = Scope::new().panics_as_errors();
            let result = run.run(async |group: &Group| -> Done {
                let started = group.start(|ready| async move {
                    ready.set(());
                    assert!(!throws, "thrown");
                    Err::<(), _>("no".to_owned())
                });
                let ((), handle) = started.await.expect("it is ready");
                group.cancel(); // before a task would have its first turn
                drop(handle);
                Ok(())
            });
            let error = result.await.expect_err("it failed");
            assert_eq!(error.len(), 1);
            assert_eq!(error.iter().any(|it| it.panic().is_some()), throws);
        }
    });
}

#[test]
fn one_that_outlasts_a_grace_or_its_shield_is_named() {
    paused(async || {
        let named = |result: Result<(), GroupError<String>>| {
            let error = result.expect_err("cancelled");
            let names = error.forced().iter().map(|it| it.name().map(str::to_owned));
            names.collect::<Vec<_>>()
        };
        for grace in [10, 0] {
            for all in [true, false] {
                let run = Scope::new()
                    .grace(ms(grace))
                    .run(async |group: &Group| -> Done {
                        let mut child =
                            pin!(group.named("slow").start(|ready: Ready<()>| async move {
                                let _ready = ready;
                                shield(ms(5), pending::<()>()).await;
                            }));
                        assert!(poll!(child.as_mut()).is_pending());
                        if all {
                            group.cancel();
                        } else {
                            group.cancel_children();
                        }
                        let error = child.await.map(drop).expect_err("cancelled");
                        assert_eq!(
                            error,
                            StartError::Cancelled(CancelReason::ChildrenCancelled)
                        );
                        group.cancel();
                        Ok(())
                    });
                // Whoever waits for it needs as long.
                let body = all.then_some(None);
                let both = body.into_iter().chain([Some("slow".to_owned())]);
                assert_eq!(named(run.await), both.collect::<Vec<_>>());
            }
        }
        // One that is given up while its shield holds has outlasted nothing.
        let run = scope(async |group: &Group| -> Done {
            let mut child = Box::pin(group.start(|ready: Ready<()>| async move {
                let _ready = ready;
                shield(ms(50), pending::<()>()).await;
            }));
            assert!(poll!(child.as_mut()).is_pending());
            group.cancel();
            assert!(timeout(ms(5), child).await.is_err());
            Ok(())
        });
        assert_eq!(named(run.await), [None; 0]);
        // One that throws where it is forced is a panicked one, as any child is.
        let run = Scope::new()
            .grace(ms(10))
            .run(async |group: &Group| -> Done {
                let child = group.start(async |_ready: Ready<()>| {
                    let _bomb = PanicOnDrop("forced");
                    pending::<()>().await;
                });
                let mut child = pin!(std::panic::AssertUnwindSafe(child).catch_unwind());
                assert!(poll!(child.as_mut()).is_pending());
                group.cancel_children();
                assert!(child.await.is_err());
                group.cancel();
                Ok(())
            });
        assert_eq!(named(run.await), [None; 0]);
    });
}

#[test]
fn long_lived_groups_and_spawners_start_children_too() {
    every_runtime(async || {
        let group = OwnedGroup::<String>::new();
        let child = |ready: Ready<u8>| async move {
            ready.set(7);
            yield_now().await;
            Ok("done")
        };
        let (value, handle) = group.start(child).await.expect("it is ready");
        assert_eq!((value, handle.await), (7, Outcome::Completed("done")));
        let started = group.spawner().named("second").start(child).await;
        let (_, handle) = started.expect("it is ready");
        assert!(format!("{handle:?}").contains("second"), "{handle:?}");
        let fails = group.start(|_: Ready<()>| async { Err::<(), _>("no".to_owned()) });
        let error = fails.await.expect_err("it failed");
        assert_eq!(error, StartError::Failed("no".to_owned()));
        assert!(group.wait().await.is_clean(), "that is nobody else's");
    });
}
