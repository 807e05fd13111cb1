//! Failure, the second half: what the error says, and where it can go.

use std::{
    error::Error,
    fmt::{Debug, Display},
    future::pending,
    io,
    sync::Arc,
    time::Duration,
};

use ringfence::{
    BoxError, CancelReason, Cause, Deadline, GroupError, Scope, TaskGroup, scope, token,
};
use tokio::time::sleep;

use super::{LONG, Lost, Text, errors, fail_in_cleanup, ms};
use crate::support::{every_runtime, paused, single_thread};

#[test]
fn a_typed_error_comes_out_as_it_went_in() {
    struct Typed(Arc<u32>); // neither Debug nor Display
    every_runtime(async || {
        let sent = Arc::new(7);
        let ended = scope(async |group| {
            let sent = sent.clone();
            group.spawn(async move { Err::<(), _>(Typed(sent)) });
            Ok(())
        });
        let got = ended.await.err().and_then(|error| error.into_first().ok());
        assert!(got.is_some_and(|Typed(got)| Arc::ptr_eq(&got, &sent)));
    });
}

#[test]
fn each_entry_names_its_task_with_id_and_spawn_location() {
    every_runtime(async || {
        let (mut id, mut lines) = (None, Vec::new());
        let error = Scope::new()
            .grace(LONG)
            .run(async |group| {
                lines.push(line!() + 1);
                let unnamed = group.spawn(fail_in_cleanup(Duration::ZERO, "second"));
                id = Some(unnamed.id());
                lines.push(line!() + 1);
                group.named("fetch").spawn(async { Err::<(), _>("first") });
                group.token().cancelled().await;
                Ok(())
            })
            .await
            .unwrap_err();
        let tasks: Vec<_> = error.iter().filter_map(|one| one.task()).collect();
        assert_eq!(tasks[0].name(), Some("fetch"));
        assert_eq!((tasks[1].name(), Some(tasks[1].id())), (None, id));
        assert_ne!(tasks[0].id(), tasks[1].id());
        let places: Vec<_> = tasks.iter().map(|task| task.location().line()).collect();
        assert_eq!(places, [lines[1], lines[0]]);
        assert!(tasks.iter().all(|task| task.location().file() == file!()));
    });
}

#[test]
fn into_first_gives_the_first_error_by_value() {
    single_thread(async || {
        let failed = scope(async |_| Err::<(), _>("first".to_owned())).await;
        assert_eq!(failed.unwrap_err().into_first().unwrap(), "first");
        let cancelled = scope(async |group| {
            group.cancel();
            pending::<Result<(), String>>().await
        });
        let error = cancelled.await.unwrap_err().into_first().unwrap_err();
        assert!(error.is_cancelled() && error.is_empty());
    });
}

#[test]
fn split_parts_the_failures_by_a_predicate() {
    paused(async || {
        let make = async || {
            let failing = Scope::new().grace(ms(100)).run(async |group| {
                for n in 1..5 {
                    group.spawn(async move {
                        token().cancelled().await;
                        sleep(ms(n)).await;
                        Err::<(), _>(n)
                    });
                }
                sleep(ms(1)).await;
                Err::<(), _>(0)
            });
            failing.await.unwrap_err()
        };
        let is = |wanted: fn(u64) -> bool| {
            move |one: &ringfence::Failure<u64>| one.error().is_some_and(|n| wanted(*n))
        };
        let (even, odd) = make().await.split(is(|n| n % 2 == 0));
        assert_eq!(even.as_ref().map(errors), Some(vec![0, 2, 4]));
        assert_eq!(odd.as_ref().map(errors), Some(vec![1, 3]));
        assert_eq!(odd.map(|part| part.cause().clone()), Some(Cause::Failed));
        let (all, none) = make().await.split(is(|_| true));
        assert_eq!((all.map(|all| all.len()), none.is_none()), (Some(5), true));
    });
}

#[test]
fn split_keeps_who_was_forced() {
    paused(async || {
        let make = async |fails: bool| {
            let ended = Scope::new().grace(ms(10)).run(async |group| {
                group.named("deaf").spawn(pending::<()>());
                if fails {
                    group.spawn(async { Err::<(), _>("child") });
                }
                group.token().cancelled().await;
                Err::<(), _>("body")
            });
            ended.await.unwrap_err()
        };
        let forced = |part: Option<GroupError<Text>>| part.map(|part| part.forced().len());
        let split = async |of: fn(&Text) -> bool| {
            let (yes, no) = make(true).await.split(|one| one.error().is_some_and(of));
            (forced(yes), forced(no))
        };
        assert_eq!(split(|one| *one == "body").await, (Some(0), Some(1)));
        assert_eq!(split(|_| false).await, (None, Some(1)));
        assert_eq!(
            split(|_| true).await,
            (Some(1), None),
            "there is no other part"
        );

        let cancelled = scope(async |group: &TaskGroup<Text>| {
            group.cancel();
            pending::<Result<(), Text>>().await
        });
        let (yes, no) = cancelled.await.unwrap_err().split(|_| true);
        assert!(yes.is_none() && no.is_some_and(|error| error.is_cancelled()));
    });
}

