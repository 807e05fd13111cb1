//! Children, closures and hooks that misbehave.

use std::{
    future::pending,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use ringfence::{
    BoxError, Displaced, DisplacedWhat, Observer, Retry, Scope, TaskGroup, shield,
    supervise::{Child, ChildEnd, Run, Supervisor, WhatNext},
    timeout,
};
use tokio::{runtime::Builder, time::sleep};

use super::{DELAYS, Diary, for_a_while, idle, ms};
use crate::support::{DropGuard, Drops, Log, PanicOnDrop, caught, paused, single_thread};

#[test]
fn each_end_of_a_run_goes_to_the_hook() {
    paused(async || {
        let log = Log::new();
        let mut supervisor = Supervisor::new().on_end({
            let log = log.clone();
            move |ended| {
                let next = match ended.next {
                    WhatNext::Restart(delay) => format!("again after {delay:?}"),
                    next => format!("{next:?}"),
                };
                log.push(format!(
                    "{} {}: {}, {next}",
                    ended.child, ended.run, ended.end
                ));
            }
        });
        supervisor.add(Diary::new().child("a", 0, &[5]));
        supervisor.add(Child::temporary("t", |_| async {}));
        supervisor.add(Child::critical("c", |_| async {
            sleep(ms(50)).await;
            panic!("never")
        }));
        assert!(supervisor.run().await.is_err());
        assert_eq!(
            log.entries(),
            [
                "t 1: it returned, Nothing",
                "a 1: out, again after 10ms",
                "c 1: it panicked: never, Escalate",
                "a 2: it returned, Ordered"
            ]
        );
    });
}

/// An error that throws when it is dropped.
#[derive(Debug, thiserror::Error)]
#[error("throws")]
struct Throws(PanicOnDrop);

/// An error that is seen when it is dropped.
#[derive(Debug, thiserror::Error)]
#[error("held")]
struct Held(DropGuard);

struct Hears(Log<String>);

impl Observer for Hears {
    fn displaced(&self, what: &Displaced) {
        self.0.push(match &what.what {
            DisplacedWhat::Error(error) => {
                let shared = error.downcast_ref::<Arc<BoxError>>().map(|it| &**it);
                let own = shared.or_else(|| error.downcast_ref::<BoxError>());
                own.expect("a child's").to_string()
            }
            DisplacedWhat::Panic(panic) => format!("panicked: {panic}"),
            _ => "something else".to_owned(),
        });
    }
}

#[test]
fn without_a_hook_failures_go_to_the_observer() {
    paused(async || {
        let log = Log::new();
        let ended =
            Scope::new()
                .observer(Arc::new(Hears(log.clone())))
                .run(async |_: &TaskGroup| {
                    let supervisor = Supervisor::new().child(
                        Child::transient("a", |run: Run| async move {
                            match run.number() {
                                1 => Err::<(), BoxError>("no".into()),
                                2 => panic!("never"),
                                _ => Ok(()),
                            }
                        })
                        .backoff(DELAYS),
                    );
                    supervisor.run().await?;
                    Ok(())
                });
        ended.await.expect("all is well in the end");
        assert_eq!(log.entries(), ["no", "panicked: never"]);
    });
}

#[test]
fn a_panic_while_a_run_is_made_is_one_of_the_child() {
    paused(async || {
        let mut supervisor = Supervisor::new().child(idle("other"));
        let child = supervisor.add(
            Child::transient("a", |run: Run| {
                assert!(run.number() > 1, "not yet");
                async {}
            })
            .backoff(DELAYS),
        );
        let report = for_a_while(supervisor, 100).await.expect("a shutdown");
        assert_eq!((report.restarts, child.runs()), (1, 2));
    });
}

#[test]
fn a_predicate_that_panics_counts_as_a_panic_of_the_child() {
    paused(async || {
        let mut supervisor = Supervisor::new().intensity(0, ms(100));
        supervisor.add(Child::transient("a", |_| async {}).restart_when(|_| panic!("what now")));
        let error = supervisor.run().await.expect_err("no restart is allowed");
        assert_eq!(error.end().to_string(), "it panicked: what now");
    });
}

#[test]
fn a_hook_that_panics_harms_nobody() {
    paused(async || {
        let log = Log::new();
        let around = Scope::new().observer(Arc::new(Hears(log.clone())));
        let ended = around.run(async |_: &TaskGroup| {
            let supervisor = Supervisor::new()
                .on_end(|_| panic!("in the hook"))
                .child(Diary::new().child("a", 0, &[5]));
            let report = for_a_while(supervisor, 100).await?;
            assert_eq!(report.restarts, 1);
            Ok(())
        });
        ended.await.expect("a shutdown");
        assert_eq!(log.entries(), ["panicked: in the hook"; 2], "of each run");
    });
}

#[test]
fn a_destructor_that_panics_is_a_failure_of_that_child_alone() {
    paused(async || {
        let mut supervisor = Supervisor::new();
        let other = supervisor.add(idle("other"));
        let child = supervisor.add(
            Child::transient("a", |run: Run| async move {
                let _bad = (run.number() == 1).then(|| PanicOnDrop("in its destructor"));
            })
            .backoff(DELAYS),
        );
        let report = for_a_while(supervisor, 100).await.expect("a shutdown");
        assert_eq!((report.restarts, child.runs(), other.runs()), (1, 2, 1));
    });
}

/// Fails at once, and throws when it is dropped; or does neither.
struct FailsAndThrows(bool);

impl Future for FailsAndThrows {
    type Output = Result<(), BoxError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(if self.0 { Err("no".into()) } else { Ok(()) })
    }
}

