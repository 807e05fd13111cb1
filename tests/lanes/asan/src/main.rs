//! Scope futures that are leaked, dropped half-way, or polled by one thread after the other: see `Cargo.toml`.
//!
//! `forbid(unsafe_code)` holds for the library. This looks at what it is built on, and at promises that a leak must not turn
//! into a dangling reference: children that borrow are only ever polled with their scope.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use ringfence::{BoxError, Limiter, TaskGroup, borrow_scope, fan_out, local_scope, scope};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

type Boxed<'a> = Pin<Box<dyn Future<Output = usize> + Send + 'a>>;

struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_time();
    builder.build().expect("a runtime")
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    let waker = Waker::from(Arc::new(Nobody));
    Pin::new(future).poll(&mut Context::from_waker(&waker))
}

/// Adds the numbers up, with so many turns between them.
async fn sum(numbers: &[usize], turns: usize) -> Result<usize, BoxError> {
    let mut total = 0;
    for number in numbers {
        for _ in 0..turns {
            yield_now().await;
        }
        total += number;
    }
    Ok(total)
}

async fn borrowing(numbers: &[usize], turns: usize) -> usize {
    let added = borrow_scope(async |group| {
        let (left, right) = numbers.split_at(numbers.len() / 2);
        let (left, right) = (
            group.spawn(sum(left, turns)),
            group.spawn(sum(right, turns)),
        );
        Ok::<_, BoxError>(left.await + right.await)
    });
    added.await.expect("no failure")
}

async fn fanned(numbers: &[usize], turns: usize) -> usize {
    let limiter = Limiter::new(2);
    let all = fan_out(numbers.chunks(3))
        .limit(4)
        .limiter(&limiter)
        .local()
        .fold(0, async |part| sum(part, turns).await, |a, b| a + b);
    all.await.unwrap_or_default() // cut off with its task, it has no answer
}

async fn spawned(numbers: &[usize], turns: usize) -> usize {
    let numbers: Arc<[usize]> = numbers.into();
    let all = scope(async |group: &TaskGroup| {
        let (one, two) = (numbers.clone(), numbers.clone());
        let first = group.spawn(async move { sum(&one, turns).await });
        let parts = fan_out(0..two.len())
            .limit(3)
            .collect(move |at| {
                let two = two.clone();
                async move { sum(&two[at..=at], turns).await }
            })
            .await
            .map_err(|error| BoxError::from(error.to_string()))?;
        Ok(first.await + parts.into_iter().sum::<usize>())
    });
    all.await.expect("no failure")
}

/// Each kind of scope, over the same numbers, and the answer.
fn kinds<'a>(numbers: &'a [usize], turns: usize) -> Vec<(Boxed<'a>, usize)> {
    let total: usize = numbers.iter().sum();
    vec![
        (Box::pin(borrowing(numbers, turns)), total),
        (Box::pin(fanned(numbers, turns)), total),
        (Box::pin(spawned(numbers, turns)), 2 * total),
    ]
}

/// Dropped after each number of polls, while children are half-way.
fn dropped_half_way(numbers: &[usize]) {
    for polls in 0..20 {
        let runtime = runtime();
        let _inside = runtime.enter();
        for (mut future, _) in kinds(numbers, 3) {
            for _ in 0..polls {
                if poll(&mut future).is_ready() {
                    break;
                }
            }
        }
    }
}

/// Each poll by another thread.
fn polled_by_one_thread_after_the_other(numbers: &[usize]) {
    let (runtime, mut polls) = (runtime(), 0);
    for (mut future, answer) in kinds(numbers, 2) {
        let found = loop {
            let polled = std::thread::scope(|threads| {
                let future = &mut future;
                let handle = runtime.handle();
                let poller = threads.spawn(move || {
                    let _inside = handle.enter();
                    poll(future)
                });
                poller.join().expect("no panic")
            });
            polls += 1;
            if let Poll::Ready(found) = polled {
                break found;
            }
        };
        assert_eq!(found, answer);
    }
    assert!(polls > 10, "{polls} polls");
}

/// A child that drops what its own scope waits for, in the middle of the scope's poll.
fn dropped_within_a_poll() {
    runtime().block_on(async {
        let mut inner: Option<Boxed<'static>> = Some(Box::pin(async {
            static NUMBERS: [usize; 4] = [1, 2, 3, 4];
            borrowing(&NUMBERS, 1_000_000).await
        }));
        if let Some(inner) = &mut inner {
            assert!(poll(inner).is_pending());
        }
        let place = std::cell::RefCell::new(inner);
        let place = &place;
        let ended = local_scope(async |group| {
            group.spawn(async move {
                yield_now().await;
                drop(place.borrow_mut().take());
            });
            let taken = group.spawn(
                async move {
                    yield_now().await;
                    yield_now().await;
                    place.borrow().is_none()
                }
                .wrap(),
            );
            Ok::<_, BoxError>(taken.await)
        });
        assert!(ended.await.expect("no failure"));
    });
}

/// A future of a value, as one of a result.
trait Wrap: Future + Sized {
    async fn wrap(self) -> Result<Self::Output, BoxError> {
        Ok(self.await)
    }
}

impl<F: Future> Wrap for F {}

/// Leaked after some polls: what it borrows is read and freed after that.
fn leaked() {
    for polls in 1..6 {
        let runtime = runtime();
        runtime.block_on(async {
            let numbers: Vec<usize> = (0..40).collect();
            for (mut future, _) in kinds(&numbers, 3) {
                for _ in 0..polls {
                    if poll(&mut future).is_ready() {
                        break;
                    }
                }
                std::mem::forget(future);
            }
            drop(numbers);
            // Whoever still runs would touch it now.
            for _ in 0..100 {
                yield_now().await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        });
        runtime.shutdown_timeout(Duration::from_secs(5));
    }
}

/// Cancelled with children in every state, on two threads.
fn cancelled() {
    runtime().block_on(async {
        for turns in 0..30 {
            let ended = scope(async |group: &TaskGroup| {
                group.spawn(async move {
                    let numbers: Vec<usize> = (0..50).collect();
                    fanned(&numbers, 2).await;
                });
                group.spawn(async move {
                    let _ = fan_out(0..)
                        .limit(8)
                        .for_each(|_: u32| pending::<()>())
                        .await;
                });
                for _ in 0..turns {
                    yield_now().await;
                }
                group.cancel();
                Ok(())
            });
            assert!(ended.await.expect_err("cancelled").is_cancelled());
        }
    });
}

fn main() {
    let numbers: Vec<usize> = (0..30).collect();
    dropped_half_way(&numbers);
    polled_by_one_thread_after_the_other(&numbers);
    dropped_within_a_poll();
    cancelled();
    if std::env::args().nth(1).as_deref() != Some("tidy") {
        leaked();
    }
    println!("held");
}
