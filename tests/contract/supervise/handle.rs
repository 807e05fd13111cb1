//! Handles to children and supervisors.

use std::{future::pending, sync::Arc};

use ringfence::{
    BoxError, Scope, TaskGroup,
    inspect::{Counters, GroupState, GroupView},
    snapshot,
    supervise::{Child, ChildEnd, ChildState, Run, Strategy, Supervisor},
    token,
};
use tokio::{task::yield_now, time::sleep};

use super::{DELAYS, Diary, for_a_while, idle, ms};
use crate::support::{Count, every_runtime_in_a_task, paused, until};

#[test]
fn a_handle_is_good_for_all_runs() {
    paused(async || {
        let mut supervisor = Supervisor::new();
        let child = supervisor.add(Diary::new().child("a", 0, &[5, 5]));
        let look = async {
            assert_eq!((child.state(), child.runs()), (ChildState::Waiting, 0));
            assert!(child.ready().await);
            assert_eq!((child.state(), child.runs()), (ChildState::Running, 1));
            assert!(child.last_end().is_none());
            sleep(ms(10)).await;
            assert_eq!((child.state(), child.runs()), (ChildState::Waiting, 1));
            let text = |end: ChildEnd| end.to_string();
            assert_eq!(child.last_end().map(text).as_deref(), Some("out"));
            assert!(child.ready().await);
            assert_eq!(child.runs(), 2);
            sleep(ms(50)).await;
            assert_eq!((child.state(), child.runs()), (ChildState::Running, 3));
        };
        let ((), ended) = tokio::join!(look, for_a_while(supervisor, 100));
        assert_eq!(ended.expect("a shutdown").restarts, 2);
        assert_eq!(child.state(), ChildState::Ended);
        assert!(
            child.ended().await.is_completed(),
            "the last run heard of it"
        );
        assert!(!child.restart() && !child.ready().await);
    });
}

#[test]
fn after_a_stop_no_run_begins() {
    every_runtime_in_a_task(|| async {
        for round in 0..1000 {
            let runs = Count::new();
            let mut supervisor = Supervisor::new().unlimited();
            let child = supervisor.add({
                let runs = runs.clone();
                Child::permanent("racer", move |_| {
                    runs.add();
                    async {
                        yield_now().await;
                        Err::<(), BoxError>("again".into())
                    }
                })
                .restart_when(|_| true)
                .backoff(ringfence::Retry::constant(std::time::Duration::ZERO))
            });
            let stop = async {
                until(|| runs.get() > 0).await;
                for _ in 0..round % 7 {
                    yield_now().await;
                }
                child.restart(); // a restart under way, or not
                child.stop_and_wait().await;
                let then = runs.get();
                yield_now().await;
                assert_eq!((runs.get(), child.state()), (then, ChildState::Ended));
                then
            };
            let (ended, runs_then) = tokio::join!(supervisor.run(), stop);
            assert_eq!(ended.expect("its only child is gone").forced.len(), 0);
            assert_eq!(runs.get(), runs_then);
        }
    });
}

#[test]
fn a_child_that_is_stopped_leaves_the_others_alone() {
    paused(async || {
        for strategy in [Strategy::OneForOne, Strategy::OneForAll] {
            let diary = Diary::new();
            let mut supervisor = Supervisor::new().strategy(strategy);
            supervisor.add(diary.child("a", 0, &[]));
            let child = supervisor.add(diary.child("b", 7, &[]));
            let stop = async {
                sleep(ms(10)).await;
                assert!(child.stop_and_wait().await.is_completed());
                diary.write("stopped");
            };
            let (ended, ()) = tokio::join!(for_a_while(supervisor, 100), stop);
            assert_eq!(ended.expect("a shutdown").restarts, 0);
            assert_eq!(
                diary.entries(),
                ["0 +a", "0 +b", "17 -b", "17 stopped", "100 -a"]
            );
        }
    });
}

#[test]
fn a_restart_by_hand_takes_those_along_whom_the_strategy_says_and_counts_for_nothing() {
    paused(async || {
        let diary = Diary::new();
        let mut supervisor = Supervisor::new()
            .strategy(Strategy::RestForOne)
            .intensity(0, ms(1000));
        supervisor.add(diary.child("a", 0, &[]));
        let child = supervisor.add(diary.child("b", 2, &[]));
        supervisor.add(diary.child("c", 1, &[]));
        let restart = async {
            sleep(ms(10)).await;
            assert!(child.restart());
        };
        let (ended, ()) = tokio::join!(for_a_while(supervisor, 100), restart);
        assert_eq!(ended.expect("it counts for nothing").restarts, 0);
        assert_eq!(
            diary.entries(),
            [
                "0 +a", "0 +b", "0 +c", "11 -c", "13 -b", "13 +b", "13 +c", "101 -c", "103 -b",
                "103 -a"
            ]
        );
    });
}

