//! Cancel: why, as the cancelled and the caller read it.

use std::{
    sync::{Arc, Barrier},
    thread,
};

use ringfence::{CancelReason, Cause, Deadline, Outcome, Scope, scope, timeout, token};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use super::{Group, LONG, Lost, counted, ms, parked, requested};
use crate::support::{Count, Log, OnDrop, every_runtime, paused, single_thread, spawn, until};

/// Waits for the signal, and writes down the reason as the task itself reads it.
async fn hear(heard: Log<Option<CancelReason>>) -> Result<(), Lost> {
    token().cancelled().await;
    heard.push(token().reason());
    Ok(())
}

#[test]
fn a_second_cancel_changes_nothing() {
    // By a deadline, a failure, the end of all others, the handle, or all children.
    for deadline_first in [true, false] {
        paused(async || {
            let heard = Log::new();
            let made = Scope::new().grace(ms(100));
            let made = made.deadline(Deadline::after(ms(if deadline_first { 10 } else { 30 })));
            let ended = made.run(async |group| {
                let hears = heard.clone();
                let child = group.spawn(async move {
                    token().cancelled().await;
                    hears.push(token().reason());
                    sleep(ms(50)).await;
                    hears.push(token().reason());
                    Err::<(), _>(Lost(1))
                });
                group.spawn_background(parked::<()>());
                sleep(ms(20)).await;
                group.cancel_with("first");
                group.cancel_with("second");
                sleep(ms(15)).await;
                child.cancel();
                group.cancel_children();
                Ok(())
            });
            let error = ended.await.unwrap_err();
            let (cause, reason) = if deadline_first {
                (Cause::DeadlineExceeded, CancelReason::Deadline)
            } else {
                let first = requested("first", None);
                (Cause::Cancelled(first.clone()), first)
            };
            assert_eq!((error.cause(), error.len()), (&cause, 1));
            assert_eq!(heard.entries(), vec![Some(reason.clone()); 2]);
            assert!(error.forced().iter().all(|forced| forced.reason == reason));
        });
    }

    // The end came first: what is cancelled within the grace of a background child, or by the deadline, is its end only.
    paused(async || {
        let start = Instant::now();
        let (heard, made) = (Log::new(), Scope::new().grace(ms(100)));
        let made = made.deadline(Deadline::after(ms(30)));
        let ended = made.run(async |group: &Group| {
            let (spawner, hears) = (group.spawner(), heard.clone());
            group.spawn_background(async move {
                token().cancelled().await;
                spawner.cancel_with("late");
                sleep(ms(50)).await;
                hears.push(token().reason());
            });
            Ok(7)
        });
        assert_eq!(ended.await.unwrap(), 7);
        assert_eq!(heard.entries(), [Some(CancelReason::Finished)]);
        assert_eq!(start.elapsed(), ms(50));
    });

    // Nor does anybody wake for it: not the body, not the child.
    paused(async || {
        let polls = [Count::new(), Count::new()];
        let [of_body, of_child] = polls.clone();
        let ended = Scope::new().grace(LONG).run(async |group: &Group| {
            let child = group.spawn(async move {
                counted(&of_child, async {
                    token().cancelled().await;
                    sleep(ms(50)).await;
                })
                .await;
            });
            yield_now().await;
            let again = async {
                child.cancel();
                sleep(ms(5)).await;
                let before = polls.each_ref().map(Count::get);
                child.cancel();
                sleep(ms(5)).await;
                let [body, child] = polls.each_ref().map(Count::get);
                assert_eq!([body - 1, child], before, "but for the time");
                Ok(())
            };
            counted(&of_body, again).await
        });
        assert!(ended.await.is_ok());
    });

    // By several threads at once: one of them is the first, for all who ask.
    every_runtime(async || {
        let (heard, mut outcome) = (Log::new(), None);
        let ended = Scope::new().grace(LONG).run(async |group: &Group| {
            let meet = Arc::new(Barrier::new(4));
            let hearing = group.spawn(hear(heard.clone()));
            let threads = ["a", "b", "c", "d"].map(|note| {
                let (spawner, meet) = (group.spawner(), meet.clone());
                thread::spawn(move || {
                    meet.wait();
                    spawner.cancel_with(note);
                })
            });
            outcome = Some(hearing.outcome().await);
            for thread in threads {
                thread.join().expect("a quiet thread");
            }
            Ok(())
        });
        let error = ended.await.unwrap_err();
        let heard = heard.entries().remove(0).expect("a reason");
        assert!(matches!(
            heard,
            CancelReason::Requested {
                note: Some(_),
                by: None
            }
        ));
        assert_eq!(error.cause(), &Cause::Cancelled(heard));
        assert_eq!(outcome, Some(Outcome::Completed(())));
    });
}