#[test]
fn the_cause_tells_failed_from_cancelled_from_deadline_exceeded() {
    paused(async || {
        let run = async |what: Text| {
            let mut made = Scope::new().panics_as_errors();
            if what == "deadline" {
                made = made.deadline(Deadline::after(ms(10)));
            }
            let body = made.run(async |group: &TaskGroup<Text>| {
                match what {
                    "child" => drop(group.spawn(async { Err::<(), _>("child") })),
                    "panic" => drop(group.spawn(async { panic!("entry") })),
                    "cancel" => group.cancel(),
                    "body" => return Err("body"),
                    _ => {}
                }
                pending::<Result<(), _>>().await
            });
            body.await.unwrap_err()
        };
        for (what, failures) in [("child", 1), ("panic", 1), ("body", 1)] {
            let error = run(what).await;
            assert_eq!((error.cause(), error.len()), (&Cause::Failed, failures));
            assert!(!error.is_cancelled() && !error.is_deadline_exceeded());
        }
        let error = run("cancel").await;
        assert!(matches!(
            error.cause(),
            Cause::Cancelled(CancelReason::Requested { .. })
        ));
        assert!(error.is_cancelled() && !error.is_deadline_exceeded() && error.is_empty());
        let error = run("deadline").await;
        assert_eq!(error.cause(), &Cause::DeadlineExceeded);
        assert!(error.is_deadline_exceeded() && !error.is_cancelled() && error.is_empty());
    });
}

#[test]
fn the_error_prints_its_cause_and_every_failure() {
    fn displayed<E: Display>(error: &GroupError<E>) -> String {
        error.to_string()
    }
    fn debugged<E: Debug>(error: &GroupError<E>) -> String {
        format!("{error:?}")
    }
    single_thread(async || {
        let mut line = 0;
        let error = Scope::new()
            .name("server")
            .grace(LONG)
            .run(async |group| {
                let fetch = group.named("fetch");
                line = line!() + 1;
                fetch.spawn(async { Err::<(), _>("no route") });
                token().cancelled().await;
                Err::<(), _>("gone too")
            })
            .await
            .unwrap_err();
        let place = format!("{}:{line}:", file!());
        let text = displayed(&error);
        let (before, after) = text.split_once(&place).expect("the place of the spawn");
        assert_eq!(
            before,
            "group `server` failed: task `server/fetch` spawned at "
        );
        assert!(after.ends_with(": no route; the body: gone too"), "{text}");
        let debug = debugged(&error);
        for part in ["Failed", "fetch", "no route", "gone too", "server"] {
            assert!(debug.contains(part), "{debug}");
        }
        let cancelled = scope(async |group| {
            group.cancel_with("enough");
            pending::<Result<(), Text>>().await
        });
        let text = displayed(&cancelled.await.unwrap_err());
        assert_eq!(text, "task group was cancelled on request: enough");
    });
}

async fn failing<E: Send + 'static>(error: impl Into<E>) -> Result<(), GroupError<E>> {
    let error = error.into();
    scope(async |group| {
        group.spawn(async { Err::<(), E>(error) });
        pending::<Result<(), E>>().await
    })
    .await
}

#[test]
fn the_error_prints_the_chain_of_an_error_that_has_one() {
    #[derive(Debug, thiserror::Error)]
    #[error("no configuration")]
    struct Unread(#[source] Lost);

    paused(async || {
        let boxed = scope(async |_: &TaskGroup| Err::<(), BoxError>(Unread(Lost(7)).into()));
        let boxed = boxed.await.unwrap_err();
        let text = "no configuration: lost 7";
        assert_eq!(
            boxed.to_string(),
            format!("task group failed: the body: {text}")
        );
        let first = boxed.first().expect("an error");
        assert_eq!(
            (first.to_string(), format!("{first:#}")),
            ("no configuration".into(), text.into())
        );

        let theirs =
            scope(async |_: &TaskGroup<anyhow::Error>| Err::<(), _>(Unread(Lost(7)).into()));
        let theirs = anyhow::Error::new(theirs.await.unwrap_err());
        assert_eq!(
            theirs.to_string(),
            format!("task group failed: the body: {text}")
        );
    });
}

#[test]
fn question_mark_works_for_the_usual_error_types() {
    type Boxed = Box<dyn Error + Send + Sync>;
    async fn each(which: usize) -> Result<(), Boxed> {
        match which {
            0 => failing::<Lost>(Lost(1)).await?,
            1 => failing::<io::Error>(io::ErrorKind::NotFound).await?,
            2 => failing::<anyhow::Error>(anyhow::anyhow!("any")).await?,
            3 => failing::<Boxed>("boxed").await?,
            _ => failing::<String>("text").await?,
        }
        Ok(())
    }
    single_thread(async || {
        let texts = ["lost 1", "entity not found", "any", "boxed", "text"];
        for (which, text) in texts.into_iter().enumerate() {
            let error = each(which).await.unwrap_err().to_string();
            assert!(error.ends_with(text), "{error}");
        }
    });
}

#[test]
fn question_mark_works_into_anyhow_and_into_a_boxed_error() {
    fn travels<T: Send + Sync + 'static>(_: &T) {}
    async fn into_anyhow() -> anyhow::Result<()> {
        Ok(failing::<Lost>(Lost(1)).await?)
    }
    async fn into_box() -> Result<(), Box<dyn Error>> {
        Ok(failing::<String>("text").await?)
    }
    single_thread(async || {
        let error = into_anyhow().await.unwrap_err();
        let group = error
            .downcast::<GroupError<Lost>>()
            .expect("the group error");
        travels(&group);
        assert_eq!(group.into_first().unwrap(), Lost(1));
        let error = into_box().await.unwrap_err();
        let group = error
            .downcast::<GroupError<String>>()
            .expect("the group error");
        assert!(group.source().is_none());
        assert_eq!(group.into_first().unwrap(), "text");
    });
}
