//! How supervisors fail, and what is around them then.

use std::future::pending;

use futures::future::join_all;
use ringfence::{
    BoxError, Cause, scope,
    supervise::{Child, ChildState, Escalation, Run, Supervisor},
};
use tokio::time::sleep;

use super::{DELAYS, Diary, for_a_while, idle, ms};
use crate::support::{Log, paused};

#[test]
fn a_critical_child_that_ends_is_a_fault_however_it_ends() {
    paused(async || {
        for kind in 0..3 {
            let diary = Diary::new();
            let supervisor =
                Supervisor::new()
                    .child(diary.child("a", 2, &[]))
                    .child(Child::critical("heart", move |_| async move {
                        sleep(ms(5)).await;
                        match kind {
                            0 => Ok(()),
                            1 => Err::<(), BoxError>("no".into()),
                            _ => panic!("never"),
                        }
                    }));
            let error = supervisor.run().await.expect_err("it has ended");
            assert_eq!(
                (error.why(), error.child()),
                (&Escalation::Critical, Some("heart"))
            );
            let text = ["it returned", "no", "it panicked: never"][kind];
            assert_eq!(
                error.to_string(),
                format!("critical child `heart` ended: {text}")
            );
            assert_eq!(std::error::Error::source(&error).is_some(), kind == 1);
            assert_eq!(diary.entries(), ["0 +a", "7 -a"]);
        }
    });
}

#[test]
fn what_escalates_is_an_error_of_the_group_around() {
    paused(async || {
        let ended = scope(async |group| {
            let supervisor = Supervisor::new().child(Child::critical("heart", |_| async {}));
            group.spawn(supervisor.run());
            pending::<Result<(), _>>().await
        });
        let error = ended.await.expect_err("the supervisor fails");
        assert_eq!(error.cause(), &Cause::Failed);
        let error = error.into_first().expect("an error");
        assert_eq!(error.why(), &Escalation::Critical);
    });
}

#[test]
fn a_failure_inside_leaves_those_around_alone() {
    paused(async || {
        let done = scope(async |group| {
            let sibling = group.spawn(async {
                sleep(ms(500)).await;
                Ok(7)
            });
            let diary = Diary::new();
            let supervisor = Supervisor::new().child(diary.child("a", 0, &[1, 1]));
            drop(for_a_while(supervisor, 100).await?);
            Ok::<_, BoxError>(sibling.await)
        });
        assert_eq!(done.await.expect("nobody else is concerned"), 7);
    });
}

#[test]
fn a_child_that_fails_to_start_at_first_ends_all_and_is_the_cause() {
    paused(async || {
        let diary = Diary::new();
        let mut supervisor = Supervisor::new().child(diary.child("a", 4, &[]));
        supervisor.add(
            Child::permanent("port", |_run| async {
                sleep(ms(10)).await;
                Err::<(), BoxError>("address in use".into())
            })
            .ready_within(ms(100)),
        );
        let never = supervisor.add(idle("c"));
        let error = supervisor.run().await.expect_err("it did not start");
        assert_eq!(
            error.to_string(),
            "child `port` did not start: address in use"
        );
        assert_eq!(never.runs(), 0);
        assert_eq!(diary.entries(), ["0 +a", "14 -a"]);
    });
}

#[test]
fn children_start_one_after_the_other_when_they_say_that_they_are_ready() {
    paused(async || {
        let diary = Diary::new();
        let (mut supervisor, mut handles) = (Supervisor::new(), Vec::new());
        for name in ["a", "b", "c"] {
            let diary = diary.clone();
            let child = Child::permanent(name, move |run: Run| {
                let diary = diary.clone();
                async move {
                    diary.write(name);
                    sleep(ms(10)).await;
                    run.ready();
                    ringfence::token().cancelled().await;
                }
            });
            handles.push(supervisor.add(child.ready_within(ms(100))));
        }
        let ready = join_all(handles.iter().map(|child| async {
            assert!(child.ready().await);
            assert_eq!(child.state(), ChildState::Running);
            diary.write("ready");
        }));
        let (ended, _) = tokio::join!(for_a_while(supervisor, 100), ready);
        ended.expect("a shutdown");
        let mut entries = diary.entries();
        entries.sort();
        let expected = ["0 a", "10 b", "10 ready", "20 c", "20 ready", "30 ready"];
        assert_eq!(entries, expected, "and who waits for that is told");
    });
}

#[test]
fn an_inner_supervisor_that_gives_up_is_restarted_with_what_it_was_made_of() {
    paused(async || {
        let log = Log::new();
        let mut outer = Supervisor::new();
        let inner = outer.add({
            let log = log.clone();
            Child::permanent("inner", move |run: Run| {
                let log = log.clone();
                async move {
                    let number = run.number();
                    let note = move |what: &str| log.push(format!("{what}{number}"));
                    let (declared, added) = (note.clone(), note);
                    let inner = Supervisor::new()
                        .intensity(0, ms(1000))
                        .child(Child::permanent("declared", move |_| {
                            declared("declared");
                            async move {
                                sleep(ms(5)).await;
                                match number {
                                    1 => Err::<(), BoxError>("no".into()),
                                    _ => pending().await,
                                }
                            }
                        }));
                    if number == 1 {
                        inner.handle().add(
                            Child::permanent("added", move |_| {
                                added("added");
                                pending::<()>()
                            })
                            .grace(ms(0)),
                        );
                    }
                    Ok::<_, BoxError>(inner.run().await?)
                }
            })
            .backoff(DELAYS)
        });
        for_a_while(outer, 100).await.expect("a shutdown");
        assert_eq!(log.entries(), ["declared1", "added1", "declared2"]);
        assert_eq!(inner.runs(), 2);
    });
}
