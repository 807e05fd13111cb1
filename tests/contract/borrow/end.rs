//! How borrowing scopes and their children end.

use std::{future::pending, sync::Arc, time::Duration};

use futures::poll;
use ringfence::{
    BoxError, CancelReason, Cause, Displaced, DisplacedWhat, Ended, Observer, Outcome, Scope,
    TaskInfo, borrow_scope, root, scope, shield, token,
};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use super::{Done, Group, fail, ms};
use crate::support::{
    Count, Drops, Log, OnDrop, PanicOnDrop, Parked, caught, every_runtime, paused, settle, until,
};

#[test]
fn the_first_failure_drops_body_and_siblings_where_they_are_parked() {
    every_runtime(async || {
        let (drops, log) = (Drops::new(), Log::new());
        let error = borrow_scope(async |group: Group<'_>| -> Done {
            let _body = log.on_drop("body");
            group.spawn(Parked::new(&Count::new(), &drops));
            group.spawn(async {
                let _sibling = log.on_drop("sibling");
                pending::<()>().await;
                log.push("reached");
            });
            group.spawn(async {
                yield_now().await;
                fail("lost").await
            });
            pending().await
        })
        .await
        .unwrap_err();
        assert_eq!(error.cause(), &Cause::Failed);
        assert_eq!(error.into_first().ok().as_deref(), Some("lost"));
        assert_eq!((drops.alive(), log.entries().len()), (0, 2));
    });
}

#[test]
fn failures_are_listed_in_their_order_with_name_and_place() {
    every_runtime(async || {
        let error = Scope::new()
            .name("work")
            .run_borrow(async |group: Group<'_>| {
                group.named("first").spawn(fail("a"));
                group.spawn(fail("b")); // in the same round, but cancelled before its poll
                yield_now().await;
                Err::<(), _>("body".to_owned())
            })
            .await
            .unwrap_err();
        let first = error.iter().next().unwrap();
        let task = first.task().unwrap();
        assert_eq!((task.name(), task.group()), (Some("first"), Some("work")));
        assert_eq!(task.location().file(), file!());
        assert_eq!(
            (first.error().map(String::as_str), error.len()),
            (Some("a"), 1)
        );
    });
}

#[test]
fn a_failure_of_the_body_ends_children_that_were_never_polled() {
    every_runtime(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        let error = borrow_scope(async |group: Group<'_>| {
            group.spawn(Parked::new(&polls, &drops));
            Err::<(), _>("body".to_owned())
        })
        .await
        .unwrap_err();
        assert_eq!(error.first().map(String::as_str), Some("body"));
        assert_eq!((polls.get(), drops.made(), drops.alive()), (0, 1, 0));
    });
}

#[test]
fn a_panic_goes_on_in_the_caller_when_all_are_gone() {
    every_runtime(async || {
        let drops = Drops::new();
        let text = caught(borrow_scope(async |group: Group<'_>| -> Done {
            group.spawn(Parked::new(&Count::new(), &drops));
            group.spawn(async {
                yield_now().await;
                panic!("boom");
            });
            pending().await
        }))
        .await
        .unwrap_err();
        assert_eq!((text.as_str(), drops.alive()), ("boom", 0));
    });
}

async fn panics() -> Done {
    panic!("boom")
}

#[test]
fn by_option_a_childs_panic_is_an_entry_of_the_error() {
    every_runtime(async || {
        let error = Scope::new()
            .panics_as_errors()
            .run_borrow(async |group: Group<'_>| {
                let child = group.spawn(async { panics().await });
                let outcome: Outcome<()> = child.outcome().await;
                assert_eq!(outcome, Outcome::Panicked);
                Ok(())
            })
            .await
            .unwrap_err();
        let panic = error.iter().next().and_then(|failure| failure.panic());
        assert_eq!(panic.map(|panic| panic.message()), Some("boom"));
    });
}

