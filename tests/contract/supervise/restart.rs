//! What is restarted, and when.

use std::time::Duration;

use ringfence::{
    BoxError,
    supervise::{Child, ChildEnd, ChildState, Escalation, Run, Strategy, Supervisor},
};
use tokio::time::{Instant, sleep};

use super::{DELAYS, Diary, for_a_while, idle, ms};
use crate::support::{Count, caught, paused, paused_runtime, settle};

/// Ends in a way that changes from run to run: it returns, fails, panics.
async fn ends(run: Run, count: Count) -> Result<(), BoxError> {
    count.add();
    sleep(ms(1)).await;
    match run.number() % 3 {
        1 => Ok(()),
        2 => Err("no".into()),
        _ => panic!("never"),
    }
}

#[test]
fn a_permanent_child_is_restarted_however_it_ends() {
    paused(async || {
        let count = Count::new();
        let supervisor = Supervisor::new().child({
            let count = count.clone();
            Child::permanent("p", move |run| ends(run, count.clone())).backoff(DELAYS)
        });
        // Runs begin at 0, 11, 32, 73.
        let report = for_a_while(supervisor, 73).await.expect("it was shut down");
        assert_eq!((count.get(), report.restarts), (4, 3));
    });
}

#[test]
fn a_transient_child_is_restarted_only_when_it_fails() {
    paused(async || {
        for (first, runs) in [(1, 1), (2, 3), (3, 2)] {
            let mut supervisor = Supervisor::new();
            let child = supervisor.add(
                Child::transient("t", move |run: Run| async move {
                    match run.number() + first {
                        3 => Err("no".into()),
                        4 => panic!("never"),
                        _ => Ok::<(), BoxError>(()),
                    }
                })
                .backoff(DELAYS),
            );
            supervisor.run().await.expect("nothing is left to do");
            assert_eq!(child.runs(), runs, "{first}");
            assert!(child.ended().await.is_completed());
        }
    });
}

#[test]
fn a_temporary_child_is_never_restarted_and_is_forgotten() {
    paused(async || {
        let mut supervisor = Supervisor::new().stay_open();
        let (handle, count) = (supervisor.handle(), Count::new());
        let children: Vec<_> = (0..3_u64)
            .map(|kind| {
                let count = count.clone();
                supervisor.add(Child::temporary("t", move |_| {
                    let count = count.clone();
                    async move {
                        count.add();
                        match kind {
                            0 => Ok(()),
                            1 => Err::<(), BoxError>("no".into()),
                            _ => panic!("never"),
                        }
                    }
                }))
            })
            .collect();
        let ended = for_a_while(supervisor, 100);
        let look = async {
            sleep(ms(50)).await;
            assert_eq!(handle.counts().children, 0);
        };
        let (ended, ()) = tokio::join!(ended, look);
        assert_eq!(ended.expect("nobody escalates").restarts, 0);
        assert_eq!(count.get(), 3);
        let ends: Vec<_> = children.iter().map(|child| child.last_end()).collect();
        assert!(matches!(
            &ends[..],
            [
                Some(ChildEnd::Completed),
                Some(ChildEnd::Failed(_)),
                Some(ChildEnd::Panicked(_))
            ]
        ));
    });
    // Not even its memory is kept.
    let peak = |children: u64| {
        let runtime = paused_runtime();
        let run = async {
            let supervisor = Supervisor::new().stay_open();
            let handle = supervisor.handle();
            let adds = async {
                for _ in 0..children {
                    drop(handle.add(Child::temporary("t", |_| async {})));
                    settle().await;
                }
                handle.finish();
            };
            let (ended, ()) = tokio::join!(supervisor.run(), adds);
            ended.expect("nobody escalates");
        };
        allocation_counter::measure(|| runtime.block_on(run)).bytes_max
    };
    let (few, many) = (peak(100), peak(1_000));
    assert!(many < few + 20_000, "{many} for many, {few} for few");
}

#[test]
fn a_failure_replaces_only_the_child_that_failed() {
    paused(async || {
        let diary = Diary::new();
        let supervisor = Supervisor::new()
            .child(diary.child("a", 0, &[]))
            .child(diary.child("b", 0, &[5]))
            .child(diary.child("c", 0, &[]));
        for_a_while(supervisor, 100).await.expect("a shutdown");
        assert_eq!(
            diary.entries(),
            [
                "0 +a", "0 +b", "0 +c", "5 -b", "15 +b", "100 -c", "100 -b", "100 -a"
            ]
        );
    });
}

