//! Panic: whose payload resumes, when, and where the others go.

use std::{
    any::Any,
    future::{Future, pending, poll_fn},
    panic::{AssertUnwindSafe, panic_any},
    pin::Pin,
    sync::{Arc, Barrier},
    task::Poll,
    time::Duration,
};

use futures::{FutureExt, poll};
use ringfence::{
    BorrowGroup, CancelReason, Cause, Displaced, DisplacedWhat, FailureKind, Observer, Scope,
    TaskGroup, TaskInfo, scope, token,
};
use tokio::task::yield_now;

use crate::support::{
    Count, Drops, Log, OnDrop, PATIENCE, PanicOnDrop, Parked, Watchdog, caught, every_runtime,
    message, multi_thread, until,
};

/// Longer than any test lasts: a grace that nobody is to see the end of.
const LONG: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Lost(u32);

type Group = TaskGroup<Lost>;

/// Writes down what is displaced.
struct Displacements(Log<String>);

impl Observer for Displacements {
    fn displaced(&self, displaced: &Displaced) {
        self.0.push(match &displaced.what {
            DisplacedWhat::Panic(panic) => format!("panic {panic}"),
            DisplacedWhat::Error(error) => format!("error {:?}", error.downcast_ref::<Lost>()),
            _ => unreachable!("there are two kinds"),
        });
    }
}

fn observed(log: &Log<String>) -> Scope {
    Scope::new().observer(Arc::new(Displacements(log.clone())))
}

/// The payload itself that a future panics with.
async fn payload<F: Future>(future: F) -> Box<dyn Any + Send> {
    match AssertUnwindSafe(future).catch_unwind().await {
        Err(payload) => payload,
        Ok(_) => panic!("it was to panic"),
    }
}

#[test]
fn a_child_panic_resumes_in_the_caller_with_its_payload() {
    every_runtime(async || {
        let thrown = Arc::new(7);
        let sent = thrown.clone();
        let ended = scope(async |group: &Group| {
            group.spawn(async move { panic_any(sent) });
            pending::<Result<(), _>>().await
        });
        let got = payload(ended).await.downcast::<Arc<i32>>();
        assert!(got.is_ok_and(|got| Arc::ptr_eq(&got, &thrown)));

        let text = caught(scope(async |group: &Group| {
            for n in 0..10 {
                group.spawn(async move { assert_ne!(n, 3, "the third") });
            }
            Ok(())
        }));
        assert!(text.await.unwrap_err().contains("the third"));
    });
}

#[test]
fn the_panic_resumes_only_after_all_siblings_are_dropped() {
    every_runtime(async || {
        let (polls, drops, log) = (Count::new(), Drops::new(), Log::new());
        let ended = caught(scope(async |group: &Group| {
            let _body = log.on_drop("body");
            let parked: Vec<_> = (0..3).map(|_| Parked::new(&polls, &drops)).collect();
            parked.into_iter().for_each(|one| drop(group.spawn(one)));
            until(|| polls.get() == 3).await;
            group.spawn(async { panic!("boom") });
            pending::<Result<(), _>>().await
        }));
        assert_eq!(ended.await.unwrap_err(), "boom");
        assert_eq!((drops.made(), drops.alive()), (3, 0));
        assert_eq!(log.entries(), ["body"]);
    });
}

#[test]
fn of_several_panics_the_first_resumes_and_the_others_reach_the_observer() {
    every_runtime(async || {
        let log = Log::new();
        let ended = caught(observed(&log).grace(LONG).run(async |group: &Group| {
            group.spawn(async {
                token().cancelled().await;
                panic!("second");
            });
            group.spawn(async { panic!("first") });
            token().cancelled().await;
            Ok(())
        }));
        assert_eq!(ended.await.unwrap_err(), "first");
        assert_eq!(log.entries(), ["panic second"]);
    });

    // At once, each on a worker of its own: any may be first, none is lost.
    for _ in 0..50 {
        let _watchdog = Watchdog::start("multi_thread, 4 workers", PATIENCE);
        let log = Log::new();
        let first = multi_thread(4).block_on(async {
            let meet = Arc::new(Barrier::new(3));
            caught(observed(&log).run(async |group: &Group| {
                for name in ["a", "b", "c"] {
                    let meet = meet.clone();
                    group.spawn(async move {
                        meet.wait();
                        panic!("{name}");
                    });
                }
                Ok(())
            }))
            .await
            .unwrap_err()
        });
        let mut all = log.entries();
        all.push(format!("panic {first}"));
        all.sort();
        assert_eq!(all, ["panic a", "panic b", "panic c"]);
    }
}