#[test]
fn outcomes_say_how_a_child_ended() {
    every_runtime(async || {
        borrow_scope(async |group: Group<'_>| {
            let done = group.spawn(async { Ok(1) });
            let stopped = group.spawn(pending::<()>());
            stopped.cancel();
            assert!(format!("{stopped:?}").contains("cancelling"));
            assert_eq!(done.outcome().await, Outcome::Completed(1));
            assert_eq!(
                stopped.outcome().await,
                Outcome::Cancelled(CancelReason::Handle)
            );
            let ended = group.named("ended").spawn(async { Ok(2) });
            until(|| ended.is_finished()).await;
            let shown = format!("{ended:?}");
            assert!(
                shown.contains("ended") && shown.contains("completed"),
                "{shown}"
            );
            let detached = ended.detached();
            assert_eq!(detached.await, Outcome::Completed(2));
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn awaiting_a_child_that_was_cancelled_ends_the_body_there() {
    every_runtime(async || {
        let log = Log::<&str>::new();
        let error = borrow_scope(async |group: Group<'_>| {
            let child = group.spawn(pending::<()>());
            child.cancel();
            child.await;
            log.push("reached");
            Ok(())
        })
        .await
        .unwrap_err();
        assert!(matches!(
            error.cause(),
            Cause::Cancelled(CancelReason::AwaitedCancelled(_))
        ));
        assert!(log.entries().is_empty());
    });
}

#[test]
fn cancelling_one_child_leaves_the_others() {
    every_runtime(async || {
        let (drops, others) = (Drops::new(), Drops::new());
        let value = borrow_scope(async |group: Group<'_>| {
            let never_polled = group.spawn(Parked::new(&Count::new(), &drops));
            assert!(never_polled.cancel_and_wait().await.is_cancelled());
            let polls = Count::new();
            let parked = group.spawn(Parked::new(&polls, &drops));
            let other = group.spawn_background(Parked::new(&Count::new(), &others));
            until(|| polls.get() == 1).await;
            assert!(parked.cancel_and_wait().await.is_cancelled());
            assert_eq!((drops.alive(), others.alive()), (0, 1));
            drop(other);
            Ok(group.spawn(async { Ok(7) }).await)
        })
        .await;
        assert_eq!(value.unwrap(), 7);
    });
}

#[test]
fn cancel_children_spares_the_body_and_the_group_stays_open() {
    every_runtime(async || {
        let drops = Drops::new();
        let value = borrow_scope(async |group: Group<'_>| {
            let polls = Count::new();
            let parked: Vec<_> = (0..300)
                .map(|_| group.spawn(Parked::new(&polls, &drops)))
                .collect();
            until(|| polls.get() == 300).await;
            group.cancel_children();
            for parked in parked {
                let outcome = parked.outcome().await;
                assert_eq!(outcome, Outcome::Cancelled(CancelReason::ChildrenCancelled));
            }
            assert_eq!((drops.alive(), group.len()), (0, 0));
            Ok(group.spawn(async { Ok(7) }).await)
        })
        .await;
        assert_eq!(value.unwrap(), 7);
    });
}

#[test]
fn a_cancelled_borrowing_scope_reports_the_first_reason() {
    every_runtime(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        let error = borrow_scope(async |group: Group<'_>| -> Done {
            let spawner = group.spawner();
            group.spawn(Parked::new(&polls, &drops));
            group.spawn(async move {
                spawner.cancel_with("first");
                spawner.cancel_with("second");
            });
            pending().await
        })
        .await
        .unwrap_err();
        let Cause::Cancelled(CancelReason::Requested { note, by }) = error.cause() else {
            panic!("{error}");
        };
        assert_eq!((note.as_deref(), by.is_some()), (Some("first"), true));
        assert_eq!((polls.get(), drops.alive(), error.len()), (1, 0, 0));
    });
}

