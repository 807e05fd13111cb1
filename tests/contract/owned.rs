//! Long-lived groups: a struct owns one, shuts it down, or drops it.

use std::{
    fs::{self, File},
    future::pending,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    pin::pin,
    time::Duration,
};

use futures::{FutureExt, poll};
use ringfence::{
    CancelReason, Outcome, OwnedGroup, Report, Scope, TaskGroup, root, scope, shield, timeout,
    token,
};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::yield_now,
    time::{Instant, sleep},
};

use crate::support::{
    Count, Drops, Log, Parked, caught, current_thread, every_runtime, every_runtime_in_a_task,
    paused, settle, single_thread, spawn, until,
};

type Group = TaskGroup<String>;
type Owned = OwnedGroup<String>;
type Done = Result<(), String>;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A group with so many parked children.
async fn parked(children: usize, drops: &Drops) -> Owned {
    let (group, polls) = (Owned::new(), Count::new());
    for _ in 0..children {
        group.spawn(Parked::new(&polls, drops));
    }
    until(|| polls.get() == children).await;
    group
}

fn texts(report: &Report<String>) -> Vec<String> {
    let failures = report.failures().iter();
    let text = |failure: &ringfence::Failure<String>| match (failure.error(), failure.panic()) {
        (Some(error), _) => error.clone(),
        (_, Some(panic)) => format!("panicked: {panic}"),
        _ => "nothing".to_owned(),
    };
    failures.map(text).collect()
}

#[test]
fn its_handles_yield_the_outcome() {
    every_runtime(async || {
        let group = Owned::new();
        let completed = group.spawn(async { Ok(3) });
        assert_eq!(completed.await, Outcome::Completed(3));
        let cancelled = group.spawn(pending::<()>());
        cancelled.cancel();
        assert_eq!(cancelled.await, Outcome::Cancelled(CancelReason::Handle));
        assert!(group.is_open(), "one child was cancelled alone");
        let failed = group.spawn(async { Err::<(), _>("no".to_owned()) });
        assert_eq!(failed.await, Outcome::Failed);
        assert!(!group.wait().await.is_clean());
    });
}

#[test]
fn it_is_open_as_long_as_its_owner_wants() {
    every_runtime(async || {
        let group = Owned::new();
        for _ in 0..3 {
            group.spawn(yield_now()).await;
            until(|| group.is_empty()).await;
            assert!(group.is_open());
        }
        let handles = [(); 3].map(|()| group.spawn(pending::<()>()));
        assert_eq!((group.len(), group.is_empty()), (3, false));
        handles.iter().for_each(ringfence::OutcomeHandle::cancel);
        let report = group.wait().await;
        assert!(report.is_clean() && report.cancelled().is_none());
        assert_eq!(report.to_string(), "task group ended");
    });
}

#[test]
fn a_struct_can_own_it_and_move_between_tasks() {
    every_runtime_in_a_task(|| async {
        struct Server {
            connections: Owned,
        }
        let server = Server {
            connections: OwnedGroup::with_name("connections"),
        };
        let handle = server.connections.spawn(async { Ok(1) });
        let elsewhere = spawn(async move {
            server.connections.spawn(async {});
            server.connections.wait().await
        });
        assert!(elsewhere.await.expect("it does not panic").is_clean());
        assert_eq!(handle.await, Outcome::Completed(1));
    });
}

#[test]
fn a_failure_closes_it_and_cancels_the_others() {
    every_runtime(async || {
        let drops = Drops::new();
        let group = parked(3, &drops).await;
        group.spawn(async { Err::<(), _>("no".to_owned()) });
        until(|| drops.alive() == 0).await;
        assert!(group.is_cancelled() && !group.is_open());
        assert!(group.try_spawn(async {}).is_err());
        let report = group.wait().await;
        assert_eq!(texts(&report), ["no"]);
    });
}

#[test]
fn the_report_of_a_group_in_which_nothing_happened_is_clean() {
    every_runtime(async || {
        let report = Owned::new().wait().await;
        assert!(report.is_clean() && report.cancelled().is_none());
        assert!(report.into_result().is_ok());
    });
}

