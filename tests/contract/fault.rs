//! Fault and abuse: scenarios that break peers. Here: panics and destructors.

mod lifetime;
mod observer;
mod rare;
mod runtime;
mod scale;
mod waker;

use std::{
    fmt,
    future::{Future, pending, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind, panic_any},
    pin::{Pin, pin},
    process::Command,
    sync::{Arc, Barrier},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures::{FutureExt, poll};
use ringfence::{
    Cause, Displaced, DisplacedWhat, Ended, Observer, Outcome, OutcomeHandle, Scope, Straggler,
    TaskGroup, TaskInfo, root, scope,
};
use tokio::sync::oneshot;

use crate::support::{
    Count, Drops, Log, OnDrop, PATIENCE, PanicOnDrop, Parked, Watchdog, caught, current_thread,
    every_runtime, multi_thread, settle, spawn, until,
};

type Group = TaskGroup<String>;
type Done = Result<(), String>;
type Boxed<T = ()> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Smaller where nothing is optimized.
const fn scaled(release: usize, debug: usize) -> usize {
    if cfg!(debug_assertions) {
        debug
    } else {
        release
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Writes down what it is told: texts of panics, errors of type `String`, and ends.
#[derive(Clone, Default)]
struct Notes {
    spawned: Count,
    displaced: Log<String>,
    ended: Log<Ended>,
}

impl Observer for Notes {
    fn spawned(&self, _: &TaskInfo) {
        self.spawned.add();
    }

    fn displaced(&self, what: &Displaced) {
        self.displaced.push(match &what.what {
            DisplacedWhat::Panic(panic) => panic.message().to_owned(),
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

fn observed(notes: &Notes) -> Scope {
    Scope::new().observer(Arc::new(notes.clone()))
}

#[test]
fn two_panics_in_one_instant_on_two_workers_never_abort() {
    let _watchdog = Watchdog::start("two workers", PATIENCE);
    multi_thread(2).block_on(async {
        for _ in 0..50 {
            let (notes, both) = (Notes::default(), Arc::new(Barrier::new(2)));
            let thrown = caught(observed(&notes).run(async |group: &Group| -> Done {
                for name in ["one", "two"] {
                    let both = both.clone();
                    group.spawn(async move {
                        both.wait();
                        panic_any(name);
                    });
                }
                Ok(())
            }));
            let mut all = notes.displaced.entries();
            assert!(all.is_empty(), "it has not been polled");
            let resumed = thrown.await.unwrap_err();
            all = notes.displaced.entries();
            all.push(resumed);
            all.sort();
            assert_eq!(all, ["one", "two"]);
        }
    });
}

#[test]
fn a_future_whose_drop_panics_on_cancel_is_a_panicked_child() {
    every_runtime(async || {
        for polled in [true, false] {
            let (polls, drops, mut handle) = (Count::new(), Drops::new(), None);
            let error = Scope::new()
                .panics_as_errors()
                .run(async |group: &Group| -> Done {
                    let (polls_inside, bomb) = (polls.clone(), PanicOnDrop("bomb"));
                    group.spawn(Parked::new(&polls, &drops));
                    let child = group.spawn(async move {
                        let _bomb = bomb;
                        polls_inside.add();
                        pending::<()>().await;
                    });
                    group.spawn(Parked::new(&polls, &drops));
                    handle = Some(child.detached());
                    if polled {
                        until(|| polls.get() == 3).await;
                    }
                    group.cancel();
                    Ok(())
                })
                .await
                .unwrap_err();
            assert!(error.is_cancelled());
            let panics = error.iter().filter_map(|failure| failure.panic());
            assert_eq!(
                panics.map(|panic| panic.message()).collect::<Vec<_>>(),
                ["bomb"]
            );
            assert_eq!(handle.unwrap().await, Outcome::Panicked);
            assert_eq!((drops.made(), drops.dropped()), (2, 2), "{polled}");
        }
    });
}

#[test]
fn a_captured_value_whose_drop_panics_makes_a_completed_child_panicked() {
    every_runtime(async || {
        let (notes, mut handles) = (Notes::default(), Vec::new());
        let thrown = caught(observed(&notes).run(async |group: &Group| -> Done {
            let local = PanicOnDrop("a local");
            let inside_its_poll = async move {
                let _local = local;
                Ok(7)
            };
            let captured = PanicOnDrop("a capture");
            let after_its_poll = poll_fn(move |_| {
                let _here = &captured;
                Poll::Ready(Ok(7))
            });
            handles.push(group.spawn(inside_its_poll).detached());
            settle().await;
            handles.push(group.spawn(after_its_poll).detached());
            Ok(())
        }));
        let thrown = thrown.await.unwrap_err();
        for handle in handles {
            let outcome = handle.await;
            assert!(!outcome.is_completed(), "{outcome:?}");
        }
        assert!(!notes.ended.entries().contains(&Ended::Completed));
        assert!(["a local", "a capture"].contains(&&*thrown), "{thrown}");
        // And each of them alone.
        let captured = PanicOnDrop("alone");
        let mut handle: Option<OutcomeHandle<u8>> = None;
        let thrown = caught(scope(async |group: &Group| -> Done {
            let child = group.spawn(poll_fn(move |_| {
                let _here = &captured;
                Poll::Ready(Ok(7))
            }));
            handle = Some(child.detached());
            Ok(())
        }));
        assert_eq!(thrown.await.unwrap_err(), "alone");
        assert_eq!(handle.unwrap().await, Outcome::Panicked);
    });
}

#[test]
fn an_output_whose_drop_panics_is_observed() {
    every_runtime(async || {
        for before_its_end in [true, false] {
            let notes = Notes::default();
            observed(&notes)
                .run(async |group: &Group| -> Done {
                    let (go, gate) = oneshot::channel::<()>();
                    let child = group.spawn(async move {
                        drop(gate.await);
                        Ok(PanicOnDrop("output"))
                    });
                    if before_its_end {
                        drop(child);
                        drop(go);
                    } else {
                        drop(go);
                        until(|| child.is_finished()).await;
                        drop(child);
                    }
                    Ok(())
                })
                .await
                .expect("the group succeeds");
            until(|| !notes.displaced.entries().is_empty()).await;
            assert_eq!(notes.displaced.entries(), ["output"], "{before_its_end}");
            assert_eq!(notes.ended.entries(), [Ended::Completed]);
        }
    });
}

#[test]
fn a_payload_whose_drop_panics_is_swallowed_and_observed() {
    every_runtime(async || {
        let notes = Notes::default();
        let kept = observed(&notes).panics_as_errors();
        let error = kept
            .run(async |group: &Group| -> Done {
                group.spawn(async { panic_any(PanicOnDrop("kept")) });
                pending().await
            })
            .await
            .unwrap_err();
        assert_eq!(error.len(), 1);
        drop(error);
        // One that nobody takes: the scope is not polled again, and dropped.
        let (go, gate) = oneshot::channel::<()>();
        let mut dropped = Box::pin(observed(&notes).run(async |group: &Group| -> Done {
            group.spawn(async {
                drop(gate.await);
                panic_any(PanicOnDrop("displaced"))
            });
            pending().await
        }));
        assert!(poll!(&mut dropped).is_pending());
        drop(go);
        until(|| notes.ended.entries().len() == 2).await;
        drop(dropped);
        root().wait(PATIENCE).await.unwrap();
        let texts = ["a payload that is not a string", "displaced"];
        assert_eq!(notes.displaced.entries(), texts);
    });
}

#[test]
fn a_panic_in_a_drop_during_unwinding_aborts_after_the_first_message() {
    const MARK: &str = "RINGFENCE_TEST_ABORTS";
    const NAME: &str = "fault::a_panic_in_a_drop_during_unwinding_aborts_after_the_first_message";
    if std::env::var_os(MARK).is_some() {
        let thrown = current_thread().block_on(caught(scope(async |group: &Group| -> Done {
            group.spawn(async {
                let _second = PanicOnDrop("the second message");
                panic!("the first message");
            });
            Ok(())
        })));
        unreachable!("the process lives: {thrown:?}");
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stderr);
    assert!(
        !child.status.success() && child.status.code() != Some(101),
        "{text}"
    );
    let (first, second) = (
        text.find("the first message"),
        text.find("the second message"),
    );
    assert!(first.is_some() && first < second, "{text}");
}

/// An error that cannot be printed, copied or converted.
struct Evil;

impl fmt::Display for Evil {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("display")
    }
}

impl fmt::Debug for Evil {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("debug")
    }
}

impl Clone for Evil {
    fn clone(&self) -> Self {
        panic!("clone")
    }
}

impl From<fmt::Error> for Evil {
    fn from(_: fmt::Error) -> Self {
        panic!("from")
    }
}

#[test]
fn an_error_whose_display_panics_leaves_the_group_intact() {
    every_runtime(async || {
        let drops = Drops::new();
        let error = scope(async |group: &TaskGroup<Evil>| -> Result<(), Evil> {
            group.spawn(Parked::new(&Count::new(), &drops));
            group.spawn(async { Err::<(), _>(Evil) });
            pending().await
        })
        .await
        .unwrap_err();
        assert_eq!(drops.alive(), 0);
        assert!(catch_unwind(AssertUnwindSafe(|| error.to_string())).is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| format!("{error:?}"))).is_err());
        assert_eq!((error.cause(), error.len()), (error.cause(), 1));
        assert!(matches!(error.cause(), Cause::Failed));
        assert!(error.into_first().is_ok());
    });
}

#[test]
fn a_conversion_that_panics_in_a_child_is_a_panic_of_that_child() {
    every_runtime(async || {
        for by_clone in [true, false] {
            let (drops, mut handle) = (Drops::new(), None);
            let thrown = caught(scope(async |group: &TaskGroup<Evil>| {
                group.spawn(Parked::new(&Count::new(), &drops));
                let child = group.spawn(async move {
                    if by_clone {
                        return Err(Evil.clone());
                    }
                    Err(fmt::Error)?;
                    Ok(())
                });
                handle = Some(child.detached());
                pending::<Result<(), Evil>>().await
            }));
            let thrown = thrown.await.map(|_| ()).unwrap_err();
            assert_eq!(thrown, if by_clone { "clone" } else { "from" });
            assert_eq!(handle.unwrap().await, Outcome::Panicked);
            assert_eq!(drops.alive(), 0);
        }
    });
}

/// A child that spawns into its own group when it is dropped, and says whether that was accepted.
fn spawns_in_its_drop(
    group: &Group,
    polls: &Count,
    drops: &Drops,
    accepted: &Log<bool>,
) -> impl Future<Output = ()> + Send + use<> {
    let (spawner, accepted) = (group.spawner(), accepted.clone());
    let late = Parked::new(&Count::new(), drops);
    let (polls, late_polls) = (polls.clone(), polls.clone());
    let late = async move {
        late_polls.add();
        late.await;
    };
    let captured = OnDrop::new(move || accepted.push(spawner.try_spawn(late).is_ok()));
    async move {
        let _captured = captured;
        polls.add();
        pending::<()>().await;
    }
}

#[test]
fn a_child_that_spawns_in_its_own_drop_while_closing_is_refused() {
    every_runtime(async || {
        let (polls, drops, accepted) = (Count::new(), Drops::new(), Log::new());
        let error = scope(async |group: &Group| -> Done {
            group.spawn(spawns_in_its_drop(group, &polls, &drops, &accepted));
            until(|| polls.get() == 1).await;
            group.cancel();
            Ok(())
        })
        .await
        .unwrap_err();
        assert!(error.is_cancelled());
        assert_eq!(
            (polls.get(), drops.alive(), accepted.entries()),
            (1, 0, vec![false])
        );
    });
    for runtime in [current_thread(), multi_thread(2)] {
        let (polls, drops, accepted) = (Count::new(), Drops::new(), Log::new());
        let seen = (polls.clone(), drops.clone(), accepted.clone());
        runtime.block_on(async move {
            let task = spawn(async move {
                let (polls, drops, accepted) = seen;
                scope(async |group: &Group| -> Done {
                    group.spawn(spawns_in_its_drop(group, &polls, &drops, &accepted));
                    pending().await
                })
                .await
            });
            drop(task);
            until(|| polls.get() == 1).await;
            polls
        });
        drop(runtime);
        assert_eq!(
            (drops.made(), drops.alive(), accepted.entries().len()),
            (1, 0, 1)
        );
    }
}

#[test]
fn a_destructor_that_opens_a_scope_does_not_deadlock() {
    every_runtime(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        let error = scope(async |group: &Group| -> Done {
            for polled in [true, false] {
                let (polls_inside, drops, inner_drops) =
                    (polls.clone(), drops.guard(), drops.clone());
                let captured = OnDrop::new(move || {
                    let parked = Parked::new(&Count::new(), &inner_drops);
                    let opened = scope(async move |group: &Group| -> Done {
                        group.spawn(parked);
                        pending().await
                    });
                    if polled {
                        assert!(opened.now_or_never().is_none());
                    }
                });
                group.spawn(async move {
                    let _captured = (drops, captured);
                    polls_inside.add();
                    pending::<()>().await;
                });
            }
            until(|| polls.get() == 2).await;
            group.cancel();
            Ok(())
        })
        .await
        .unwrap_err();
        assert!(error.is_cancelled());
        assert_eq!((drops.made(), drops.dropped()), (4, 4));
        assert_eq!(root().orphans(), 0);
    });
}

/// An observer of which every hook panics.
struct Throws;

impl Observer for Throws {
    fn spawned(&self, _: &TaskInfo) {
        panic!("spawned");
    }
    fn ended(&self, _: &TaskInfo, _: &Ended) {
        panic!("ended");
    }
    fn displaced(&self, _: &Displaced) {
        panic!("displaced");
    }
    fn forced(&self, _: &Straggler) {
        panic!("forced");
    }
}

/// An error of which `Debug` and the destructor panic.
struct Nasty;

impl fmt::Debug for Nasty {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("debug")
    }
}

impl Drop for Nasty {
    fn drop(&mut self) {
        panic!("the destructor of an error");
    }
}

/// A waker that panics, and counts that it did.
struct Alarm(Count);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.add();
        panic!("woken");
    }
}