#[test]
fn with_a_grace_children_are_signalled_and_forced_to_the_millisecond() {
    paused(async || {
        let (start, log) = (Instant::now(), Log::new());
        let error = Scope::new()
            .grace(ms(500))
            .run_borrow(async |group: Group<'_>| {
                group.named("deaf").spawn(pending::<()>());
                group.spawn(async {
                    token().cancelled().await;
                    log.push(start.elapsed());
                });
                sleep(ms(100)).await;
                group.cancel();
                Ok(())
            })
            .await
            .unwrap_err();
        assert_eq!((log.entries(), start.elapsed()), (vec![ms(100)], ms(600)));
        let forced: Vec<_> = error
            .forced()
            .iter()
            .map(|one| one.task.as_ref().and_then(TaskInfo::name))
            .collect();
        assert_eq!(forced, [Some("deaf")]);
        assert_eq!(error.forced()[0].age, Some(ms(600)));
    });
}

#[test]
fn with_a_grace_one_child_is_forced_when_its_own_is_over() {
    paused(async || {
        let start = Instant::now();
        Scope::new()
            .grace(ms(500))
            .run_borrow(async |group: Group<'_>| {
                let deaf = group.spawn(pending::<()>());
                let other = group.spawn(sleep(ms(900)));
                sleep(ms(100)).await;
                assert!(deaf.cancel_and_wait().await.is_cancelled());
                assert_eq!(start.elapsed(), ms(600));
                other.await;
                let deaf = group.spawn(pending::<()>());
                group.cancel_children();
                assert!(deaf.outcome().await.is_cancelled());
                assert_eq!(start.elapsed(), ms(1400));
                Ok(())
            })
            .await
            .unwrap();
    });
}

#[test]
fn a_shield_of_one_child_leaves_its_siblings_to_the_force() {
    paused(async || {
        let (start, log, drops) = (Instant::now(), Log::new(), Drops::new());
        let error = borrow_scope(async |group: Group<'_>| -> Done {
            group.spawn(async {
                shield(ms(50), sleep(ms(20))).await;
                log.push("in shield");
                yield_now().await;
                log.push("reached");
            });
            group.spawn(Parked::new(&Count::new(), &drops));
            sleep(ms(10)).await;
            group.cancel();
            yield_now().await;
            log.push("the body went on");
            Ok(())
        })
        .await
        .unwrap_err();
        assert!(error.is_cancelled());
        assert_eq!(
            (log.entries(), start.elapsed(), drops.alive()),
            (vec!["in shield"], ms(20), 0)
        );
    });
}

#[test]
fn a_deadline_ends_the_children_and_says_so() {
    paused(async || {
        let (start, drops) = (Instant::now(), Drops::new());
        let error = Scope::new()
            .deadline(start + ms(250))
            .run_borrow(async |group: Group<'_>| {
                group.spawn(Parked::new(&Count::new(), &drops));
                Ok(())
            })
            .await
            .unwrap_err();
        assert!(error.is_deadline_exceeded());
        assert_eq!((start.elapsed(), drops.alive()), (ms(250), 0));
    });
}

#[test]
fn a_dropped_borrowing_scope_has_dropped_everything() {
    every_runtime(async || {
        let (drops, orphans) = (Drops::new(), root().orphans());
        let polls = Count::new();
        let mut dropped = Box::pin(borrow_scope(async |group: Group<'_>| -> Done {
            let _guard = drops.guard();
            for _ in 0..200 {
                group.spawn(Parked::new(&polls, &drops));
            }
            until(|| polls.get() == 200).await;
            group.spawn(Parked::new(&polls, &drops)); // never polled
            pending().await
        }));
        while polls.get() < 200 {
            assert!(poll!(&mut dropped).is_pending());
        }
        drop(dropped);
        assert_eq!((drops.alive(), root().orphans()), (0, orphans));
    });
}