#[test]
fn a_panic_outranks_errors_and_they_reach_the_observer() {
    every_runtime(async || {
        for panics_first in [true, false] {
            let log = Log::new();
            let ended = caught(observed(&log).grace(LONG).run(async |group| {
                let ending = async |panics: bool| {
                    assert!(!panics, "boom");
                    Err::<(), _>(Lost(1))
                };
                group.spawn(async move {
                    token().cancelled().await;
                    ending(!panics_first).await
                });
                group.spawn(async move { ending(panics_first).await });
                token().cancelled().await;
                Err::<(), _>(Lost(2))
            }));
            assert_eq!(ended.await.unwrap_err(), "boom");
            let mut errors = log.entries();
            errors.sort();
            assert_eq!(errors, ["error Some(Lost(1))", "error Some(Lost(2))"]);
        }
    });
}

#[test]
fn children_that_completed_do_not_hide_a_panic() {
    every_runtime(async || {
        let done = Count::new();
        let ended = caught(Scope::new().grace(LONG).run(async |group: &Group| {
            for _ in 0..8 {
                let done = done.clone();
                group.spawn(async move { assert!(done.add() < 8) });
            }
            until(|| done.get() == 8).await;
            let after = done.clone();
            group.spawn(async move {
                token().cancelled().await;
                after.add();
            });
            group.spawn(async { panic!("boom") });
            Ok(())
        }));
        assert_eq!(ended.await.unwrap_err(), "boom");
        assert_eq!(done.get(), 9);
    });
}

#[test]
fn a_body_panic_resumes_after_all_children_are_gone() {
    every_runtime(async || {
        for awaits_first in [true, false] {
            let (polls, drops) = (Count::new(), Drops::new());
            let ended = caught(scope(async |group: &Group| {
                group.spawn(Parked::new(&polls, &drops));
                if awaits_first {
                    until(|| polls.get() > 0).await;
                }
                if !group.is_empty() {
                    panic!("body");
                }
                Ok(())
            }));
            assert_eq!(ended.await.unwrap_err(), "body");
            assert_eq!((drops.made(), drops.alive()), (1, 0));
        }
    });

    // A plain function: what it does before it gives its future is the body's doing, too.
    thread_local!(static DROPS: Drops = Drops::new());
    type Body<'g> = Pin<Box<dyn Future<Output = Result<(), Lost>> + 'g>>;
    fn body(group: &Group) -> Body<'_> {
        group.spawn(Parked::new(&Count::new(), &DROPS.with(Drops::clone)));
        panic!("function");
    }
    every_runtime(async || {
        assert_eq!(caught(scope(body)).await.unwrap_err(), "function");
        assert_eq!(DROPS.with(Drops::alive), 0);
    });
}

#[test]
fn by_option_a_panic_is_an_entry_of_the_error() {
    every_runtime(async || {
        let mut id = None;
        let error = Scope::new()
            .panics_as_errors()
            .grace(LONG)
            .run(async |group: &Group| -> Result<(), Lost> {
                let child = group.named("fetch").spawn(async { panic!("boom {}", 7) });
                id = Some(child.id());
                token().cancelled().await;
                panic_any(Lost(1))
            })
            .await
            .unwrap_err();
        assert_eq!(
            (error.cause(), error.len(), error.first()),
            (&Cause::Failed, 2, None)
        );
        let mut entries = error.into_iter();
        let child = entries.next().expect("the child");
        let task = child.task().expect("a task");
        assert_eq!((task.name(), Some(task.id())), (Some("fetch"), id));
        assert_eq!(child.panic().map(|panic| panic.message()), Some("boom 7"));
        let FailureKind::Panic(panic) = child.into_kind() else {
            unreachable!("it panicked");
        };
        assert_eq!(message(&*panic.into_inner()), "boom 7");
        let body = entries.next().expect("the body");
        assert!(body.task().is_none() && body.panic().is_some());
    });
}