#[test]
fn the_report_has_every_failure_and_panic_in_order() {
    paused(async || {
        let group = Owned::new();
        for (place, time) in [30, 10, 20].into_iter().enumerate() {
            group.spawn(async move {
                token().cancelled().await;
                sleep(ms(time)).await;
                assert!(place != 2, "thrown at {time}");
                Err::<(), _>(format!("failed at {time}"))
            });
        }
        let report = group.shutdown(ms(100)).await;
        let expected = ["failed at 10", "panicked: thrown at 20", "failed at 30"];
        assert_eq!(texts(&report), expected);
        assert!(!report.is_clean());
        let error = report.into_result().expect_err("they failed");
        assert_eq!((error.len(), error.is_cancelled()), (3, true));
    });
}

#[test]
fn the_report_keeps_what_happened_before_the_shutdown() {
    paused(async || {
        let group = Owned::new();
        group.spawn(async { Err::<(), _>("early".to_owned()) });
        settle().await;
        let report = group.shutdown(ms(100)).await;
        assert_eq!(texts(&report), ["early"]);
        assert_eq!(report.cancelled(), None, "it had failed before");
        assert!(report.to_string().contains("early"), "{report}");
    });
}

#[test]
fn shutdown_signals_waits_the_grace_forces_and_names_those_who_needed_it() {
    paused(async || {
        let (group, log) = (Owned::new(), Log::new());
        let began = Instant::now();
        let polite = log.clone();
        group.spawn(async move {
            token().cancelled().await;
            sleep(ms(10)).await;
            polite.push(("polite", began.elapsed()));
        });
        let deaf = log.clone();
        group.spawn(async move {
            let _gone = crate::support::OnDrop::new(move || deaf.push(("deaf", began.elapsed())));
            sleep(Duration::from_secs(3600)).await;
        });
        settle().await;
        let report = group.shutdown(ms(50)).await;
        assert_eq!(log.entries(), [("polite", ms(10)), ("deaf", ms(50))]);
        assert_eq!(began.elapsed(), ms(50));
        let [forced] = report.forced() else {
            panic!("{report:?}")
        };
        assert_eq!(forced.reason, CancelReason::Shutdown);
        assert_eq!(forced.age, Some(ms(50)));
        assert_eq!(report.cancelled(), Some(&CancelReason::Shutdown));
        assert!(report.into_result().is_ok(), "nobody failed");
    });
}

#[test]
fn shutdown_is_over_when_everybody_has_ended_within_the_grace() {
    paused(async || {
        let group = Owned::new();
        group.spawn(async {
            token().cancelled().await;
            sleep(ms(7)).await;
        });
        settle().await;
        let began = Instant::now();
        assert!(group.shutdown(Duration::MAX).await.is_clean());
        assert_eq!(began.elapsed(), ms(7));
    });
}

#[test]
fn a_grace_of_zero_drops_everything_where_it_is_parked() {
    every_runtime(async || {
        let drops = Drops::new();
        let group = parked(10, &drops).await;
        let report = group.shutdown(Duration::ZERO).await;
        assert_eq!(drops.alive(), 0);
        assert!(report.is_clean(), "nobody had a grace to outlast");
    });
}

#[test]
fn whatever_is_left_when_the_grace_is_over_is_gone_when_shutdown_returns() {
    every_runtime_in_a_task(|| async {
        let drops = Drops::new();
        let group = parked(10, &drops).await;
        let report = group.shutdown(ms(1)).await;
        assert_eq!((drops.alive(), report.forced().len()), (0, 10));
    });
}

#[test]
fn wait_lets_the_children_finish() {
    paused(async || {
        let group = Owned::new();
        let handle = group.spawn(async {
            sleep(ms(10)).await;
            Ok(token().is_cancelled())
        });
        let background = group.spawn_background(pending::<()>());
        let (began, spawner) = (Instant::now(), group.spawner());
        let mut waits = pin!(group.wait());
        assert!(poll!(waits.as_mut()).is_pending());
        assert!(!spawner.is_open(), "it takes no more");
        assert!(waits.await.is_clean());
        assert_eq!(began.elapsed(), ms(10));
        assert_eq!(handle.await, Outcome::Completed(false));
        let finished = Outcome::Cancelled(CancelReason::Finished);
        assert_eq!(background.await, finished);
    });
}