/// A parallel scope that is dropped at its first await, with a child that waits for `gate` in a destructor's place.
async fn dropped_inside(drops: &Drops, gate: Duration) {
    let slow = drops.clone();
    let inner = Scope::new()
        .grace(gate)
        .run(async |group: &ringfence::TaskGroup| {
            let guard = slow.guard();
            group.spawn(async move {
                let _guard = guard;
                pending::<()>().await;
            });
            pending::<Result<(), BoxError>>().await
        });
    let mut inner = Box::pin(inner);
    assert!(poll!(&mut inner).is_pending());
    yield_now().await; // the child is parked
    drop(inner);
}

#[test]
fn a_child_that_dropped_a_scope_ends_after_the_children_of_that() {
    every_runtime(async || {
        let drops = Drops::new();
        borrow_scope(async |group: Group<'_>| {
            let child = group.spawn(async {
                dropped_inside(&drops, Duration::ZERO).await;
                Ok(3)
            });
            assert_eq!(child.await, 3);
            assert_eq!((drops.made(), drops.alive()), (1, 0));
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn what_a_dropped_borrowing_scope_had_adopted_goes_to_its_owner() {
    every_runtime(async || {
        let drops = Drops::new();
        scope(async |group: &ringfence::TaskGroup<String>| {
            let inside = drops.clone();
            let child = group.spawn(async move {
                let mut scope = Box::pin(borrow_scope(async |group: Group<'_>| {
                    group.spawn(async {
                        dropped_inside(&inside, Duration::ZERO).await;
                        pending::<()>().await;
                    });
                    Ok(())
                }));
                while inside.made() == 0 {
                    assert!(poll!(&mut scope).is_pending());
                    yield_now().await;
                }
                assert!(poll!(&mut scope).is_pending());
                drop(scope); // the inner parallel scope may still have its child
                Ok(())
            });
            child.await;
            assert_eq!(
                (drops.made(), drops.alive()),
                (1, 0),
                "gone before its owner"
            );
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn without_an_owner_what_was_adopted_goes_to_the_root() {
    paused(async || {
        let drops = Drops::new();
        let mut dropped = Box::pin(borrow_scope(async |group: Group<'_>| -> Done {
            group.spawn(async {
                let mut inner = Box::pin(scope(
                    async |group: &ringfence::TaskGroup| -> Result<(), BoxError> {
                        let guard = drops.guard();
                        group.spawn(async move {
                            let _guard = guard;
                            pending::<()>().await;
                        });
                        pending().await
                    },
                ));
                assert!(poll!(&mut inner).is_pending());
                pending::<()>().await;
            });
            pending().await
        }));
        assert!(poll!(&mut dropped).is_pending());
        drop(dropped);
        assert_eq!((drops.alive(), root().orphans()), (1, 1));
        root().wait(ms(10)).await.unwrap();
        assert_eq!(drops.alive(), 0);
    });
}

#[test]
fn a_destructor_that_spawns_is_served_as_the_group_stands() {
    every_runtime(async || {
        let (served, refused) = (Count::new(), Count::new());
        borrow_scope(async |group: Group<'_>| {
            let (spawner, served) = (group.spawner(), &served);
            group.spawn(async move {
                let _spawns = OnDrop::new(move || {
                    drop(spawner.spawn(async move {
                        served.add();
                    }));
                });
            });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(served.get(), 1, "the group was open");
        let error = borrow_scope(async |group: Group<'_>| -> Done {
            let (spawner, refused) = (group.spawner(), &refused);
            group.spawn(async move {
                let _spawns = OnDrop::new(move || {
                    assert!(spawner.try_spawn(pending::<()>()).is_err());
                    refused.add();
                });
                pending::<()>().await;
            });
            yield_now().await;
            group.cancel();
            pending().await
        })
        .await
        .unwrap_err();
        assert!(error.is_cancelled() && error.is_empty());
        assert_eq!(refused.get(), 1);
        // Dropped with its children: nobody joins them any more.
        let refused = Count::new();
        let mut dropped = Box::pin(borrow_scope(async |group: Group<'_>| -> Done {
            let (spawner, refused) = (group.spawner(), &refused);
            group.spawn(async move {
                let token = token();
                let _spawns = OnDrop::new(move || {
                    assert_eq!(token.reason(), Some(CancelReason::ScopeDropped));
                    assert!(spawner.try_spawn(pending::<()>()).is_err());
                    refused.add();
                });
                pending::<()>().await;
            });
            pending().await
        }));
        assert!(poll!(&mut dropped).is_pending());
        drop(dropped);
        assert_eq!(refused.get(), 1);
    });
}

#[test]
fn a_destructor_that_panics_is_a_panic_of_that_child_alone() {
    every_runtime(async || {
        let drops = Drops::new();
        let error = Scope::new()
            .panics_as_errors()
            .run_borrow(async |group: Group<'_>| -> Done {
                group.named("bomb").spawn(async {
                    let _bomb = PanicOnDrop("dropped");
                    yield_now().await;
                });
                group.named("parked").spawn(async {
                    let (_guard, _bomb) = (drops.guard(), PanicOnDrop("forced"));
                    pending::<()>().await;
                });
                group.spawn(Parked::new(&Count::new(), &drops));
                pending().await
            })
            .await
            .unwrap_err();
        let entries: Vec<_> = error
            .iter()
            .map(|one| {
                (
                    one.task().and_then(TaskInfo::name),
                    one.panic().map(|it| it.message()),
                )
            })
            .collect();
        assert_eq!(
            entries,
            [
                (Some("bomb"), Some("dropped")),
                (Some("parked"), Some("forced"))
            ]
        );
        assert_eq!(drops.alive(), 0);
    });
}

#[derive(Default)]
struct Ends {
    spawned: Count,
    ended: Log<Ended>,
    displaced: Log<String>,
}

impl Observer for Ends {
    fn spawned(&self, _: &TaskInfo) {
        self.spawned.add();
    }
    fn ended(&self, _: &TaskInfo, how: &Ended) {
        self.ended.push(how.clone());
    }
    fn displaced(&self, what: &Displaced) {
        self.displaced.push(match &what.what {
            DisplacedWhat::Panic(panic) => panic.message().to_owned(),
            other => format!("{other:?}"),
        });
    }
}

#[test]
fn the_observer_hears_of_each_borrowing_child_once() {
    every_runtime(async || {
        let ends = Arc::new(Ends::default());
        let scope = Scope::new().observer(ends.clone());
        let text = caught(scope.run_borrow(async |group: Group<'_>| -> Done {
            group.spawn(async { Ok(PanicOnDrop("a value that nobody takes")) });
            group.spawn(pending::<()>());
            yield_now().await;
            settle().await;
            group.spawn(async {
                let _second = PanicOnDrop("in the destructor of a forced child");
                pending::<()>().await;
            });
            group.spawn(async {
                yield_now().await;
                panic!("first");
            });
            pending().await
        }))
        .await
        .unwrap_err();
        assert_eq!((text.as_str(), ends.spawned.get()), ("first", 4));
        let ended = ends.ended.entries();
        let count = |how: &str| {
            ended
                .iter()
                .filter(|one| format!("{one:?}").starts_with(how))
                .count()
        };
        assert_eq!(
            (count("Completed"), count("Panicked"), count("Cancelled")),
            (1, 2, 1)
        );
        let mut displaced = ends.displaced.entries();
        displaced.sort();
        assert_eq!(
            displaced,
            [
                "a value that nobody takes",
                "in the destructor of a forced child"
            ]
        );
        let ends = Arc::new(Ends::default());
        let scope = Scope::new().observer(ends.clone());
        let mut dropped = Box::pin(scope.run_borrow(async |group: Group<'_>| -> Done {
            group.spawn(pending::<()>());
            pending().await
        }));
        assert!(poll!(&mut dropped).is_pending());
        drop(dropped);
        let dropped = Ended::Cancelled(CancelReason::ScopeDropped);
        assert_eq!(ends.ended.entries(), [dropped]);
    });
}