#[test]
fn a_kept_payload_can_be_downcast() {
    every_runtime(async || {
        let ended = Scope::new().panics_as_errors().run(async |group: &Group| {
            group.spawn(async { panic_any(Lost(7)) });
            Ok(())
        });
        let error = ended.await.unwrap_err();
        let told = error.iter().next().and_then(|one| one.panic());
        assert_eq!(
            told.map(|panic| panic.message()),
            Some("a payload that is not a string")
        );
        let FailureKind::Panic(panic) = error.into_iter().next().expect("an entry").into_kind()
        else {
            unreachable!("it panicked");
        };
        assert_eq!(panic.into_inner().downcast_ref(), Some(&Lost(7)));
    });
}

#[test]
fn a_scope_without_a_panic_resumes_nothing() {
    every_runtime(async || {
        for (fails, cancels) in [(true, false), (false, true), (true, true), (false, false)] {
            let ended = caught(scope(async |group: &Group| {
                group.spawn(async move { if fails { Err(Lost(1)) } else { Ok(()) } });
                if cancels {
                    group.cancel();
                }
                yield_now().await;
                Ok(())
            }));
            let ended = ended.await.expect("no panic");
            assert_eq!(ended.is_err(), fails || cancels);
        }
    });
}

#[test]
fn siblings_that_wait_on_the_token_are_woken_by_a_panic() {
    every_runtime(async || {
        let (waiting, heard, mut id) = (Count::new(), Log::new(), None);
        let ended = caught(Scope::new().grace(LONG).run(async |group: &Group| {
            for _ in 0..4 {
                let (waiting, heard) = (waiting.clone(), heard.clone());
                group.spawn(async move {
                    waiting.add();
                    token().cancelled().await;
                    heard.push(token().reason());
                });
            }
            until(|| waiting.get() == 4).await;
            id = Some(group.spawn(async { panic!("boom") }).id());
            Ok(())
        }));
        assert_eq!(ended.await.unwrap_err(), "boom");
        assert_eq!(heard.entries(), vec![id.map(CancelReason::Panicked); 4]);
    });
}

#[test]
fn a_panic_of_an_inner_scope_resumes_once_in_the_outer_caller() {
    every_runtime(async || {
        for in_body in [true, false] {
            let (thrown, log) = (Arc::new(7), Log::new());
            let sent = thrown.clone();
            let unwound = Drops::new();
            let guard = unwound.guard();
            let inner = async move {
                let _guard = OnDrop::new(move || drop(guard));
                scope(async |inner: &Group| {
                    inner.spawn(async move { panic_any(sent) });
                    Ok(())
                })
                .await
                .map_err(|_| Lost(1))
            };
            let ended = observed(&log).run(async |outer| {
                if in_body {
                    inner.await?;
                } else {
                    outer.spawn(inner).await;
                }
                Ok(())
            });
            let got = payload(ended).await.downcast::<Arc<i32>>();
            assert!(got.is_ok_and(|got| Arc::ptr_eq(&got, &thrown)));
            assert_eq!((unwound.alive(), log.entries().len()), (0, 0));
        }
    });
}

/// Writes down of whom something was displaced, and what.
struct Of(Log<(Option<String>, String)>);

impl Observer for Of {
    fn displaced(&self, displaced: &Displaced) {
        let name = displaced.task.as_ref().and_then(TaskInfo::name);
        let what = match &displaced.what {
            DisplacedWhat::Panic(panic) => format!("panic {panic}"),
            other => format!("{other:?}"),
        };
        self.0.push((name.map(str::to_owned), what));
    }
}