#[test]
fn close_refuses_newcomers_for_ever_and_leaves_those_present() {
    paused(async || {
        let (group, polls, drops) = (Owned::new(), Count::new(), Drops::new());
        let present = group.spawn(async {
            sleep(ms(10)).await;
            Ok(token().is_cancelled())
        });
        let spawner = group.spawner();
        group.close();
        group.close();
        for _ in 0..2 {
            let refused = group.try_spawn(Parked::new(&polls, &drops));
            let refused = refused.expect_err("it is closed");
            assert_eq!(refused.reason(), &CancelReason::Closed);
            drop(refused.into_inner());
            assert!(!group.is_open() && !spawner.is_open());
            assert!(group.guard().is_err() && spawner.guard().is_err());
            let outcome = spawner.spawn(Parked::new(&polls, &drops)).await;
            assert_eq!(outcome, Outcome::Cancelled(CancelReason::Closed));
            sleep(ms(20)).await; // the second time nobody is left
        }
        assert!(!group.is_cancelled());
        assert_eq!((polls.get(), drops.alive()), (0, 0));
        assert_eq!(present.await, Outcome::Completed(false));
        assert!(group.wait().await.is_clean());
    });
}

#[test]
fn spawning_after_the_shutdown_is_refused_with_the_reason() {
    every_runtime(async || {
        let group = Owned::new();
        let spawner = group.spawner();
        group.shutdown(Duration::ZERO).await;
        let polls = Count::new();
        let refused = spawner.try_spawn(Parked::new(&polls, &Drops::new()));
        assert_eq!(
            refused.expect_err("it is over").reason(),
            &CancelReason::Shutdown
        );
        assert_eq!(polls.get(), 0);
    });
}

#[test]
fn spawning_during_the_grace_is_refused() {
    paused(async || {
        let group = Owned::new();
        let spawner = group.spawner();
        group.spawn(async move {
            token().cancelled().await;
            assert!(spawner.try_spawn(async {}).is_err());
        });
        settle().await;
        assert!(group.shutdown(ms(10)).await.is_clean());
    });
}

