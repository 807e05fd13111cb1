//! How supervisors stop.

use std::{future::pending, time::Duration};

use ringfence::{
    BoxError, Deadline, Scope, TaskGroup, scope,
    supervise::{Child, ChildEnd, Supervisor},
    token,
};
use tokio::time::{Instant, sleep};

use super::{Diary, cancelled_after, for_a_while, idle, ms};
use crate::support::{Drops, Log, cut_at_every_await, paused, until};

#[test]
fn a_stop_gives_each_child_its_grace_and_then_forces_it() {
    paused(async || {
        let mut supervisor = Supervisor::new().grace(Duration::MAX);
        let patient = supervisor.add(
            Child::permanent("patient", |_| async {
                token().cancelled().await;
                sleep(Duration::from_secs(3600)).await;
            })
            .grace(Duration::MAX),
        );
        let stuck = supervisor
            .add(Child::permanent("stuck", |_| pending::<()>()).grace(Duration::from_secs(1)));
        let brutal =
            supervisor.add(Child::permanent("brutal", |_| pending::<()>()).grace(Duration::ZERO));
        let start = Instant::now();
        let report = for_a_while(supervisor, 10).await.expect("a shutdown");
        assert_eq!(start.elapsed(), ms(10 + 1000 + 3_600_000));
        let forced: Vec<_> = report.forced.iter().map(|task| task.name()).collect();
        assert_eq!(forced, [Some("stuck")]);
        assert!(patient.ended().await.is_completed());
        let end =
            |forced| move |end| matches!(end, ChildEnd::Cancelled { forced: f } if f == forced);
        assert!(stuck.last_end().is_some_and(end(true)));
        assert!(brutal.last_end().is_some_and(end(false)));
    });
}

#[test]
fn a_stop_of_all_ends_within_the_grace_of_all() {
    paused(async || {
        let mut supervisor = Supervisor::new().grace(ms(250));
        for name in ["a", "b", "c", "d"] {
            supervisor.add(Child::permanent(name, |_| pending::<()>()).grace(ms(100)));
        }
        let start = Instant::now();
        let report = for_a_while(supervisor, 0).await.expect("a shutdown");
        assert_eq!(start.elapsed(), ms(250));
        let forced: Vec<_> = report.forced.iter().map(|task| task.name()).collect();
        assert_eq!(
            forced.len(),
            3,
            "d and c in their time, b when that of all was over"
        );
    });
}

#[test]
fn a_cancel_from_around_stops_children_one_by_one_from_last_to_first() {
    paused(async || {
        let diary = Diary::new();
        let supervisor = Supervisor::new()
            .child(diary.child("a", 3, &[]))
            .child(diary.child("b", 2, &[]))
            .child(diary.child("c", 1, &[]));
        cancelled_after(10, 1000, async move {
            supervisor.run().await.expect("it was stopped");
        })
        .await;
        // Each hears of it when those after it are gone, not when the group is cancelled.
        assert_eq!(
            diary.entries(),
            ["0 +a", "0 +b", "0 +c", "11 -c", "13 -b", "16 -a"]
        );
    });
}

#[test]
fn a_cancel_without_a_grace_drops_all_at_once() {
    paused(async || {
        let drops = Drops::new();
        let supervisor = Supervisor::new().child({
            let drops = drops.clone();
            Child::permanent("a", move |_| {
                let guard = drops.guard();
                async move {
                    let _guard = guard;
                    pending::<()>().await;
                }
            })
        });
        let start = Instant::now();
        cancelled_after(10, 0, async move {
            supervisor.run().await.expect("it does not come back");
        })
        .await;
        assert_eq!(
            (start.elapsed(), drops.made(), drops.alive()),
            (ms(10), 1, 0)
        );
    });
}

#[test]
fn a_grace_around_that_is_over_forces_what_is_left() {
    paused(async || {
        let drops = Drops::new();
        let supervisor = Supervisor::new().child({
            let drops = drops.clone();
            Child::permanent("deaf", move |_| {
                let guard = drops.guard();
                async move {
                    let _guard = guard;
                    pending::<()>().await;
                }
            })
        });
        let start = Instant::now();
        cancelled_after(10, 100, async move {
            supervisor.run().await.expect("it does not come back");
        })
        .await;
        assert_eq!((start.elapsed(), drops.alive()), (ms(110), 0));
    });
}

#[test]
fn children_know_the_deadline_around() {
    paused(async || {
        let deadline = Deadline::after(ms(500));
        let ended = Scope::new()
            .deadline(deadline)
            .grace(ms(100))
            .run(async |_: &TaskGroup| {
                let supervisor =
                    Supervisor::new().child(Child::critical("a", move |_| async move {
                        assert_eq!(Deadline::current(), deadline);
                        token().cancelled().await;
                        assert!(deadline.is_past());
                    }));
                supervisor
                    .run()
                    .await
                    .expect("it was stopped, which is no fault");
                Ok(())
            });
        assert!(ended.await.expect_err("late").is_deadline_exceeded());
    });
}

#[test]
fn a_cancel_from_around_restarts_nobody() {
    paused(async || {
        let diary = Diary::new();
        // In the middle of its delay, and while it is being stopped.
        let supervisor = Supervisor::new()
            .child(diary.child("waits", 0, &[5]))
            .child(Child::permanent("fails", |_| async {
                token().cancelled().await;
                Err::<(), BoxError>("on the way out".into())
            }));
        cancelled_after(10, 1000, async move {
            let report = supervisor.run().await.expect("it was stopped");
            assert_eq!(report.restarts, 1);
        })
        .await;
        assert_eq!(diary.entries(), ["0 +waits", "5 -waits"]);
    });
}

