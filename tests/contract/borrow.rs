//! Borrowing scopes: children in the task of their scope, that hold references to the caller's stack.

mod end;
mod face;
mod fault;
mod turn;

use std::{future::Future, io, time::Duration};

use ringfence::{
    BorrowGroup, BoxError, CancelReason, Outcome, Scope, SpawnError, borrow_scope, scope,
};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use crate::support::{
    Count, Drops, Log, Parked, every_runtime, every_runtime_in_a_task, paused, until,
};

type Group<'env> = BorrowGroup<'env, String>;
type Done = Result<(), String>;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Fails, by `String`, where a test only needs a failure.
async fn fail(text: &str) -> Done {
    Err(text.to_owned())
}

async fn sum(numbers: &[u64]) -> io::Result<u64> {
    let mut total = 0;
    for number in numbers {
        yield_now().await;
        total += number;
    }
    Ok(total)
}

#[test]
fn children_borrow_from_the_callers_stack() {
    every_runtime(async || {
        let (left, right) = (vec![1, 2, 3], [4, 5]);
        let total = borrow_scope(async |group| {
            let a = group.spawn(sum(&left));
            let b = group.spawn(sum(&right));
            Ok(a.await + b.await)
        })
        .await
        .unwrap();
        assert_eq!((total, left.len() + right.len()), (15, 5));
    });
}

#[test]
fn children_borrow_mutably_each_its_own_part() {
    every_runtime(async || {
        let (mut numbers, mut log) = ([1, 2, 3], Vec::new());
        borrow_scope(async |group: Group<'_>| {
            for number in &mut numbers {
                group.spawn(async move {
                    yield_now().await;
                    *number *= 10;
                });
            }
            group.spawn(async { log.push("written") });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!((numbers, log), ([10, 20, 30], vec!["written"]));
    });
}

struct Service {
    name: String,
    hits: Vec<usize>,
}

trait Serve {
    fn serve<'a>(&'a mut self, words: &'a [&'a str]) -> impl Future<Output = usize> + Send + 'a;
}

impl Serve for Service {
    async fn serve<'a>(&'a mut self, words: &'a [&'a str]) -> usize {
        let Self { name, hits } = self;
        let name = &*name;
        borrow_scope(async |group: Group<'_>| {
            let mut found = Vec::new();
            for word in words {
                found.push(group.spawn(async move {
                    yield_now().await;
                    Ok(word.matches(name).count())
                }));
            }
            for found in found {
                hits.push(found.await);
            }
            Ok(())
        })
        .await
        .expect("nothing fails");
        self.hits.iter().sum()
    }
}

#[test]
fn the_scope_is_send_where_its_children_are() {
    every_runtime_in_a_task(|| async {
        let mut service = Service {
            name: "a".to_owned(),
            hits: Vec::new(),
        };
        assert_eq!(service.serve(&["abba", "c", "a"]).await, 3);
        assert_eq!(service.hits, [2, 0, 1]);
    });
}

#[test]
fn the_body_may_be_a_closure_that_returns_a_future() {
    every_runtime(async || {
        let text = &String::from("three");
        let length = borrow_scope(|group: BorrowGroup<'_, BoxError>| async move {
            Ok(group.spawn(async { Ok(text.len()) }).await)
        })
        .await
        .unwrap();
        assert_eq!(length, 5);
    });
}

#[test]
fn a_value_may_borrow_from_the_caller_too() {
    every_runtime(async || {
        let words = ["short".to_owned(), "longest".to_owned()];
        let longest: &str = borrow_scope(async |group: Group<'_>| {
            let handles: Vec<_> = words
                .iter()
                .map(|word| group.spawn(async move { Ok(word.as_str()) }))
                .collect();
            let mut longest = "";
            for handle in handles {
                let word = handle.await;
                if word.len() > longest.len() {
                    longest = word;
                }
            }
            Ok(longest)
        })
        .await
        .unwrap();
        assert_eq!(longest, "longest");
    });
}

#[test]
fn the_scope_returns_after_every_child_has_ended_and_been_dropped() {
    paused(async || {
        let (drops, start) = (Drops::new(), Instant::now());
        borrow_scope(async |group: Group<'_>| {
            for wait in [30, 10, 20] {
                let guard = drops.guard();
                group.spawn(async move {
                    sleep(ms(wait)).await;
                    drop(guard);
                });
            }
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!((drops.made(), drops.alive()), (3, 0));
        assert_eq!(start.elapsed(), ms(30), "one after another in one task");
    });
}

#[test]
fn an_empty_borrowing_scope_is_ready_at_its_first_poll() {
    let mut scope = Box::pin(borrow_scope(async |_: Group<'_>| Ok(7)));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(matches!(
        scope.as_mut().poll(&mut cx),
        std::task::Poll::Ready(Ok(7))
    ));
}

#[test]
fn no_runtime_is_needed_where_nothing_waits_for_one() {
    let words = ["a", "bb"];
    let total = futures::executor::block_on(borrow_scope(async |group: Group<'_>| {
        let (a, b) = (
            group.spawn(async { Ok(words[0].len()) }),
            group.spawn(async { Ok(words[1].len()) }),
        );
        Ok(a.await + b.await)
    }));
    assert_eq!(total.unwrap(), 3);
}