#[test]
fn dropped_it_cancels_its_children_and_the_task_that_dropped_it_waits() {
    every_runtime(async || {
        let drops = Drops::new();
        let result = scope(async |group: &Group| -> Done {
            let counted = drops.clone();
            let handle = group.spawn(async move {
                drop(parked(5, &counted).await);
            });
            handle.await;
            assert_eq!((drops.made(), drops.alive()), (5, 0));
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!(root().orphans(), 0);
    });
}

#[test]
fn dropped_in_a_body_the_scope_waits() {
    every_runtime(async || {
        let drops = Drops::new();
        let result = scope(async |_: &Group| -> Done {
            drop(parked(5, &drops).await);
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!((drops.made(), drops.alive()), (5, 0));
        assert_eq!(root().orphans(), 0);
    });
}

#[test]
fn dropped_outside_every_group_the_root_waits() {
    every_runtime(async || {
        let drops = Drops::new();
        drop(parked(5, &drops).await);
        let patience = crate::support::PATIENCE;
        root().wait(patience).await.expect("nobody stays");
        assert_eq!((drops.made(), drops.alive()), (5, 0));
    });
}

#[test]
fn dropped_by_a_child_of_its_own_it_ends() {
    every_runtime(async || {
        let drops = Drops::new();
        let (give, given) = oneshot::channel::<Owned>();
        let group = parked(5, &drops).await;
        let guard = drops.guard();
        group.spawn(async move {
            let _guard = guard;
            let own = given.await.expect("it is sent");
            drop(own);
            pending::<()>().await;
        });
        give.send(group).expect("somebody waits for it");
        until(|| drops.alive() == 0).await;
        let patience = crate::support::PATIENCE;
        root()
            .wait(patience)
            .await
            .expect("nobody waits for itself");
    });
}

#[test]
fn what_the_children_of_a_dropped_group_fail_with_goes_to_the_observer() {
    use ringfence::{Displaced, Observer};
    #[derive(Default)]
    struct Notes(Log<String>);
    impl Observer for Notes {
        fn displaced(&self, what: &Displaced) {
            self.0.push(what.to_string());
        }
    }
    paused(async || {
        let notes = std::sync::Arc::new(Notes::default());
        let run = Scope::new().observer(notes.clone());
        let result = run.run(async |_: &Group| -> Done {
            let inside = Owned::new();
            inside.spawn(async { Err::<(), _>("nobody hears".to_owned()) });
            settle().await;
            drop(inside);
            Ok(())
        });
        result.await.expect("it does not fail its owner");
        assert_eq!(notes.0.entries().len(), 1);
    });
}

#[test]
fn a_group_that_leaves_the_scope_it_was_made_in_goes_on() {
    paused(async || {
        let made = scope(async |_: &Group| {
            let group = Owned::new();
            let handle = group.spawn(async {
                sleep(ms(10)).await;
                Ok(5)
            });
            Ok((group, handle))
        });
        let (group, handle) = made.await.expect("nobody fails");
        assert_eq!(handle.await, Outcome::Completed(5));
        let late = group.spawn(pending::<()>());
        settle().await;
        drop(group);
        assert!(late.await.is_cancelled());
        root()
            .wait(ms(1))
            .await
            .expect("the scope has closed before");
    });
}

#[test]
fn a_shutdown_that_is_never_polled_is_a_drop() {
    every_runtime(async || {
        let drops = Drops::new();
        let group = parked(5, &drops).await;
        drop(group.shutdown(Duration::from_secs(3600)));
        until(|| drops.alive() == 0).await;
    });
}

#[test]
fn a_shutdown_dropped_within_its_grace_cancels_at_once_and_the_owner_waits() {
    paused(async || {
        let drops = Drops::new();
        let began = Instant::now();
        let result = scope(async |group: &Group| -> Done {
            let counted = drops.clone();
            let handle = group.spawn(async move {
                let down = parked(5, &counted).await.shutdown(ms(1000));
                assert!(timeout(ms(20), down).await.is_err());
            });
            handle.await;
            assert_eq!(drops.alive(), 0);
            Ok(())
        });
        result.await.expect("nobody fails");
        assert_eq!(began.elapsed(), ms(20));
    });
}

#[test]
fn a_wait_that_is_dropped_cancels_at_once() {
    paused(async || {
        let drops = Drops::new();
        let group = parked(5, &drops).await;
        assert!(timeout(ms(20), group.wait()).await.is_err());
        root().wait(ms(1)).await.expect("nobody stays");
        assert_eq!(drops.alive(), 0);
    });
}

#[test]
fn the_grace_around_a_shutdown_ends_it_too() {
    paused(async || {
        let drops = Drops::new();
        let began = Instant::now();
        let run = Scope::new().grace(ms(30));
        let result = run.run(async |group: &Group| -> Done {
            let counted = drops.clone();
            group.named("owner").spawn(async move {
                let inside = parked(2, &counted).await;
                token().cancelled().await;
                inside.shutdown(ms(1000)).await;
            });
            settle().await;
            group.cancel();
            Ok(())
        });
        let error = result.await.expect_err("cancelled");
        assert_eq!((drops.alive(), began.elapsed()), (0, ms(30)));
        let names: Vec<_> = error.forced().iter().map(|forced| forced.name()).collect();
        assert!(names.contains(&Some("owner")), "{names:?}");
    });
}

#[test]
fn a_cancel_during_the_grace_changes_nothing() {
    paused(async || {
        let group = Owned::new();
        let spawner = group.spawner();
        group.spawn(async move {
            token().cancelled().await;
            spawner.cancel();
            sleep(ms(10)).await;
        });
        group.spawn(pending::<()>());
        settle().await;
        let began = Instant::now();
        let report = group.shutdown(ms(50)).await;
        assert_eq!(report.cancelled(), Some(&CancelReason::Shutdown));
        assert_eq!((report.forced().len(), began.elapsed()), (1, ms(50)));
    });
}

#[test]
fn a_failure_during_the_grace_does_not_cut_it_short() {
    paused(async || {
        let group = Owned::new();
        group.spawn(async {
            token().cancelled().await;
            Err::<(), _>("on the way out".to_owned())
        });
        let polite = group.spawn(async {
            token().cancelled().await;
            sleep(ms(10)).await;
            Ok(())
        });
        settle().await;
        let report = group.shutdown(ms(50)).await;
        assert_eq!(texts(&report), ["on the way out"]);
        assert!(polite.await.is_completed());
    });
}

#[test]
fn a_background_child_that_ignores_the_cancel_for_an_hour_is_forced_after_the_grace() {
    paused(async || {
        let began = Instant::now();
        let run = Scope::new().grace(ms(250));
        let result = run.run(async |group: &Group| -> Done {
            group.spawn_background(sleep(Duration::from_secs(3600)));
            sleep(ms(5)).await;
            Err("the body".to_owned())
        });
        let error = result.await.expect_err("it failed");
        assert_eq!(began.elapsed(), ms(255));
        assert_eq!(error.first().map(String::as_str), Some("the body"));
        let [forced] = error.forced() else {
            panic!("{error:?}")
        };
        assert_eq!(forced.age, Some(ms(255)));
    });
}

#[test]
fn a_guard_holds_the_group_like_a_child() {
    paused(async || {
        let group = Owned::new();
        let guard = group.guard().expect("it is open");
        assert_eq!(group.len(), 1);
        let began = Instant::now();
        spawn(async move {
            sleep(ms(20)).await;
            drop(guard);
        });
        assert!(group.wait().await.is_clean());
        assert_eq!(began.elapsed(), ms(20));
    });
}

#[test]
fn a_guard_is_told_of_the_shutdown_and_is_not_forced() {
    paused(async || {
        let group = Owned::new();
        let guard = group.spawner().guard().expect("it is open");
        let drops = Drops::new();
        group.spawn(Parked::new(&Count::new(), &drops));
        let (log, seen) = (Log::new(), drops.clone());
        let told = log.clone();
        let began = Instant::now();
        spawn(async move {
            guard.token().cancelled().await;
            told.push(("told", began.elapsed(), seen.alive()));
            sleep(ms(80)).await; // beyond the grace
            told.push(("let go", began.elapsed(), seen.alive()));
            drop(guard);
        });
        settle().await;
        let report = group.shutdown(ms(30)).await;
        assert_eq!(log.entries(), [("told", ms(0), 1), ("let go", ms(80), 0)]);
        assert_eq!((report.forced().len(), began.elapsed()), (1, ms(80)));
    });
}

#[test]
fn a_guard_holds_a_group_that_was_dropped() {
    paused(async || {
        let group = Owned::new();
        let guard = group.guard().expect("it is open");
        drop(group);
        assert_eq!(root().orphans(), 1);
        assert!(root().wait(ms(5)).await.is_err());
        assert!(guard.token().is_cancelled());
        drop(guard);
        root().wait(ms(1)).await.expect("nobody is left");
    });
}

#[test]
fn it_inherits_name_and_deadline_where_it_is_made() {
    use ringfence::Deadline;
    paused(async || {
        let at = Deadline::after(ms(50));
        let run = Scope::new().name("outer").deadline(at);
        let result = run.run(async |_: &Group| -> Done {
            let group = OwnedGroup::<String>::with_name("inner");
            let handle = group.spawn(async { Ok(Deadline::current()) });
            assert_eq!(handle.await, Outcome::Completed(at));
            group.spawn(async { Err::<(), _>("no".to_owned()) });
            let error = group.wait().await.into_result().expect_err("it failed");
            assert_eq!(error.group(), Some("outer/inner"));
            Ok(())
        });
        result.await.expect("nobody else fails");
    });
}

#[test]
fn its_own_name_is_one_thing_and_that_of_a_child_another() {
    every_runtime(async || {
        let group = OwnedGroup::<String>::with_name("pool");
        let failing = async { Err::<(), _>("no".to_owned()) };
        group.named("reader").spawn(failing).await;
        let error = group.wait().await.into_result().expect_err("it failed");
        assert_eq!(error.group(), Some("pool"));
        let task = error.iter().next().and_then(|failure| failure.task());
        assert_eq!(task.and_then(|task| task.name()), Some("reader"));
    });
}

#[test]
fn made_in_a_runtime_it_can_be_used_and_dropped_outside() {
    let (runtime, drops) = (current_thread(), Drops::new());
    let group = runtime.block_on(async { Owned::new() });
    group.spawn(Parked::new(&Count::new(), &drops));
    runtime.block_on(settle());
    assert_eq!(drops.alive(), 1);
    drop(group);
    runtime
        .block_on(async { root().wait(ms(1000)).await })
        .expect("nobody stays");
    assert_eq!(drops.alive(), 0);
}

#[test]
fn made_outside_every_runtime_it_takes_that_of_who_spawns() {
    let group = Owned::new();
    current_thread().block_on(async {
        assert_eq!(group.spawn(async { Ok(1) }).await, Outcome::Completed(1));
    });
    let report = group.wait().now_or_never();
    assert!(report.expect("there is nothing to wait for").is_clean());
}

#[test]
#[should_panic(expected = "cannot spawn a child outside a tokio runtime")]
fn outside_every_runtime_a_spawn_is_refused_at_the_caller() {
    Owned::new().spawn(async {});
}

#[test]
fn a_runtime_that_goes_away_is_in_the_report() {
    let other = current_thread();
    let (group, drops) = (other.block_on(async { Owned::new() }), Drops::new());
    let handle = group.spawn(Parked::new(&Count::new(), &drops));
    other.block_on(settle());
    drop(other);
    assert_eq!(drops.alive(), 0);
    current_thread().block_on(async {
        assert_eq!(handle.await, Outcome::RuntimeGone);
        let report = group.shutdown(ms(10)).await;
        assert_eq!(report.cancelled(), Some(&CancelReason::RuntimeGone));
    });
}

/// A file that stands for a lock: whoever makes it has it, and takes it away in the end.
struct LockFile(PathBuf);

impl LockFile {
    fn take(path: &std::path::Path) -> std::io::Result<Self> {
        File::create_new(path)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // The next one to take it says if this went wrong.
        drop(fs::remove_file(&self.0));
    }
}

#[test]
fn ports_and_lock_files_are_free_when_shutdown_returns() {
    single_thread(async || {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let first = TcpListener::bind(any).await.expect("a port");
        let address = first.local_addr().expect("it has one");
        drop(first);
        let name = format!("ringfence-{}.lock", std::process::id());
        let path = std::env::temp_dir().join(name);
        for round in 0..10_000 {
            let group = OwnedGroup::<std::io::Error>::new();
            let held = path.clone();
            let (tell, told) = oneshot::channel();
            let server = group.spawn(async move {
                let listener = TcpListener::bind(address).await?;
                let _lock = LockFile::take(&held)?;
                tell.send(())
                    .map_err(|()| std::io::Error::other("nobody listens"))?;
                loop {
                    listener.accept().await?;
                }
                #[expect(unreachable_code, reason = "it says what the child returns")]
                Ok(())
            });
            told.await
                .unwrap_or_else(|_| panic!("round {round}: {server:?}"));
            let report = group.shutdown(Duration::ZERO).await;
            assert!(report.is_clean(), "round {round}: {report:?}");
        }
        assert!(LockFile::take(&path).is_ok());
    });
}

#[test]
fn a_drop_between_any_two_polls_of_the_shutdown_leaves_nothing() {
    paused(async || {
        let drops = Drops::new();
        for polls in 0..6 {
            let group = parked(3, &drops).await;
            {
                let mut down = pin!(group.shutdown(ms(2)));
                for _ in 0..polls {
                    if poll!(down.as_mut()).is_ready() {
                        break;
                    }
                    sleep(ms(1)).await;
                }
            }
            root().wait(ms(1)).await.expect("nobody stays");
            assert_eq!(drops.alive(), 0);
        }
    });
}

#[test]
fn a_group_that_is_waited_for_in_its_own_child_says_so() {
    paused(async || {
        let group = OwnedGroup::<String>::new();
        let spawner = group.spawner();
        let child = spawner.spawn(async move {
            let said = caught(group.wait()).await.map(|_| ());
            assert!(said.is_err_and(|text| text.contains("in a child of its own")));
        });
        assert!(child.await.is_completed());
    });
}

#[test]
fn the_report_names_who_outlasted_what_although_nobody_failed() {
    paused(async || {
        let group = Owned::new();
        let child = group.spawner().named("slow");
        let child = child.spawn(async { shield(ms(10), pending::<()>()).await });
        yield_now().await;
        child.cancel();
        let report = group.wait().await;
        assert!(!report.is_clean());
        assert_eq!(report.forced()[0].name(), Some("slow"));
        assert_eq!(report.cancelled(), None);
        assert_eq!(report.to_string(), "task group ended (1 had to be forced)");
        report.into_result().expect("nobody failed");
    });
}
