//! Joining helpers of groups: one answer from several children, and nobody left behind.

mod untaken;

use std::{
    cell::Cell,
    future::{pending, poll_fn},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use futures::FutureExt;
use ringfence::{
    BorrowGroup, CancelReason, Cause, Deadline, LocalGroup, Outcome, Scope, TaskGroup,
    borrow_scope, local_scope, move_on_after, scope, shield, timeout, token,
};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use crate::support::{
    Count, Drops, Log, OnDrop, Parked, caught, every_runtime, every_runtime_in_a_task, paused,
    single_thread, until,
};

type Group = TaskGroup<String>;
type Borrowing<'env> = BorrowGroup<'env, String>;
type Done = Result<(), String>;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Gives `result` after a while.
async fn after<T>(wait: u64, result: T) -> T {
    sleep(ms(wait)).await;
    result
}

#[test]
fn a_tuple_gives_its_values_in_their_places() {
    every_runtime_in_a_task(|| async {
        let joined = scope(async |group: &Group| {
            let text = async { Ok(String::from("one")) };
            let number = async {
                yield_now().await;
                Ok::<_, u8>(2)
            };
            Ok(group.try_join((text, number)).await)
        });
        assert_eq!(joined.await.unwrap(), Ok(("one".to_owned(), 2)));
        let six = scope(async |group: &Group| {
            let one = |n: u32| async move { Ok::<_, u8>(n) };
            let last = async { Ok(String::from("six")) };
            Ok(group
                .try_join((one(1), one(2), one(3), one(4), one(5), last))
                .await)
        });
        assert_eq!(six.await.unwrap(), Ok((1, 2, 3, 4, 5, "six".to_owned())));
    });
}

#[test]
fn the_first_error_of_a_tuple_comes_when_the_others_are_gone() {
    every_runtime(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        scope(async |group: &Group| {
            let (parked, seen) = (Parked::new(&polls, &drops), polls.clone());
            let fails = async move {
                until(|| seen.get() > 0).await;
                Err::<u32, _>("lost")
            };
            let waits = async move {
                parked.await;
                Ok(())
            };
            assert_eq!(group.try_join((waits, fails)).await, Err("lost"));
            assert_eq!((drops.alive(), group.is_cancelled()), (0, false));
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn a_collection_gives_its_results_in_order() {
    every_runtime(async || {
        let values = scope(async |group: &Group| {
            let futures = (0..10_000_u32).map(|n| async move {
                if n % 3 == 0 {
                    yield_now().await;
                }
                Ok::<_, u8>(n)
            });
            Ok(group.try_join_all(futures).await)
        });
        assert_eq!(values.await.unwrap(), Ok((0..10_000).collect()));
    });
}

#[test]
fn a_collection_fails_with_its_first_error_and_the_group_goes_on() {
    paused(async || {
        let (start, log) = (Instant::now(), Log::new());
        borrow_scope(async |group: Borrowing<'_>| {
            let futures = (1..=5).map(|n| {
                let log = &log;
                async move {
                    sleep(ms(10 * n)).await;
                    if n == 3 {
                        return Err(n);
                    }
                    log.push(n);
                    Ok(())
                }
            });
            assert_eq!(group.try_join_all(futures).await, Err(3));
            assert_eq!(
                (start.elapsed(), log.entries(), group.len()),
                (ms(30), vec![1, 2], 0)
            );
            group.spawn(async { Ok(()) }).await;
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn where_nothing_is_given_nothing_is_waited_for() {
    every_runtime(async || {
        scope(async |group: &Group| {
            let none = || std::iter::empty::<std::future::Ready<Result<u32, String>>>();
            assert_eq!(group.try_join_all(none()).await, Ok(vec![]));
            assert_eq!(group.first_ok(none()).await, Err(vec![]));
            assert_eq!(group.staggered(ms(5), none()).await, Err(vec![]));
            assert_eq!(group.first(none()).await, None);
            assert_eq!(group.settle_all(none()).await, []);
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn settled_outcomes_are_all_there_in_their_places() {
    paused(async || {
        let start = Instant::now();
        let outcomes = scope(async |group: &Group| {
            let futures = [(30, Ok(1)), (10, Err("lost")), (20, Ok(3))];
            let futures = futures.map(|(wait, result)| after(wait, result));
            Ok(group.settle_all(futures).await)
        })
        .await
        .unwrap();
        let results: Vec<_> = outcomes.into_iter().map(Outcome::completed).collect();
        assert_eq!(results, [Some(Ok(1)), Some(Err("lost")), Some(Ok(3))]);
        assert_eq!(start.elapsed(), ms(30), "nobody was cancelled for another");
    });
}

#[test]
fn settled_outcomes_tell_who_was_cancelled() {
    every_runtime(async || {
        let polls = Count::new();
        let outcomes = borrow_scope(async |group: Borrowing<'_>| {
            let settled = group.settle_all((0..2).map(|n| {
                let polls = &polls;
                async move {
                    if n == 0 {
                        return n;
                    }
                    polls.add();
                    pending().await
                }
            }));
            let cancel = async {
                until(|| polls.get() == 1).await;
                group.cancel_children();
                pending::<()>().await;
            };
            tokio::select! {
                outcomes = settled => Ok(outcomes),
                () = cancel => unreachable!("it waits"),
            }
        })
        .await;
        let cancelled = Outcome::Cancelled(CancelReason::ChildrenCancelled);
        assert_eq!(outcomes.unwrap(), [Outcome::Completed(0), cancelled]);
    });
}

#[test]
fn the_first_to_end_wins_and_the_losers_are_gone() {
    paused(async || {
        let (start, drops) = (Instant::now(), Drops::new());
        scope(async |group: &Group| {
            for (one, other) in [(10, 500), (500, 10)] {
                let before = start.elapsed();
                let futures = [(one, 1), (other, 2)].map(|(wait, value)| {
                    let guard = drops.guard();
                    async move {
                        let _guard = guard;
                        after(wait, value).await
                    }
                });
                let winner = group.first(futures).await;
                assert_eq!(winner, Some(if one < other { 1 } else { 2 }));
                assert_eq!((start.elapsed() - before, drops.alive()), (ms(10), 0));
            }
            let error = group.first([after(10, Err("error")), after(20, Ok(()))]);
            assert_eq!(error.await, Some(Err("error")), "an end is an end");
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn the_first_to_succeed_wins_after_failures() {
    paused(async || {
        let (start, drops) = (Instant::now(), Drops::new());
        scope(async |group: &Group| {
            let results = [(10, Err("a")), (30, Ok(7)), (20, Err("b")), (900, Ok(8))];
            let futures = results.map(|(wait, result)| {
                let guard = drops.guard();
                async move {
                    let _guard = guard;
                    after(wait, result).await
                }
            });
            assert_eq!(group.first_ok(futures).await, Ok(7));
            assert_eq!((start.elapsed(), drops.alive()), (ms(30), 0));
            let failing = [(30, "c"), (10, "a"), (20, "b")];
            let failing = failing.map(|(wait, error)| after(wait, Err::<(), _>(error)));
            assert_eq!(group.first_ok(failing).await, Err(vec!["a", "b", "c"]));
            let unit = after(1, Ok::<(), u8>(()));
            assert_eq!(group.first_ok([unit]).await, Ok(()));
            assert!(!group.is_cancelled());
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn of_several_successes_in_one_turn_one_wins() {
    every_runtime(async || {
        let (made, drops) = (Count::new(), Drops::new());
        scope(async |group: &Group| {
            let futures = (0..20).map(|_| {
                let (made, drops) = (made.clone(), drops.clone());
                async move {
                    made.add();
                    Ok::<_, ()>(drops.guard())
                }
            });
            let winner = group.first_ok(futures.collect::<Vec<_>>()).await;
            assert_eq!(drops.alive(), 1, "the values of the others are disposed of");
            drop(winner);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!((drops.alive(), drops.made()), (0, made.get()));
    });
}

/// Runs a staggered race with the given delay; each one writes when it starts, and gives its result after a while.
async fn race(
    delay: u64,
    results: &[(u64, Result<u32, u32>)],
    starts: &Log<u64>,
) -> (Result<u32, Vec<u32>>, u64) {
    let start = Instant::now();
    let millis = move || u64::try_from(start.elapsed().as_millis()).expect("short");
    let answer = borrow_scope(async |group: Borrowing<'_>| {
        let futures = results.iter().map(|(wait, result)| async move {
            starts.push(millis());
            after(*wait, *result).await
        });
        Ok(group.staggered(ms(delay), futures).await)
    });
    (answer.await.expect("no child fails"), millis())
}

#[test]
fn staggered_the_next_starts_when_one_fails() {
    paused(async || {
        let starts = Log::new();
        let results = [(100, Err(1)), (200, Err(2)), (900, Err(3)), (50, Ok(4))];
        let (answer, took) = race(250, &results, &starts).await;
        assert_eq!(
            starts.entries(),
            [0, 100, 300, 550],
            "or when the delay is over"
        );
        assert_eq!((answer, took), (Ok(4), 600));
    });
}

#[test]
fn staggered_the_next_starts_after_the_delay_and_no_more_than_needed() {
    paused(async || {
        let starts = Log::new();
        let results = [(900, Ok(1)), (50, Ok(2)), (0, Ok(3))];
        let (answer, took) = race(200, &results, &starts).await;
        assert_eq!(starts.entries(), [0, 200], "the third is never started");
        assert_eq!((answer, took), (Ok(2), 250), "and the first is cancelled");
    });
}

#[test]
fn staggered_all_errors_are_there_if_nobody_succeeds() {
    paused(async || {
        let starts = Log::new();
        let results = [(900, Err(1)), (50, Err(2)), (100, Err(3))];
        let (answer, took) = race(200, &results, &starts).await;
        assert_eq!(starts.entries(), [0, 200, 250]);
        assert_eq!((answer, took), (Err(vec![2, 3, 1]), 900));
    });
}

#[test]
fn losers_that_use_their_grace_are_waited_for() {
    paused(async || {
        let (start, log) = (Instant::now(), Log::new());
        Scope::new()
            .grace(ms(1_000))
            .run_borrow(async |group: Borrowing<'_>| {
                let log = &log;
                let slow = async move {
                    token().cancelled().await;
                    sleep(ms(300)).await;
                    log.push("cleaned up");
                    0
                };
                let futures: [std::pin::Pin<Box<dyn Future<Output = u32> + Send + '_>>; 2] =
                    [Box::pin(slow), Box::pin(after(10, 1))];
                assert_eq!(group.first(futures).await, Some(1));
                assert_eq!(
                    (start.elapsed(), log.entries()),
                    (ms(310), vec!["cleaned up"])
                );
                Ok(())
            })
            .await
            .unwrap();
    });
}

#[test]
fn a_helper_that_is_dropped_cancels_what_it_started() {
    paused(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        scope(async |group: &Group| {
            let parked = || {
                let parked = Parked::new(&polls, &drops);
                async move {
                    parked.await;
                    Ok::<_, u8>(())
                }
            };
            let two = || [parked(), parked()];
            assert!(
                move_on_after(ms(5), group.try_join_all(two()))
                    .await
                    .is_none()
            );
            assert!(move_on_after(ms(5), group.first(two())).await.is_none());
            assert!(move_on_after(ms(5), group.first_ok(two())).await.is_none());
            assert!(
                move_on_after(ms(5), group.staggered(ms(1), two()))
                    .await
                    .is_none()
            );
            assert!(
                move_on_after(ms(5), group.settle_all(two()))
                    .await
                    .is_none()
            );
            assert!(
                move_on_after(ms(5), group.try_join((parked(), parked())))
                    .await
                    .is_none()
            );
            until(|| group.is_empty()).await;
            assert_eq!((polls.get(), drops.alive()), (12, 0));
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn a_panic_of_one_of_them_is_the_groups() {
    every_runtime(async || {
        let drops = Drops::new();
        let text = caught(scope(async |group: &Group| {
            let guard = drops.guard();
            let parked = async move {
                let _guard = guard;
                pending::<Result<(), u8>>().await
            };
            let fails = async { Err::<(), _>(1) };
            let panics = async {
                yield_now().await;
                panic!("boom")
            };
            let futures: [futures::future::BoxFuture<'static, Result<(), u8>>; 3] =
                [Box::pin(parked), Box::pin(fails), Box::pin(panics)];
            drop(group.first_ok(futures).await);
            Ok(())
        }))
        .await;
        assert_eq!((text.unwrap_err().as_str(), drops.alive()), ("boom", 0));
    });
}

#[test]
fn what_others_cancel_never_hangs_a_helper() {
    every_runtime(async || {
        for helper in 0..4 {
            let polls = Count::new();
            let error = borrow_scope(async |group: Borrowing<'_>| -> Done {
                let parked = || {
                    let polls = &polls;
                    async move {
                        polls.add();
                        pending::<Result<(), u8>>().await
                    }
                };
                let group = &group;
                let join = async {
                    match helper {
                        0 => drop(group.try_join_all([parked(), parked()]).await),
                        1 => drop(group.first([parked(), parked()]).await),
                        2 => drop(group.first_ok([parked(), parked()]).await),
                        _ => drop(group.try_join((parked(), parked())).await),
                    }
                };
                let cancel = async {
                    until(|| polls.get() == 2).await;
                    group.cancel_children();
                    pending::<()>().await;
                };
                tokio::join!(join, cancel);
                Ok(())
            })
            .await
            .unwrap_err();
            let reason = matches!(
                error.cause(),
                Cause::Cancelled(CancelReason::AwaitedCancelled(_))
            );
            assert!(reason, "{error}");
        }
    });
}

#[test]
fn in_a_borrowing_group_they_borrow_and_in_a_local_one_they_need_not_be_send() {
    every_runtime(async || {
        let words = ["one".to_owned(), "three".to_owned()];
        let lengths = borrow_scope(async |group: Borrowing<'_>| {
            let lengths = words
                .iter()
                .map(|word| async move { Ok::<_, u8>(word.len()) });
            let all = group.try_join_all(lengths).await;
            let both = group.try_join((async { Ok::<_, u8>(&words[0]) }, async { Ok(&words[1]) }));
            assert_eq!(both.await, Ok((&words[0], &words[1])));
            Ok(all)
        });
        assert_eq!(lengths.await.unwrap(), Ok(vec![3, 5]));
        let hits = Rc::new(Cell::new(0));
        local_scope(async |group: LocalGroup<'_, String>| {
            let hit = || {
                let hits = Rc::clone(&hits);
                async move {
                    hits.set(hits.get() + 1);
                    Ok::<_, u8>(hits)
                }
            };
            assert!(group.try_join((hit(), hit())).await.is_ok());
            assert_eq!(
                group
                    .try_join_all([hit(), hit()])
                    .await
                    .map(|all| all.len()),
                Ok(2)
            );
            assert!(group.first([hit()]).await.is_some());
            let mut left = group.as_completed([hit()]);
            assert!(left.next().await.is_some());
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!((hits.get(), Rc::strong_count(&hits)), (6, 1));
    });
}

#[test]
fn a_success_whose_child_takes_long_to_be_gone_is_not_lost() {
    paused(async || {
        let slow = async {
            // It leaves a scope behind whose child needs half a second to be gone, and has succeeded before that.
            let left = scope(async |group: &Group| -> Done {
                group.spawn(async { shield(ms(1000), sleep(ms(500))).await });
                pending().await
            });
            assert!(move_on_after(ms(10), left).await.is_none());
            Ok(1)
        };
        let race = [slow.boxed(), async { Err("refused".to_owned()) }.boxed()];
        let won = scope(async |group: &Group| Ok(group.staggered(ms(250), race).await)).await;
        assert_eq!(won.unwrap(), Ok(1));
    });
}

#[test]
fn a_deadline_that_ends_a_join_leaves_what_was_there_by_then() {
    paused(async || {
        let (began, drops) = (Instant::now(), Drops::new());
        let result = scope(async |group: &Group| -> Done {
            let sibling = group.spawn(after(100, Ok(9)));
            let late = |time: u64| {
                let guard = drops.guard();
                async move {
                    let _guard = guard;
                    after(time, time).await
                }
            };
            let outcomes = group
                .settle_all_by(Deadline::after(ms(30)), [10, 40, 20, 29, 30].map(late))
                .await;
            let cancelled = Outcome::Cancelled(CancelReason::Deadline);
            let expected = [
                Outcome::Completed(10),
                cancelled.clone(),
                Outcome::Completed(20),
                Outcome::Completed(29),
                cancelled,
            ];
            assert_eq!(outcomes, expected);
            assert_eq!((began.elapsed(), drops.alive()), (ms(30), 0));
            // In time, and with nothing to wait for.
            let never = Deadline::NEVER;
            let all = group.settle_all_by(never, [late(5)]).await;
            assert_eq!(all, [Outcome::Completed(5)]);
            let none = Vec::<std::future::Ready<Result<u8, String>>>::new();
            assert_eq!(group.settle_all_by(never, none).await, []);
            assert_eq!(sibling.await, 9);
            Ok(())
        });
        result.await.unwrap();
    });
}

#[test]
fn boxed_futures_can_be_joined_where_the_whole_has_to_be_send() {
    type Boxed = std::pin::Pin<Box<dyn Future<Output = Result<u8, String>> + Send>>;
    fn boxed(value: u8) -> Boxed {
        Box::pin(async move { Ok(value) })
    }
    every_runtime_in_a_task(|| async {
        // As an async method of a trait would have it.
        let joined: std::pin::Pin<Box<dyn Future<Output = _> + Send>> =
            Box::pin(scope(async |group: &Group| {
                group.try_join((boxed(1), boxed(2))).await
            }));
        assert_eq!(joined.await.unwrap(), (1, 2));
    });
}

#[test]
fn as_completed_they_come_in_the_order_in_which_they_end() {
    paused(async || {
        let result = scope(async |group: &Group| -> Done {
            let results = [(20, Err("lost")), (30, Ok(30)), (10, Ok(10))];
            let mut left = group.as_completed(results.map(|(time, result)| after(time, result)));
            let mut seen = Vec::new();
            assert_eq!((left.len(), left.is_empty()), (3, false));
            while let Some((place, outcome)) = left.next().await {
                seen.push((place, outcome.completed()));
                assert_eq!(left.len(), 3 - seen.len());
            }
            let ended = [(2, Ok(10)), (0, Err("lost")), (1, Ok(30))];
            assert_eq!(seen, ended.map(|(place, result)| (place, Some(result))));
            assert!(left.next().await.is_none() && left.is_empty());
            let none = Vec::<std::future::Ready<Result<u8, String>>>::new();
            assert!(group.as_completed(none).next().await.is_none());
            Ok(())
        });
        result.await.unwrap();
    });
}

#[test]
fn as_completed_nobody_waits_for_a_slow_consumer() {
    paused(async || {
        let began = Instant::now();
        let result = scope(async |group: &Group| -> Done {
            let steps = |place: u64| async move {
                for _ in 0..5 {
                    sleep(ms(10 + place)).await;
                }
                began.elapsed()
            };
            let mut left = group.as_completed([0, 1, 2].map(steps));
            for place in 0..3 {
                let (which, outcome) = left.next().await.expect("there are three");
                let ended = outcome.completed().expect("nobody fails");
                assert_eq!((which, ended), (place, ms(50 + 5 * place as u64)));
                sleep(ms(1000)).await;
            }
            Ok(())
        });
        result.await.unwrap();
        assert_eq!(began.elapsed(), ms(3050));
    });
}

#[test]
fn as_completed_left_early_the_rest_is_cancelled_and_gone() {
    paused(async || {
        for waits in [true, false] {
            let drops = Drops::new();
            let result = scope(async |group: &Group| -> Done {
                let late = |time: u64| {
                    let guard = drops.guard();
                    async move {
                        let _guard = guard;
                        after(time, time).await
                    }
                };
                let mut left = group.as_completed([10, 20, 30].map(late));
                // A call that is dropped loses nothing, wherever it was.
                assert!(timeout(ms(5), left.next()).await.is_err());
                assert_eq!(left.next().await, Some((0, Outcome::Completed(10))));
                if waits {
                    left.finish().await;
                    assert_eq!((drops.alive(), group.len()), (0, 0));
                } else {
                    drop(left);
                }
                Ok(())
            });
            result.await.unwrap();
            assert_eq!(drops.alive(), 0);
        }
    });
}

#[test]
fn as_completed_one_that_has_returned_and_is_not_quite_gone_is_still_to_come() {
    paused(async || {
        for waits in [true, false] {
            let began = Instant::now();
            let result = scope(async |group: &Group| -> Done {
                // What the first leaves behind takes until 50 ms; the second has nothing to leave.
                let leaves = |place: usize| async move {
                    if place == 1 {
                        return pending().await;
                    }
                    let inner = scope(async |group: &Group| -> Done {
                        group.spawn(async { shield(ms(100), sleep(ms(50))).await });
                        pending().await
                    });
                    drop(timeout(ms(10), inner).await);
                    place
                };
                let mut left = group.as_completed([0, 1].map(leaves));
                assert!(timeout(ms(20), left.next()).await.is_err());
                assert_eq!((left.len(), left.is_empty()), (2, false));
                if waits {
                    left.finish().await;
                } else {
                    assert_eq!(left.next().await, Some((0, Outcome::Completed(0))));
                    assert_eq!(left.len(), 1);
                    left.finish().await;
                }
                assert_eq!((began.elapsed(), group.len()), (ms(50), 0));
                Ok(())
            });
            result.await.unwrap();
        }
    });
}

#[test]
fn as_completed_tells_who_was_cancelled_and_a_panic_is_the_groups() {
    paused(async || {
        let result = scope(async |group: &Group| -> Done {
            let mut left = group.as_completed([after(10, ()), after(20, ())]);
            group.cancel_children();
            let children = Outcome::Cancelled(CancelReason::ChildrenCancelled);
            assert_eq!(left.next().await.map(|it| it.1), Some(children));
            Ok(())
        });
        result.await.unwrap();
        let thrown = scope(async |group: &Group| -> Done {
            let throws = async { panic!("one of them") };
            let mut left = group.as_completed([throws]);
            while left.next().await.is_some() {}
            unreachable!("the body ends with the group");
        });
        assert_eq!(
            caught(thrown).await.map(drop),
            Err("one of them".to_owned())
        );
    });
}

#[test]
fn as_completed_an_error_is_a_value_and_the_rest_comes() {
    paused(async || {
        let result = scope(async |group: &Group| -> Done {
            let results = [(10, Ok(1)), (20, Err("lost")), (30, Ok(3))];
            let mut left = group.as_completed(results.map(|(wait, it)| after(wait, it)));
            for (place, (_, result)) in results.into_iter().enumerate() {
                let expected = (place, Outcome::Completed(result));
                assert_eq!(left.next().await, Some(expected));
                // Neither the group nor the others hear of it.
                assert!(!group.is_cancelled());
                group.spawn(async {}).await;
            }
            assert!(left.next().await.is_none());
            Ok(())
        });
        result.await.unwrap();
    });
}

#[test]
fn taking_results_that_are_all_there_lets_others_run() {
    single_thread(async || {
        let turns = Count::new();
        let inside = turns.clone();
        let result = scope(async |group: &Group| -> Done {
            let background = async move {
                loop {
                    inside.add();
                    yield_now().await;
                }
            };
            group.spawn_background(background);
            let all_there = || until(|| group.len() == 1);
            let mut left = group.as_completed((0..1_000).map(|n| async move { n }));
            assert!(left.next().await.is_some());
            all_there().await;
            let before = turns.get();
            while left.next().await.is_some() {}
            assert!(turns.get() > before);
            let spawn = |n| group.spawn(async move { Ok(n) });
            let handles: Vec<_> = (0..1_000).map(spawn).collect();
            all_there().await;
            let before = turns.get();
            for handle in handles {
                handle.await;
            }
            assert!(turns.get() > before);
            Ok(())
        });
        result.await.unwrap();
    });
}

#[test]
fn values_come_when_what_made_them_is_gone() {
    every_runtime(async || {
        for _ in 0..20 {
            let (given, gone) = (Count::new(), Count::new());
            let joined = scope(async |group: &Group| {
                let (early, late) = (given.clone(), gone.clone());
                let slow = OnDrop::new(move || {
                    for _ in 0..200 {
                        std::thread::yield_now();
                    }
                    assert_eq!(early.get(), 0, "its value is out there already");
                    late.add();
                });
                // Captured, and so dropped after it has returned.
                let one = poll_fn(move |_| {
                    let _captured = &slow;
                    Poll::Ready(Ok(1))
                });
                let two = poll_fn(|_| Poll::Ready(Ok(2)));
                let sum = group.try_join((one, two)).await.map(|(one, two)| one + two);
                given.add();
                assert_eq!(gone.get(), 1);
                sum
            });
            assert_eq!(joined.await.unwrap(), 3);
        }
    });
}
