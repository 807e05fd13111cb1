//! Handle: values and outcomes.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, poll};
use ringfence::{
    CancelReason, Ended, Observer, Outcome, OutcomeHandle, Scope, TaskGroup, TaskId, TaskInfo,
    scope,
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use crate::{
    group::{Text, failures, turns},
    support::{self, Count, Drops, Log, caught, every_runtime, paused, until},
};

/// A scope whose body outlives the failure of a child: it is only told, for longer than any test takes.
fn patient() -> Scope {
    Scope::new().grace(Duration::from_secs(50))
}

#[test]
fn awaiting_a_handle_in_the_body_yields_the_value() {
    every_runtime(async || {
        let length = scope(async |group: &TaskGroup| {
            let word: String = group.spawn(async { Ok("value".to_owned()) }).await;
            Ok(word.len())
        })
        .await;
        assert_eq!(length.ok(), Some(5));
    });
}

#[test]
fn an_unfinished_child_is_not_finished_and_yields_nothing() {
    every_runtime(async || {
        let value = scope(async |group: &TaskGroup| {
            let (send, receive) = oneshot::channel();
            let mut handle = group.spawn(async { Ok(receive.await?) });
            for _ in 0..3 {
                turns(2).await;
                assert!(!handle.is_finished());
                assert!(poll!(&mut handle).is_pending());
            }
            send.send(4).expect("the child waits");
            Ok(handle.await)
        })
        .await;
        assert_eq!(value.ok(), Some(4));
    });
}

#[test]
fn the_outcome_of_a_completed_child_holds_its_value() {
    every_runtime(async || {
        let outcome = scope(async |group: &TaskGroup| {
            let outcome = group.spawn(async { Ok(3) }).outcome().await;
            assert!(outcome.is_completed() && !outcome.is_cancelled());
            Ok(outcome)
        })
        .await
        .expect("nothing failed");
        assert_eq!(outcome, Outcome::Completed(3));
        assert_eq!(outcome.completed(), Some(3));
    });
}

#[test]
fn the_outcome_of_a_failed_child_says_failed() {
    every_runtime(async || {
        let mut seen = None;
        let result = patient()
            .run(async |group| {
                let handle = group.spawn(async { Err::<(), _>("broken") });
                seen = Some(handle.outcome().await);
                Ok(())
            })
            .await;
        assert_eq!(seen, Some(Outcome::Failed));
        assert_eq!(failures(result), ["broken"], "in the report, once");
    });
}

#[test]
fn the_outcome_of_a_panicked_child_says_panicked() {
    every_runtime(async || {
        let mut seen = None;
        let work = patient().run(async |group: &TaskGroup| {
            let handle = group.spawn(async { panic!("payload") });
            seen = Some(handle.outcome().await);
            Ok(())
        });
        assert_eq!(caught(work).await.err().as_deref(), Some("payload"));
        assert_eq!(seen, Some(Outcome::Panicked));
    });
}

#[test]
fn the_outcome_of_a_cancelled_child_says_by_whom() {
    every_runtime(async || {
        let outside = Mutex::new(Vec::new());
        let result = scope(async |group: &TaskGroup| {
            let endless = || group.spawn(pending::<()>());
            let through_handle = endless().cancel_and_wait().await;
            assert_eq!(through_handle, Outcome::Cancelled(CancelReason::Handle));

            let handle = endless();
            group.cancel_children();
            let together = handle.outcome().await;
            assert_eq!(
                together,
                Outcome::Cancelled(CancelReason::ChildrenCancelled)
            );

            let alive = endless().detached();
            group.cancel_with("enough");
            let refused = endless().detached();
            *outside.lock().expect("no panic") = vec![alive, refused];
            pending().await
        })
        .await;
        let result: Result<(), _> = result;
        assert!(result.is_err_and(|error| error.is_cancelled()));
        for handle in outside.into_inner().expect("no panic") {
            let Outcome::Cancelled(CancelReason::Requested { note, .. }) = handle.await else {
                panic!("cancelled by the group, on request");
            };
            assert_eq!(note.as_deref(), Some("enough"));
        }
    });
}

async fn throws() {
    panic!("payload");
}

#[test]
fn reading_an_outcome_never_fails_the_reader() {
    every_runtime(async || {
        let handles: Mutex<Vec<OutcomeHandle<()>>> = Mutex::default();
        let keep = |handle| handles.lock().expect("no panic").push(handle);
        let failing = Scope::new().panics_as_errors().run(async |group| {
            keep(group.spawn(async { Ok(()) }).detached());
            keep(group.spawn(async { Err("broken") }).detached());
            keep(group.spawn(throws()).detached());
            keep(group.spawn(pending::<()>()).detached());
            pending::<Result<(), Text>>().await
        });
        assert!(failing.await.is_err());
        let read = scope(async |group: &TaskGroup| {
            let mut read = 0;
            for handle in handles.into_inner().expect("no panic") {
                drop(group.spawn(async { Ok(handle.await) }).await);
                read += 1;
            }
            Ok(read)
        })
        .await;
        assert_eq!(read.ok(), Some(4));
    });
}

#[test]
fn awaiting_a_failed_child_drops_the_body_at_that_await() {
    every_runtime(async || {
        for options in [Scope::new(), patient()] {
            let log = Log::new();
            let result = options
                .run(async |group| {
                    let _dropped = log.on_drop("body dropped");
                    let handle = group.spawn(async { Err::<(), _>("broken") });
                    until(|| handle.is_finished()).await;
                    log.push("awaits");
                    handle.await;
                    log.push("behind the await");
                    Ok(())
                })
                .await;
            assert_eq!(failures(result), ["broken"]);
            let entries = log.entries();
            assert!(!entries.contains(&"behind the await"));
            assert_eq!(entries.last(), Some(&"body dropped"));
        }
    });
}

#[test]
fn a_handle_from_a_spawner_yields_the_outcome() {
    every_runtime(async || {
        let outside = scope(async |group: &TaskGroup| {
            let spawner = group.spawner();
            let in_a_sibling = group.spawn(async move {
                let outcome: Outcome<i32> = spawner.spawn(async { Ok(1) }).await;
                Ok(outcome)
            });
            assert_eq!(in_a_sibling.await, Outcome::Completed(1));
            Ok(group.spawner().spawn(async { Ok(2) }))
        })
        .await
        .expect("nothing failed");
        assert_eq!(outside.await, Outcome::Completed(2));
    });
}

#[test]
fn a_detached_handle_outlives_the_scope() {
    every_runtime(async || {
        let returned = scope(async |group: &TaskGroup| {
            let handle = group.spawn(async {
                turns(3).await;
                Ok("late")
            });
            Ok(handle.detached())
        })
        .await
        .expect("nothing failed");
        assert!(returned.is_finished());
        assert_eq!(returned.await, Outcome::Completed("late"));

        let mut kept = None;
        let result = scope(async |group| {
            let handle = group.spawn(async { Ok("early") });
            until(|| handle.is_finished()).await;
            kept = Some(handle.detached());
            Err::<(), _>("broken")
        })
        .await;
        assert_eq!(failures(result), ["broken"]);
        let kept = kept.expect("the body ran");
        assert_eq!(kept.await, Outcome::Completed("early"));
    });
}

#[test]
fn dropping_a_handle_leaves_the_child_running() {
    every_runtime(async || {
        let ended = Count::new();
        let done = scope(async |group: &TaskGroup| {
            for _ in 0..3 {
                let ended = ended.clone();
                let handle = group.spawn(async move {
                    turns(5).await;
                    ended.add();
                });
                turns(1).await;
                drop(handle);
            }
            Ok(())
        })
        .await;
        assert!(done.is_ok());
        assert_eq!(ended.get(), 3);
    });
}

/// What `Debug` says of a child, named so, after the scope in which it was alone.
async fn shown(
    name: &'static str,
    child: impl Future<Output = Result<(), Text>> + Send + 'static,
) -> String {
    let mut kept = None;
    let scope = Scope::new().panics_as_errors();
    let result = scope
        .run(async |group| {
            let handle = group.named(name).spawn(child);
            if name == "cancelled" {
                handle.cancel();
            }
            let handle = kept.insert(handle.detached());
            until(|| handle.is_finished()).await;
            Ok(())
        })
        .await;
    drop(result);
    let handle = kept.expect("the body ran");
    // For a moment the runtime may know no more than that.
    until(|| !format!("{handle:?}").contains("ended")).await;
    let shown = format!("{handle:?}");
    assert!(handle.now_or_never().is_some(), "looking takes nothing");
    shown
}

#[test]
fn debug_shows_state_and_name() {
    every_runtime(async || {
        let looked = Count::new();
        let done = patient().run(async |group: &TaskGroup| {
            let handle = group.named("fetch").spawn(pending::<()>());
            assert_shows(&format!("{handle:?}"), "fetch", "running");
            let id = format!("id: {:?}", handle.id());
            assert!(format!("{handle:?}").contains(&id), "{handle:?}");
            let sibling = group.named("other").spawn(pending::<()>());
            handle.cancel();
            assert_shows(&format!("{handle:?}"), "fetch", "cancelling");
            assert_shows(&format!("{sibling:?}"), "other", "running");
            group.cancel();
            assert_shows(&format!("{:?}", group.spawn(async {})), "", "refused");
            looked.add();
            Ok(())
        });
        drop(done.now_or_never());
        assert_eq!(looked.get(), 1, "what the body throws is lost here");
        let completed = shown("completed", async { Ok(()) }).await;
        assert_shows(&completed, "completed", "completed");
        let failed = shown("failed", async { Err("x") }).await;
        assert_shows(&failed, "failed", "failed");
        let panicked = shown("panicked", async { panic!("x") }).await;
        assert_shows(&panicked, "panicked", "panicked");
        let cancelled = shown("cancelled", pending()).await;
        assert_shows(&cancelled, "cancelled", "cancelled");
    });
}

#[track_caller]
fn assert_shows(shown: &str, name: &str, state: &str) {
    let named = format!("name: {name:?}");
    assert!(name.is_empty() || shown.contains(&named), "{shown}");
    assert!(shown.contains(&format!("state: {state:?}")), "{shown}");
}

/// Remembers the ids that it is told.
#[derive(Clone)]
struct Ids {
    spawned: Log<TaskId>,
    ended: Log<TaskId>,
}

impl Observer for Ids {
    fn spawned(&self, task: &TaskInfo) {
        self.spawned.push(task.id());
    }

    fn ended(&self, task: &TaskInfo, _: &Ended) {
        self.ended.push(task.id());
    }
}

#[test]
fn ids_are_unique_and_the_same_everywhere() {
    every_runtime(async || {
        let ids = Ids {
            spawned: Log::new(),
            ended: Log::new(),
        };
        let handles = Log::new();
        let mut failed = Vec::new();
        for _ in 0..2 {
            let error = Scope::new()
                .observer(Arc::new(ids.clone()))
                .run(async |group| {
                    for _ in 0..5 {
                        handles.push(group.spawn(async { Ok(()) }).id());
                    }
                    handles.push(group.spawner().spawn(async { Ok(()) }).id());
                    let last = group.spawn(async { Err::<(), _>("last") });
                    handles.push(last.id());
                    pending::<Result<(), Text>>().await
                })
                .await
                .expect_err("the last one failed");
            failed.extend(
                error
                    .iter()
                    .filter_map(|failure| Some(failure.task()?.id())),
            );
        }
        let seen = handles.entries();
        assert_eq!(failed, [seen[6], seen[13]]);
        assert_eq!(ids.spawned.entries(), seen);
        let (mut ended, mut sorted) = (ids.ended.entries(), seen);
        ended.sort();
        sorted.sort();
        assert_eq!(ended, sorted);
        sorted.dedup();
        assert_eq!(sorted.len(), 14, "no two children share one");
    });
}

#[test]
fn nothing_panics_because_a_child_was_cancelled() {
    every_runtime(async || {
        let drops = Drops::new();
        let result = scope(async |group: &TaskGroup| {
            let guard = drops.guard();
            let handle = group.spawn(async move {
                let _guard = guard;
                pending::<()>().await;
            });
            handle.cancel();
            handle.cancel();
            until(|| handle.is_finished()).await;
            handle.cancel();
            drop(handle);
            let awaited = group.spawn(pending::<()>());
            awaited.cancel();
            awaited.await; // gives up the body, not the thread
            Ok(())
        });
        let result = caught(result).await.expect("no panic");
        assert!(result.is_err_and(|error| error.is_cancelled()));
        support::settle().await;
        assert_eq!(drops.alive(), 0);
    });
}

#[test]
fn a_body_that_listens_beside_a_handle_keeps_its_grace() {
    paused(async || {
        for owned in [false, true] {
            let (start, mut tidied) = (Instant::now(), false);
            let options = Scope::new().grace(Duration::from_secs(1));
            let ended = options.run(async |group: &TaskGroup<Text>| {
                let mut child = group.spawn(async {
                    sleep(Duration::from_millis(5)).await;
                    Err::<(), _>("broken")
                });
                let token = group.token();
                if owned {
                    tokio::select! { biased; () = child => {}, () = token.cancelled() => {} }
                } else {
                    tokio::select! { biased; () = &mut child => {}, () = token.cancelled() => {} }
                }
                sleep(Duration::from_millis(10)).await;
                tidied = true;
                Ok(())
            });
            assert_eq!(failures(ended.await), ["broken"]);
            let elapsed = Duration::from_millis(15);
            assert_eq!((tidied, start.elapsed()), (true, elapsed), "owned: {owned}");
        }
    });
}

#[test]
fn a_body_that_goes_on_waiting_for_a_failed_child_is_dropped_within_the_grace() {
    paused(async || {
        for together in [false, true] {
            let (start, polls) = (Instant::now(), Count::new());
            let ended = patient().run(async |group: &TaskGroup<Text>| {
                let child = group.spawn(async {
                    sleep(Duration::from_millis(5)).await;
                    Err::<(), _>("broken")
                });
                let counted = async {
                    polls.add();
                    pending::<()>().await;
                };
                if together {
                    futures::future::join(child, counted).await;
                } else {
                    child.await;
                }
                Ok(())
            });
            assert_eq!(failures(ended.await), ["broken"]);
            assert_eq!(start.elapsed(), Duration::from_millis(5));
            assert_eq!(polls.get(), usize::from(together));
        }
    });
}
