//! What a helper has in its hands when it gives its answer, and nobody takes.

use std::{cell::Cell, future::pending, sync::Arc};

use ringfence::{Displaced, DisplacedWhat, Observer, Scope, TaskGroup, scope, shield};
use tokio::time::sleep;

use super::{Done, Group, after, ms};
use crate::support::{Drops, Log, paused};

/// Writes down what is displaced.
struct Hears(Log<String>);

impl Observer for Hears {
    fn displaced(&self, displaced: &Displaced) {
        self.0.push(match &displaced.what {
            DisplacedWhat::Panic(panic) => format!("panic {panic}"),
            DisplacedWhat::Error(error) => format!("error {:?}", error.downcast_ref::<u64>()),
            DisplacedWhat::Overlooked(error) => {
                format!("overlooked {:?}", error.downcast_ref::<u64>())
            }
            _ => unreachable!("there are three kinds"),
        });
    }
}

/// Runs a body, and returns what was displaced.
async fn hears(body: impl AsyncFnOnce(&Group) -> Done) -> Vec<String> {
    let log = Log::new();
    let run = Scope::new().observer(Arc::new(Hears(log.clone())));
    run.run(body).await.expect("nobody fails");
    log.entries()
}

/// A value that panics when it is dropped, unless it is the first.
#[derive(Debug)]
struct Throws(u64);

impl Drop for Throws {
    fn drop(&mut self) {
        assert_eq!(self.0, 0);
    }
}

fn thrown(displaced: &[String]) -> usize {
    let is_thrown = |it: &&String| it.starts_with("panic assertion");
    displaced.iter().filter(is_thrown).count()
}

#[test]
fn losers_whose_results_throw_cost_the_winner_nothing() {
    paused(async || {
        let displaced = hears(async |group: &Group| {
            let all = (0..3).map(|n| after(5, Throws(n)));
            assert_eq!(group.first(all).await.map(|it| it.0), Some(0));
            let fail = (0..3).map(async |n| if n == 2 { Ok(n) } else { Err(Throws(n + 1)) });
            assert_eq!(group.first_ok(fail).await.ok(), Some(2));
            Ok(())
        });
        assert_eq!(thrown(&displaced.await), 4);
    });
}

#[test]
fn values_that_throw_under_an_error_are_dropped_one_by_one() {
    paused(async || {
        let displaced = hears(async |group: &Group| {
            let value = |n| after(n, Ok(Throws(n)));
            let fails = after(9, Err::<Throws, _>("lost"));
            let joined = group.try_join((value(1), value(2), fails)).await;
            assert_eq!(joined.err(), Some("lost"));
            let ends = [Ok(Throws(1)), Ok(Throws(2)), Err("lost")];
            let all = ends.into_iter().enumerate();
            let all = all.map(|(n, end)| after(n as u64, end));
            assert_eq!(group.try_join_all(all).await.err(), Some("lost"));
            Ok(())
        });
        assert_eq!(thrown(&displaced.await), 4);
    });
}

#[test]
fn a_helper_that_is_cut_drops_what_it_has_one_by_one() {
    paused(async || {
        let displaced = hears(async |group: &Group| {
            let mut left = group.as_completed((0..3).map(async |n| Throws(n)));
            let first = left.next().await.and_then(|(_, it)| it.completed());
            assert_eq!(first.map(|it| it.0), Some(0));
            sleep(ms(1)).await;
            drop(left);
            let waits = group.settle_all((1..4).map(async |n| {
                if n == 3 {
                    pending::<()>().await;
                }
                Throws(n)
            }));
            assert!(ringfence::timeout(ms(5), waits).await.is_err());
            Ok(())
        });
        assert_eq!(thrown(&displaced.await), 4);
    });
}