#[test]
fn a_failure_under_one_for_all_stops_and_starts_everybody_in_order() {
    paused(async || {
        let diary = Diary::new();
        let supervisor = Supervisor::new()
            .strategy(Strategy::OneForAll)
            .child(diary.child("a", 3, &[]))
            .child(diary.child("b", 0, &[5]))
            .child(diary.child("c", 2, &[]));
        for_a_while(supervisor, 100).await.expect("a shutdown");
        assert_eq!(
            diary.entries(),
            [
                "0 +a", "0 +b", "0 +c", "5 -b", "7 -c", "10 -a", "15 +a", "15 +b", "15 +c",
                "102 -c", "102 -b", "105 -a"
            ]
        );
    });
}

#[test]
fn a_failure_under_rest_for_one_restarts_it_and_those_after_it() {
    paused(async || {
        let diary = Diary::new();
        let supervisor = Supervisor::new()
            .strategy(Strategy::RestForOne)
            .child(diary.child("a", 0, &[]))
            .child(diary.child("b", 0, &[5]))
            .child(diary.child("c", 20, &[]));
        for_a_while(supervisor, 100).await.expect("a shutdown");
        assert_eq!(
            diary.entries(),
            [
                "0 +a", "0 +b", "0 +c", "5 -b", "25 -c", "25 +b", "25 +c", "120 -c", "120 -b",
                "120 -a"
            ]
        );
    });
}

#[test]
fn too_many_restarts_stop_everybody_and_fail_upward() {
    paused(async || {
        for strategy in [
            Strategy::OneForOne,
            Strategy::OneForAll,
            Strategy::RestForOne,
        ] {
            let diary = Diary::new();
            let supervisor = Supervisor::new()
                .strategy(strategy)
                .intensity(2, ms(1000))
                .child(diary.child("a", 0, &[]))
                .child(diary.child("b", 0, &[1, 1, 1, 1]))
                .child(diary.child("c", 0, &[]));
            let error = supervisor.run().await.expect_err("three failures");
            let why = Escalation::Intensity {
                restarts: 2,
                within: ms(1000),
            };
            assert_eq!((error.why(), error.child()), (&why, Some("b")));
            assert_eq!(error.report().restarts, 2);
            assert_eq!(
                error.to_string(),
                "child `b` needed more than 2 restarts within 1s: out"
            );
            let last = &diary.entries()[diary.entries().len() - 3..];
            assert_eq!(last, ["33 -b", "33 -c", "33 -a"], "{strategy:?}");
        }
    });
}

#[test]
fn failures_wider_apart_than_the_window_never_escalate() {
    paused(async || {
        let supervisor = Supervisor::new().intensity(1, ms(100)).child(
            Child::permanent("p", |_| async {
                sleep(ms(90)).await;
                Err::<(), BoxError>("no".into())
            })
            .healthy_after(ms(90))
            .backoff(DELAYS),
        );
        let report = for_a_while(supervisor, 10_050).await.expect("a shutdown");
        assert_eq!(report.restarts, 100);
    });
}

#[test]
fn delays_grow_and_start_small_again_after_a_healthy_run() {
    paused(async || {
        let diary = Diary::new();
        let supervisor =
            Supervisor::new().child(diary.child("a", 0, &[0, 0, 0, 50, 0]).healthy_after(ms(50)));
        for_a_while(supervisor, 200).await.expect("a shutdown");
        let starts: Vec<_> = diary.entries();
        let starts: Vec<_> = starts.iter().filter(|line| line.contains('+')).collect();
        assert_eq!(
            starts,
            ["0 +a", "10 +a", "30 +a", "70 +a", "130 +a", "150 +a"]
        );
    });
}

#[test]
fn a_child_that_restarts_for_ever_is_never_restarted_without_a_delay() {
    paused(async || {
        let start = Instant::now();
        let mut supervisor = Supervisor::new().unlimited();
        let child = supervisor.add(
            Child::transient("hot", |run: Run| async move {
                if run.number() < 1000 {
                    return Err::<(), BoxError>("no".into());
                }
                Ok(())
            })
            .backoff(ringfence::Retry::constant(Duration::ZERO)),
        );
        supervisor.run().await.expect("it ended");
        assert_eq!((child.runs(), start.elapsed()), (1000, ms(999)));
    });
}