#[test]
fn a_child_spawns_siblings_through_a_spawner_after_the_body_has_ended() {
    every_runtime(async || {
        let (log, runs) = (Log::new(), Count::new());
        borrow_scope(async |group: Group<'_>| {
            let spawner = group.spawner();
            let (log, runs) = (&log, &runs);
            group.spawn(async move {
                yield_now().await;
                for _ in 0..3 {
                    let inner = spawner.clone();
                    spawner.spawn(async move {
                        runs.add();
                        inner.spawn(async move {
                            yield_now().await;
                            runs.add();
                        });
                    });
                }
                log.push("spawned");
            });
            log.push("body");
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!((log.entries(), runs.get()), (vec!["body", "spawned"], 6));
    });
}

#[test]
fn a_spawner_that_is_kept_holds_nothing_open_and_refuses() {
    every_runtime(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        let spawner = borrow_scope(async |group: Group<'_>| Ok(group.spawner()))
            .await
            .unwrap();
        assert!(!spawner.is_open());
        let refused = spawner.try_spawn(Parked::new(&polls, &drops));
        assert_eq!(
            refused.as_ref().map(|_| ()).map_err(SpawnError::reason),
            Err(&CancelReason::Closed)
        );
        drop(refused);
        let outcome = spawner.spawn(Parked::new(&polls, &drops)).await;
        assert_eq!(outcome, Outcome::Cancelled(CancelReason::Closed));
        assert_eq!((polls.get(), drops.made(), drops.alive()), (0, 2, 0));
    });
}

#[test]
fn background_children_end_with_the_rest() {
    every_runtime(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        let mut ticks = 0;
        borrow_scope(async |group: Group<'_>| {
            group.spawn_background(Parked::new(&polls, &drops));
            group.spawn_background(async {
                loop {
                    ticks += 1;
                    yield_now().await;
                }
            });
            group.spawn(async {
                for _ in 0..5 {
                    yield_now().await;
                }
                assert_eq!(drops.alive(), 1, "not before the last normal child");
            });
            Ok(())
        })
        .await
        .unwrap();
        assert!(ticks >= 5);
        assert_eq!((polls.get(), drops.alive()), (1, 0));
    });
}

#[test]
fn what_a_child_inherits_is_that_of_its_scope() {
    paused(async || {
        let end = Instant::now() + ms(500);
        let seen = Scope::new()
            .name("outer")
            .deadline(end)
            .run_borrow(async |group: Group<'_>| {
                let child = group.named("child").spawn(async {
                    let error = Scope::new()
                        .name("inner")
                        .run_borrow(async |inner: Group<'_>| {
                            inner.spawn(fail("lost"));
                            Ok(())
                        })
                        .await
                        .unwrap_err();
                    let path = error.group().map(str::to_owned);
                    Ok((ringfence::Deadline::current(), path))
                });
                Ok(child.await)
            })
            .await
            .unwrap();
        assert_eq!(seen.0.instant(), Some(end));
        assert_eq!(seen.1.as_deref(), Some("outer/child/inner"));
        assert_eq!(ringfence::Deadline::current().instant(), None);
    });
}

#[test]
fn a_child_reads_its_own_token_between_its_siblings() {
    every_runtime(async || {
        let error = Scope::new()
            .grace(Duration::from_secs(3600))
            .run_borrow(async |group: Group<'_>| {
                let one = group.spawn(async {
                    ringfence::token().cancelled().await;
                    Ok(ringfence::token().reason())
                });
                let other = group.spawn(async {
                    yield_now().await;
                    Ok(ringfence::token().is_cancelled())
                });
                one.cancel();
                assert_eq!(
                    one.outcome().await,
                    Outcome::Completed(Some(CancelReason::Handle))
                );
                assert!(!other.await, "the token of one is not that of the other");
                group.cancel();
                Ok(())
            })
            .await
            .unwrap_err();
        assert!(error.is_cancelled() && error.forced().is_empty());
    });
}

#[test]
fn borrowing_and_parallel_scopes_nest_in_one_another() {
    every_runtime(async || {
        let words = ["a".to_owned(), "bb".to_owned()];
        let total = borrow_scope(async |group: Group<'_>| {
            let lengths: Vec<_> = words
                .iter()
                .map(|word| {
                    group.spawn(async move {
                        let length = word.len();
                        scope(async |inner| Ok(inner.spawn(async move { Ok(length * 10) }).await))
                            .await
                            .map_err(|error: ringfence::GroupError<String>| error.to_string())
                    })
                })
                .collect();
            let mut total = 0;
            for length in lengths {
                total += length.await;
            }
            Ok(total)
        })
        .await
        .unwrap();
        assert_eq!(total, 30);
    });
}

#[test]
fn len_counts_the_children_that_live() {
    every_runtime(async || {
        borrow_scope(async |group: Group<'_>| {
            assert!(group.is_empty());
            let child = group.spawn(yield_now());
            group.spawn(yield_now());
            assert_eq!((group.len(), child.is_finished()), (2, false));
            until(|| group.is_empty()).await;
            assert!(child.is_finished());
            child.await;
            Ok(())
        })
        .await
        .unwrap();
    });
}