#[test]
fn a_panic_where_a_lock_could_be_held_poisons_nothing() {
    every_runtime(async || {
        let (drops, alarms) = (Drops::new(), Count::new());
        let waker = Waker::from(Arc::new(Alarm(alarms.clone())));
        let ended = Scope::new()
            .observer(Arc::new(Throws))
            .grace(ms(1))
            .run(async |group: &TaskGroup<Nasty>| {
                let mut wait = pin!(group.token().cancelled());
                assert!(
                    wait.as_mut()
                        .poll(&mut Context::from_waker(&waker))
                        .is_pending()
                );
                for _ in 0..10 {
                    drop(group.spawn(async { Ok(PanicOnDrop("output")) }));
                    group.spawn(Parked::new(&Count::new(), &drops));
                }
                group.cancel_children();
                until(|| group.is_empty()).await;
                assert_eq!(group.spawn(async { Ok(7) }).await, 7, "it works on");
                // An inner scope whose error nobody gets.
                let (started, (go, gate), (go_on, second_gate)) = (
                    Count::new(),
                    oneshot::channel::<()>(),
                    oneshot::channel::<()>(),
                );
                let mut inner = Box::pin(scope(async |group: &TaskGroup<Nasty>| {
                    let inside = started.clone();
                    group.spawn(async move {
                        drop(gate.await);
                        inside.add();
                        Err::<(), _>(Nasty)
                    });
                    let inside = started.clone();
                    group.spawn(async move {
                        drop(second_gate.await);
                        inside.add();
                        panic_any(PanicOnDrop("payload"))
                    });
                    pending::<Result<(), Nasty>>().await
                }));
                assert!(poll!(&mut inner).is_pending());
                drop(go);
                until(|| started.get() == 1).await;
                drop(go_on);
                settle().await;
                drop(inner);
                until(|| group.is_empty()).await;
                assert_eq!(group.spawn(async { Ok(7) }).await, 7, "and on");
                group.cancel();
                group.token().cancelled().await;
                Ok(())
            })
            .await;
        let error = ended.unwrap_err();
        assert!(error.is_cancelled() && error.is_empty());
        assert_eq!((drops.made(), drops.alive(), alarms.get()), (10, 0, 1));
    });
}