#[test]
fn a_second_panic_of_a_child_is_told_with_its_name() {
    every_runtime(async || {
        let log = Log::new();
        let ended = caught(Scope::new().observer(Arc::new(Of(log.clone()))).run(
            async |group: &Group| {
                let child = group.named("child");
                // Destroyed after the panic was caught, not while it unwinds.
                let bomb = PanicOnDrop("second");
                child.spawn(poll_fn(move |_| -> Poll<()> {
                    let _captured = &bomb;
                    panic!("first");
                }));
                Ok(())
            },
        ));
        assert_eq!(ended.await.unwrap_err(), "first");
        let expected = (Some("child".to_owned()), "panic second".to_owned());
        assert_eq!(log.entries(), std::slice::from_ref(&expected));

        let log = Log::new();
        let ended = caught(Scope::new().observer(Arc::new(Of(log.clone()))).run_borrow(
            async |group: BorrowGroup<'_, Lost>| {
                let bomb = PanicOnDrop("second");
                group.named("child").spawn(poll_fn(move |_| -> Poll<()> {
                    let _captured = &bomb;
                    panic!("first");
                }));
                Ok(())
            },
        ));
        assert_eq!(ended.await.unwrap_err(), "first");
        assert_eq!(log.entries(), [expected]);
    });
}

#[test]
fn a_destructor_of_the_body_that_throws_is_a_panic_of_the_scope() {
    every_runtime(async || {
        let log = Log::new();
        // Cancelled where it is parked: there is nobody else to give it to.
        let ended = caught(observed(&log).run(async |group: &Group| {
            let _bomb = PanicOnDrop("of the body");
            group.cancel();
            pending::<Result<(), Lost>>().await
        }));
        assert_eq!(ended.await.unwrap_err(), "of the body");
        assert!(log.entries().is_empty());

        // Dropped with its scope: to the observer.
        let mut dropped = Box::pin(observed(&log).run(async |_: &Group| {
            let _bomb = PanicOnDrop("of a dropped body");
            pending::<Result<(), Lost>>().await
        }));
        assert!(poll!(&mut dropped).is_pending());
        drop(dropped);
        assert_eq!(log.entries(), ["panic of a dropped body"]);
    });
}

#[test]
fn a_value_that_throws_when_its_scope_fails_is_observed() {
    every_runtime(async || {
        let log = Log::new();
        let ended = caught(observed(&log).run(async |group: &Group| {
            group.cancel();
            Ok(PanicOnDrop("value"))
        }));
        let cancelled = ended.await.expect("nothing resumes");
        assert!(cancelled.is_err_and(|error| error.is_cancelled()));
        assert_eq!(log.entries(), ["panic value"]);

        // Not while the panic of a child unwinds, which would be the end of the process.
        let log = Log::new();
        let ended = caught(observed(&log).run(async |group: &Group| {
            group.spawn(async { panic!("a child") });
            Ok(PanicOnDrop("value"))
        }));
        assert_eq!(ended.await.map(drop).unwrap_err(), "a child");
        assert_eq!(log.entries(), ["panic value"]);
    });
}

#[test]
fn an_error_of_a_child_whose_destructor_throws_is_observed() {
    every_runtime(async || {
        let log = Log::new();
        let ended = caught(observed(&log).run(async |group: &Group| {
            // Captured, and so dropped after it has returned.
            let bomb = PanicOnDrop("destructor");
            group.spawn(poll_fn(move |_| {
                let _captured = &bomb;
                Poll::Ready(Err::<(), _>(Lost(7)))
            }));
            pending::<Result<(), Lost>>().await
        }));
        assert_eq!(ended.await.unwrap_err(), "destructor");
        assert_eq!(log.entries(), ["error Some(Lost(7))"]);
    });
}

/// Throws, when it is dropped, what throws when it is dropped.
struct Twice;

impl Drop for Twice {
    fn drop(&mut self) {
        panic_any(PanicOnDrop("the third"));
    }
}

#[test]
fn a_kept_payload_may_throw_what_throws_again() {
    every_runtime(async || {
        let ended = Scope::new().panics_as_errors().run(async |group: &Group| {
            group.spawn(async { panic_any(Twice) });
            pending::<Result<(), Lost>>().await
        });
        assert_eq!(ended.await.unwrap_err().len(), 1, "and is dropped");
    });
}