#[test]
fn a_restart_that_fails_to_start_is_tried_again_and_counts() {
    paused(async || {
        let diary = Diary::new();
        let late = |name, diary: &Diary| {
            let diary = diary.clone();
            Child::permanent(name, move |run: Run| {
                let diary = diary.clone();
                async move {
                    diary.write(&format!("{name}{}", run.number()));
                    if run.number() == 2 {
                        return Err::<(), BoxError>("not yet".into());
                    }
                    run.ready();
                    ringfence::token().cancelled().await;
                    Ok(())
                }
            })
            .ready_within(ms(50))
            .backoff(DELAYS)
        };
        let mut supervisor = Supervisor::new().strategy(Strategy::OneForAll);
        let first = supervisor.add(late("a", &diary));
        supervisor.add(diary.child("b", 0, &[]));
        supervisor.add(diary.child("c", 0, &[5]));
        let report = for_a_while(supervisor, 100).await.expect("a shutdown");
        // The failure of c stops all; the second run of a fails to start, and with it nobody else has been started.
        assert_eq!((report.restarts, first.runs()), (2, 3));
        assert_eq!(
            diary.entries(),
            [
                "0 a1", "0 +b", "0 +c", "5 -c", "5 -b", "15 a2", "25 a3", "25 +b", "25 +c",
                "100 -c", "100 -b"
            ]
        );
    });
}

#[test]
fn a_child_that_is_not_ready_in_time_has_failed_to_start() {
    paused(async || {
        let start = Instant::now();
        let mut supervisor = Supervisor::new().child(idle("before"));
        let slow = supervisor.add(
            Child::temporary("slow", |_run| std::future::pending::<()>())
                .ready_within(ms(40))
                .grace(ms(7)),
        );
        let after = supervisor.add(idle("after"));
        let error = supervisor.run().await.expect_err("it is not ready");
        assert_eq!(start.elapsed(), ms(47));
        assert_eq!(error.why(), &Escalation::Start);
        assert!(matches!(error.end(), ChildEnd::NotReady(limit) if *limit == ms(40)));
        assert_eq!((slow.runs(), after.runs()), (1, 0));
    });
}

#[test]
fn a_temporary_bystander_is_stopped_and_not_restarted() {
    paused(async || {
        for strategy in [Strategy::OneForAll, Strategy::RestForOne] {
            let mut supervisor = Supervisor::new().strategy(strategy);
            let diary = Diary::new();
            supervisor.add(diary.child("a", 0, &[5]));
            let bystander = supervisor.add(Child::temporary("t", |_| std::future::pending::<()>()));
            let other = supervisor.add(idle("b"));
            let report = for_a_while(supervisor, 10_000).await.expect("a shutdown");
            assert_eq!((bystander.runs(), other.runs(), report.restarts), (1, 2, 1));
            assert_eq!(bystander.state(), ChildState::Ended);
        }
    });
}

#[test]
fn a_predicate_decides_on_how_a_run_ended() {
    paused(async || {
        let mut supervisor = Supervisor::new();
        let child = supervisor.add(
            Child::permanent("p", |run: Run| ends(run, Count::new()))
                .restart_when(|end| end.panic().is_none())
                .backoff(DELAYS),
        );
        supervisor.run().await.expect("it ended for good");
        assert_eq!(child.runs(), 3);
        let end = child.ended().await;
        assert_eq!(end.panic().map(|panic| panic.message()), Some("never"));
        assert_eq!(end.to_string(), "it panicked: never");
    });
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    paused(async || {
        let refused = async |make: fn()| caught(async move { make() }).await.expect_err("refused");
        let text = refused(|| drop(Supervisor::new().intensity(3, Duration::ZERO))).await;
        assert!(text.contains("time of zero"), "{text}");
        let text = refused(|| {
            drop(idle("c").backoff(ringfence::Retry::DEFAULT.without_pauses()));
        })
        .await;
        assert!(text.contains("a policy with pauses"), "{text}");
    });
}

#[test]
fn children_that_fail_all_at_once_are_all_restarted() {
    // More than a task looks at in one turn.
    paused(async || {
        let mut supervisor = Supervisor::new().unlimited();
        let children: Vec<_> = (0..500)
            .map(|_| supervisor.add(Diary::new().child("a", 0, &[5])))
            .collect();
        let report = for_a_while(supervisor, 100).await.expect("a shutdown");
        assert_eq!(report.restarts, 500);
        assert!(children.iter().all(|child| child.runs() == 2));
    });
}