#[test]
fn a_restart_by_hand_cuts_a_delay_short() {
    paused(async || {
        let diary = Diary::new();
        let mut supervisor = Supervisor::new();
        let slow = ringfence::Retry::constant(std::time::Duration::from_secs(20));
        let child = supervisor.add(
            diary
                .child("a", 0, &[5])
                .backoff(slow.jitter(ringfence::Jitter::None)),
        );
        let restart = async {
            sleep(ms(10)).await;
            assert!(child.restart());
        };
        let (ended, ()) = tokio::join!(for_a_while(supervisor, 100), restart);
        assert!(ended.is_ok());
        assert_eq!(diary.entries(), ["0 +a", "5 -a", "10 +a", "100 -a"]);
    });
}

#[test]
fn children_come_in_while_it_runs() {
    paused(async || {
        let diary = Diary::new();
        let supervisor = Supervisor::new().stay_open();
        let handle = supervisor.handle();
        let add = async {
            sleep(ms(10)).await;
            let child = handle.add(diary.child("a", 0, &[5]));
            assert!(child.ready().await);
            drop(child); // a handle keeps nobody, and ends nobody
        };
        let (ended, ()) = tokio::join!(for_a_while(supervisor, 100), add);
        assert!(ended.is_ok());
        assert_eq!(diary.entries(), ["10 +a", "15 -a", "25 +a", "100 -a"]);
        assert_eq!(handle.add(idle("late")).state(), ChildState::Ended);
    });
}

#[test]
fn counts_are_exact_with_two_thousand_children() {
    paused(async || {
        let mut supervisor = Supervisor::new().unlimited().stay_open();
        let handle = supervisor.handle();
        let children: Vec<_> = (0..2000)
            .map(|_| supervisor.add(Child::permanent("w", |_| pending::<()>()).backoff(DELAYS)))
            .collect();
        let look = async {
            let counts = |handle: &ringfence::supervise::SupervisorHandle| {
                let counts = handle.counts();
                (
                    counts.children,
                    counts.running,
                    counts.stopping,
                    counts.waiting,
                )
            };
            assert_eq!(counts(&handle), (2000, 0, 0, 2000));
            sleep(ms(10)).await;
            assert_eq!(counts(&handle), (2000, 2000, 0, 0));
            children.iter().take(500).for_each(|child| child.stop());
            sleep(ms(10)).await;
            assert_eq!(counts(&handle), (2000, 1500, 500, 0));
            sleep(ms(6000)).await; // their graces are over
            assert_eq!(counts(&handle), (1500, 1500, 0, 0));
            children.iter().for_each(|child| child.stop());
            sleep(ms(6000)).await;
            assert_eq!(counts(&handle), (0, 0, 0, 0));
        };
        let ((), ended) = tokio::join!(look, for_a_while(supervisor, 20_000));
        assert_eq!(ended.expect("a shutdown").forced.len(), 2000);
    });
}

#[test]
fn handles_of_a_supervisor_that_is_gone_find_that_all_has_ended() {
    paused(async || {
        let mut never_run = Supervisor::new();
        let child = never_run.add(idle("a"));
        let handle = never_run.handle();
        drop(never_run);
        assert!(matches!(child.ended().await, ChildEnd::Lost));
        assert!(matches!(child.stop_and_wait().await, ChildEnd::Lost));
        assert_eq!(handle.counts().children, 0);
        assert!(!handle.add(idle("b")).ready().await);
        handle.shut_down();
    });
}

#[test]
fn a_child_knows_which_run_it_is_in() {
    paused(async || {
        let numbers = crate::support::Log::new();
        let supervisor = Supervisor::new().child({
            let numbers = numbers.clone();
            Child::permanent("a", move |run: Run| {
                numbers.push(run.number());
                async {
                    ringfence::move_on_after(ms(5), token().cancelled()).await;
                }
            })
            .backoff(DELAYS)
        });
        for_a_while(supervisor, 50).await.expect("a shutdown");
        assert_eq!(numbers.entries(), [1, 2, 3]);
    });
}

#[test]
fn a_run_is_one_task_in_a_group_that_is_open() {
    paused(async || {
        let counters = Arc::new(Counters::new());
        let supervisor =
            Supervisor::new()
                .name("one task")
                .child(Diary::new().child("a", 0, &[5, 5]));
        let handle = supervisor.handle();
        let around = Scope::new().observer(counters.clone());
        let run = around.run(async |_: &TaskGroup| Ok(for_a_while(supervisor, 100).await));
        let look = async {
            sleep(ms(90)).await;
            let seen = snapshot().within("one task");
            let [outer, inner] = seen.groups() else {
                panic!("the supervisor and a run: {seen}")
            };
            assert_eq!((outer.children, inner.children), (0, 1), "{seen}");
            assert_eq!((inner.state, outer.id), (GroupState::Open, opener(inner)));
            assert_eq!(inner.tasks[0].name.as_deref(), Some("a"));
            assert_eq!(handle.restarts(), 2);
        };
        let (ended, ()) = tokio::join!(run, look);
        let report = ended.expect("nobody fails").expect("a shutdown");
        let counts = counters.of("one task");
        assert_eq!((counts.spawned, counts.failed, counts.completed), (3, 2, 1));
        assert_eq!((handle.restarts(), report.restarts), (2, 2));
    });
}

fn opener(group: &GroupView) -> u64 {
    let opener = group.opened_in.map(|id| id.to_string());
    let group = opener.as_deref().and_then(|id| id.split('.').next());
    group.and_then(|id| id.parse().ok()).expect("a number")
}