impl Drop for FailsAndThrows {
    fn drop(&mut self) {
        assert!(!self.0, "bang");
    }
}

#[test]
fn the_error_of_a_run_whose_destructor_panics_is_observed() {
    paused(async || {
        let log = Log::new();
        let scope = Scope::new().observer(Arc::new(Hears(log.clone())));
        let ended = scope.run(async |_: &TaskGroup| {
            let start = |run: Run| FailsAndThrows(run.number() == 1);
            let child = Child::transient("a", start).backoff(DELAYS);
            Supervisor::new().child(child).run().await?;
            Ok(())
        });
        ended.await.expect("all is well in the end");
        assert_eq!(log.entries(), ["no", "panicked: bang"]);
    });
}

#[test]
fn what_ends_a_supervisor_is_observed_if_it_is_dropped_before_it_can_say_so() {
    paused(async || {
        let log = Log::new();
        let scope = Scope::new().observer(Arc::new(Hears(log.clone())));
        let ended = scope.run(async |_: &TaskGroup| {
            let slow = Child::permanent("slow", |_| shield(ms(1000), pending::<()>()));
            let fails = async |_: Run| Err::<(), _>(BoxError::from("no"));
            let supervisor = Supervisor::new()
                .child(slow)
                .child(Child::critical("fails", fails));
            assert!(timeout(ms(500), supervisor.run()).await.is_err());
            Ok(())
        });
        ended.await.expect("all is well in the end");
        assert_eq!(log.entries(), ["no"]);
    });
}

#[test]
fn a_closure_whose_destructor_panics_harms_nobody() {
    paused(async || {
        let supervisor = Supervisor::new().child(idle("other")).child({
            let bad = PanicOnDrop("the closure's");
            Child::temporary("a", move |_| {
                let _inside = &bad;
                async {}
            })
        });
        for_a_while(supervisor, 100).await.expect("a shutdown");
    });
}

#[test]
fn what_ends_a_supervisor_is_dropped_although_its_hook_throws_when_it_goes() {
    paused(async || {
        let drops = Drops::new();
        let bomb = PanicOnDrop("hook");
        let mut supervisor = Supervisor::new().on_end(move |_| {
            let _held = &bomb;
        });
        let made = drops.clone();
        supervisor.add(Child::critical("c", move |_| {
            let guard = made.guard();
            async { Err::<(), _>(BoxError::from(Held(guard))) }
        }));
        assert_eq!(
            caught(supervisor.run()).await.map(drop).unwrap_err(),
            "hook"
        );
        assert_eq!((drops.made(), drops.alive()), (1, 0));
        // It may throw, too.
        let bomb = PanicOnDrop("hook");
        let mut supervisor = Supervisor::new().on_end(move |_| {
            let _held = &bomb;
        });
        let fails = |_| async { Err::<(), _>(BoxError::from(Throws(PanicOnDrop("error")))) };
        supervisor.add(Child::critical("c", fails));
        assert_eq!(
            caught(supervisor.run()).await.map(drop).unwrap_err(),
            "hook"
        );
    });
}

#[test]
fn an_end_that_throws_when_it_is_dropped_costs_no_other_child_its_end() {
    paused(async || {
        let mut supervisor = Supervisor::new();
        let fails = |_| async { Err::<(), _>(BoxError::from(Throws(PanicOnDrop("error")))) };
        let late = Retry::constant(ms(100_000));
        supervisor.add(Child::permanent("fails", fails).backoff(late));
        let other = supervisor.add(idle("other"));
        assert!(timeout(ms(10), supervisor.run()).await.is_err());
        assert!(timeout(ms(10), other.ended()).await.is_ok());
    });
}

#[test]
fn a_hook_may_use_the_handles() {
    paused(async || {
        let supervisor = Supervisor::new().stay_open();
        let handle = supervisor.handle();
        let supervisor = supervisor.on_end(move |ended| {
            if (ended.child, ended.run) == ("a", 1) {
                handle.add(Child::temporary("more", |_| async {}));
            } else if ended.run == 2 {
                handle.shut_down();
            }
        });
        let supervisor = supervisor.child(Diary::new().child("a", 0, &[5, 5]));
        let report = supervisor.run().await.expect("its hook shuts it down");
        assert_eq!(report.restarts, 2);
    });
}

#[test]
fn a_runtime_that_goes_away_ends_the_supervisor() {
    single_thread(async || {
        let other = Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .expect("a runtime");
        let mut supervisor = Supervisor::new();
        let child = supervisor.add(Child::permanent("a", |_| pending::<()>()));
        let running = {
            let _inside = other.enter();
            let mut running = Box::pin(supervisor.run());
            // Opened there, so its children run there; what drives it is here.
            let first = futures::FutureExt::now_or_never(&mut running);
            assert!(first.is_none());
            running
        };
        let ended = async {
            child.ready().await;
            other.shutdown_background();
        };
        let (ended, ()) = tokio::join!(running, ended);
        assert!(ended.is_err(), "{ended:?}");
        assert!(matches!(
            child.last_end(),
            Some(ChildEnd::RuntimeGone | ChildEnd::Lost)
        ));
    });
}