#[test]
fn futures_that_were_never_started_may_throw() {
    paused(async || {
        let displaced = hears(async |group: &Group| {
            let last = Throws(1);
            let mut made = [1].into_iter();
            let futures = std::iter::from_fn(move || {
                let _captured = &last;
                made.next().map(|n| async move { Ok::<_, u64>(n) })
            });
            assert_eq!(group.staggered(ms(5), futures).await, Ok(1));
            Ok(())
        });
        assert_eq!(thrown(&displaced.await), 1);
    });
}

#[test]
fn errors_that_came_too_late_or_were_overlooked_are_displaced() {
    paused(async || {
        let displaced = hears(async |group: &Group| {
            let fail = (0..3).map(|n| after(5, Err::<(), u64>(n)));
            assert_eq!(group.try_join_all(fail).await, Err(0));
            let fail = |n| after(5, Err::<(), u64>(n));
            assert_eq!(group.try_join((fail(3), fail(4))).await, Err(3));
            let race = (5..7).map(async |n| if n == 5 { Err::<u64, u64>(n) } else { Ok(n) });
            assert_eq!(group.first_ok(race).await, Ok(6));
            // Who has all errors is given them, and nobody else.
            let fail = (7..9).map(|n| after(5, Err::<(), u64>(n)));
            assert_eq!(group.first_ok(fail).await, Err(vec![7, 8]));
            Ok(())
        });
        let errors = [("error", 1), ("error", 2), ("error", 4), ("overlooked", 5)];
        let errors = errors.map(|(what, n): (_, u64)| format!("{what} {:?}", Some(n)));
        assert_eq!(displaced.await, errors);
    });
}

#[test]
fn who_was_cancelled_by_others_is_gone_before_the_answer() {
    paused(async || {
        let answers: [Result<u64, Vec<u64>>; 3] = [Ok(1), Err(vec![1]), Ok(1)];
        for (which, answer) in answers.into_iter().enumerate() {
            let (drops, seen) = (Drops::new(), Cell::new(None));
            let result = scope(async |group: &Group| -> Done {
                let future = |n: u64| {
                    let (guard, answer) = (drops.guard(), answer.clone());
                    async move {
                        if n == 1 {
                            drop(guard);
                            shield(ms(500), sleep(ms(30))).await;
                            return answer.map_err(|_| 1);
                        }
                        // Cancelled, it leaves a child that takes its time.
                        let inner = scope(async |group: &TaskGroup<String>| -> Done {
                            group.spawn(async move {
                                shield(ms(500), sleep(ms(100))).await;
                                drop(guard);
                            });
                            pending().await
                        });
                        inner.await.map_or(Err(0), |()| Ok(0))
                    }
                };
                let race = async {
                    let given = if which == 2 {
                        let given = group.first([0, 1].map(future)).await;
                        given.expect("there are two").map_err(|it| vec![it])
                    } else {
                        group.first_ok([0, 1].map(future)).await
                    };
                    seen.set(Some((given, drops.alive())));
                };
                let cancel = async {
                    sleep(ms(10)).await;
                    group.cancel_children();
                };
                tokio::join!(race, cancel);
                Ok(())
            });
            result.await.expect("nobody fails");
            assert_eq!(seen.take(), Some((answer, 0)));
        }
    });
}

#[test]
fn an_error_is_told_with_the_place_of_the_call_that_joined() {
    paused(async || {
        let begin = line!();
        for which in 0..6 {
            let run = Scope::new().panics_as_errors();
            let result = run.run(async |group: &Group| -> Done {
                let bad = async || -> Done { panic!("bad") };
                match which {
                    0 => drop(group.try_join((bad(), bad())).await),
                    1 => drop(group.try_join_all([bad()]).await),
                    2 => drop(group.settle_all([bad()]).await),
                    3 => drop(group.as_completed([bad()]).next().await),
                    4 => drop(group.first([bad()]).await),
                    _ => drop(group.first_ok([bad()]).await),
                }
                pending().await
            });
            let error = result.await.expect_err("it panicked");
            let task = error.iter().next().and_then(|it| it.task());
            let place = task.expect("a child").location();
            assert_eq!((place.file(), place.line()), (file!(), begin + 6 + which));
        }
    });
}