#[test]
fn a_wait_for_the_cancel_can_be_handed_to_a_task_outside() {
    paused(async || {
        let ended = Scope::new().grace(LONG).run(async |group: &Group| {
            group.spawn(async {
                let told = spawn(token().cancelled());
                let never = spawn(async { token().cancelled().await });
                told.await.expect("it was cancelled, and not dropped");
                assert!(timeout(ms(1), never).await.is_err());
            });
            yield_now().await;
            group.cancel();
            Ok(())
        });
        assert!(ended.await.unwrap_err().forced().is_empty());
    });
}

#[test]
fn a_child_reads_its_token_without_being_given_it() {
    async fn deep_inside() -> bool {
        token().is_cancelled()
    }
    every_runtime(async || {
        assert!(!deep_inside().await && token().reason().is_none());
        let (before, seen) = (Count::new(), Log::new());
        let ended = Scope::new().grace(LONG).run(async |group: &Group| {
            let (asked, sees) = (before.clone(), seen.clone());
            group.spawn(async move {
                // A destructor reads it, too.
                let at_drop = sees.clone();
                let _last = OnDrop::new(move || at_drop.push(token().is_cancelled()));
                sees.push(deep_inside().await);
                asked.add();
                token().cancelled().await;
                sees.push(deep_inside().await);
            });
            until(|| before.get() > 0).await;
            assert!(!deep_inside().await);
            group.cancel();
            assert!(deep_inside().await);
            Ok(())
        });
        assert!(ended.await.is_err());
        assert!(!deep_inside().await);
        assert_eq!(seen.entries(), [false, true, true]);
    });
}

#[test]
fn a_note_given_with_the_cancel_reaches_the_report_and_the_children() {
    every_runtime(async || {
        let (heard, mut by) = (Log::new(), None);
        let ended = Scope::new().grace(LONG).run(async |group: &Group| {
            group.spawn(hear(heard.clone()));
            let spawner = group.spawner();
            let canceller = group.spawn(async move { spawner.cancel_with("enough") });
            by = Some(canceller.id());
            Ok(())
        });
        let error = ended.await.unwrap_err();
        let reason = requested("enough", by);
        assert_eq!(error.cause(), &Cause::Cancelled(reason.clone()));
        assert_eq!(heard.entries(), [Some(reason)]);
    });
}

#[test]
fn a_failed_sibling_is_named_as_the_reason() {
    every_runtime(async || {
        let (heard, mut failed) = (Log::new(), None);
        let ended = Scope::new().grace(LONG).run(async |group| {
            group.spawn(hear(heard.clone()));
            failed = Some(group.spawn(async { Err::<(), _>(Lost(1)) }).id());
            Ok(())
        });
        assert_eq!(ended.await.unwrap_err().cause(), &Cause::Failed);
        assert_eq!(heard.entries(), [failed.map(CancelReason::Failed)]);
    });
}

#[test]
fn a_failed_body_is_named_as_the_reason() {
    every_runtime(async || {
        let (waiting, heard) = (Count::new(), Log::new());
        let ended = Scope::new().grace(LONG).run(async |group| {
            let (running, hearing) = (waiting.clone(), hear(heard.clone()));
            group.spawn(async move {
                running.add();
                hearing.await
            });
            until(|| waiting.get() > 0).await;
            Err::<(), _>(Lost(1))
        });
        assert_eq!(ended.await.unwrap_err().cause(), &Cause::Failed);
        assert_eq!(heard.entries(), [Some(CancelReason::BodyFailed)]);
    });
}

#[test]
fn a_deadline_is_told_apart_from_a_request() {
    paused(async || {
        for requests in [true, false] {
            let heard = Log::new();
            let made = Scope::new().grace(LONG).deadline(Deadline::after(ms(20)));
            let ended = made.run(async |group: &Group| {
                group.spawn(hear(heard.clone()));
                sleep(ms(10)).await;
                if requests {
                    group.cancel();
                }
                token().cancelled().await;
                Ok(())
            });
            let error = ended.await.unwrap_err();
            let (cause, reason) = if requests {
                let reason = requested(None, None);
                (Cause::Cancelled(reason.clone()), reason)
            } else {
                (Cause::DeadlineExceeded, CancelReason::Deadline)
            };
            assert_eq!(
                (error.cause(), heard.entries()),
                (&cause, vec![Some(reason)])
            );
        }
    });
    // Without a grace there is nobody left to ask; the outcome says it.
    single_thread(async || {
        let mut child = None;
        let ended = scope(async |group: &Group| {
            child = Some(group.spawn(parked::<()>()).detached());
            group.cancel_with("enough");
            Ok(())
        });
        assert!(ended.await.is_err());
        let outcome = child.expect("the body ran").await;
        assert_eq!(outcome, Outcome::Cancelled(requested("enough", None)));
    });
}