#[test]
fn finish_waits_for_children_and_restarts_nobody() {
    paused(async || {
        let diary = Diary::new();
        let supervisor = Supervisor::new()
            .child(diary.child("a", 0, &[30]))
            .child(diary.child("b", 0, &[5]))
            .child(diary.child("c", 0, &[8]));
        let handle = supervisor.handle();
        let finish = async {
            sleep(ms(10)).await; // b and c wait to be restarted
            handle.finish();
            assert!(!handle.add(idle("late")).ready().await);
        };
        let (ended, ()) = tokio::join!(supervisor.run(), finish);
        assert_eq!(ended.expect("all have ended").restarts, 2);
        assert_eq!(
            diary.entries(),
            ["0 +a", "0 +b", "0 +c", "5 -b", "8 -c", "30 -a"]
        );
    });
}

#[test]
fn a_supervisor_that_is_dropped_leaves_nothing_behind() {
    paused(async || {
        let drops = Drops::new();
        let mut handles = Vec::new();
        let cuts = cut_at_every_await(
            || {
                let mut supervisor = Supervisor::new();
                for name in ["a", "b"] {
                    let drops = drops.clone();
                    let child = Child::permanent(name, move |run: ringfence::supervise::Run| {
                        let guard = drops.guard();
                        async move {
                            let _guard = guard;
                            sleep(ms(run.number())).await;
                            Err::<(), BoxError>("no".into())
                        }
                    });
                    handles.push(supervisor.add(child.backoff(super::DELAYS).ready_within(ms(5))));
                }
                let ended = scope(async |_: &TaskGroup| {
                    drop(for_a_while(supervisor, 100).await);
                    Ok(())
                });
                async move { drop(ended.await) }
            },
            |_| async { until(|| drops.alive() == 0).await },
        )
        .await;
        assert!(cuts > 3, "{cuts}");
        for handle in handles {
            handle.ended().await; // comes back, whatever became of it
        }
    });
}

#[test]
fn what_a_child_had_opened_is_gone_before_it_is_restarted() {
    paused(async || {
        let drops = Drops::new();
        let seen = Log::new();
        let supervisor = Supervisor::new().child({
            let (drops, seen) = (drops.clone(), seen.clone());
            Child::permanent("a", move |_| {
                let (drops, seen) = (drops.clone(), seen.clone());
                async move {
                    seen.push(drops.alive());
                    let guard = drops.guard();
                    let inner = Scope::new().run(async |group: &TaskGroup| {
                        group.spawn(async move {
                            let _guard = guard;
                            pending::<()>().await;
                        });
                        sleep(ms(3600)).await;
                        Ok(())
                    });
                    // Dropped in the middle: this child does not end before its children are gone.
                    drop(ringfence::timeout(ms(5), inner).await);
                    Err::<(), BoxError>("no".into())
                }
            })
            .backoff(super::DELAYS)
        });
        for_a_while(supervisor, 60).await.expect("a shutdown");
        assert_eq!(seen.entries(), [0, 0, 0]);
    });
}

#[test]
fn around_what_ends_already_nobody_is_started() {
    paused(async || {
        let ended = Scope::new().grace(ms(100)).run(async |group: &TaskGroup| {
            group.cancel();
            let mut supervisor = Supervisor::new();
            let child = supervisor.add(idle("a"));
            supervisor.run().await.expect("it was told to stop");
            assert_eq!(child.runs(), 0);
            assert!(matches!(child.ended().await, ChildEnd::Lost));
            Ok(())
        });
        assert!(ended.await.expect_err("a cancel").is_empty());
    });
}

#[test]
fn what_fails_on_its_way_out_is_not_run_again() {
    paused(async || {
        let mut supervisor = Supervisor::new();
        let drains = supervisor.add(Child::permanent("drains", |_| async {
            token().cancelled().await;
            Err::<(), BoxError>("the disk is full".into())
        }));
        let waits = supervisor.add(Child::permanent("waits", |_| async {
            Err::<(), BoxError>("no".into())
        }));
        let report = for_a_while(supervisor, 1).await.expect("a shutdown");
        assert_eq!((drains.runs(), waits.runs(), report.restarts), (1, 1, 1));
        assert!(drains.ended().await.error().is_some());
    });
}

#[test]
fn a_forced_run_is_named_with_what_had_it_end() {
    paused(async || {
        let supervisor = Supervisor::new()
            .grace(Duration::MAX)
            .child(Child::permanent("deaf", |_| pending::<()>()).grace(Duration::MAX));
        let ended = Scope::new().grace(ms(10)).run(async |group: &TaskGroup| {
            group.spawn(async { drop(supervisor.run().await) });
            sleep(ms(1)).await;
            group.cancel_with("SIGTERM");
            Ok(())
        });
        let error = ended.await.expect_err("a cancel");
        let deaf = error.forced().iter().find(|it| it.name() == Some("deaf"));
        let deaf = deaf.expect("it is named").to_string();
        assert!(deaf.ends_with("had to be forced, cancelled on request: SIGTERM"));
    });
}
