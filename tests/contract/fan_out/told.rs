//! Errors that somebody has to be told of, whatever ends the fan-out.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::poll;
use ringfence::{
    Displaced, DisplacedWhat, GroupError, Observer, Progress, Scope, TaskGroup, fan_out, root,
    token,
};
use tokio::time::sleep;

use super::{Fail, bad, good, ms};
use crate::support::{Count, Log, PATIENCE, caught, every_runtime, paused, spawn, until};

/// Writes down what is displaced.
struct Displacements(Log<String>);

impl Observer for Displacements {
    fn displaced(&self, displaced: &Displaced) {
        let task = displaced.task.as_ref();
        let who = task.and_then(|task| task.name()).unwrap_or("?");
        self.0.push(match &displaced.what {
            DisplacedWhat::Panic(panic) => format!("{who}: panic {panic}"),
            DisplacedWhat::Error(error) => {
                let error = error.downcast_ref::<Fail>();
                format!("{who}: {}", error.map_or("?".into(), Fail::to_string))
            }
            DisplacedWhat::Overlooked(error) => {
                format!("{who}: overlooked {}", error.is::<Fail>())
            }
            _ => unreachable!("there are three kinds"),
        });
    }
}

fn observed(log: &Log<String>) -> Scope {
    Scope::new().observer(Arc::new(Displacements(log.clone())))
}

fn sorted(log: &Log<String>) -> Vec<String> {
    let mut entries = log.entries();
    entries.sort();
    entries
}

/// Fails at once for even numbers; for odd ones it waits until it is asked to end.
async fn even_fails(n: usize) -> Result<(), Fail> {
    if n % 2 == 0 {
        return bad("even");
    }
    token().cancelled().await;
    bad("late")
}

/// The same; counts those who wait, once they do: a signal that comes before makes them late, not lost.
async fn even_fails_odd_waits(n: usize, waiting: Count) -> Result<(), Fail> {
    let mut end = pin!(even_fails(n));
    if let Poll::Ready(result) = poll!(end.as_mut()) {
        return result;
    }
    waiting.add();
    end.await
}

fn names<E>(error: &GroupError<E>) -> Vec<String> {
    let name = |failure: &ringfence::Failure<E>| failure.task()?.name().map(str::to_owned);
    let mut names: Vec<_> = error.iter().filter_map(name).collect();
    names.sort();
    names
}

fn until_100() -> Scope {
    Scope::new().deadline(ringfence::Deadline::after(ms(100)))
}

#[test]
fn errors_that_are_kept_until_the_end_come_back_when_it_is_cut_off() {
    paused(async || {
        for (grace, expected) in [
            // Forced, the odd ones are dropped.
            (0, &["item 0", "item 2"][..]),
            // On the signal they end by themselves.
            (50, &["item 0", "item 1", "item 2", "item 3"]),
        ] {
            let fan = || fan_out(0..4).limit(4).scope(until_100().grace(ms(grace)));
            let first = fan().first_success(even_fails).await.unwrap_err();
            let all = fan().outcomes(even_fails).await.unwrap_err();
            for error in [first, all] {
                assert!(error.is_deadline_exceeded(), "{error:?}");
                assert_eq!(names(&error), expected);
            }
        }
        let cancelled = Scope::new()
            .grace(ms(50))
            .run(async |group: &TaskGroup<Fail>| {
                let fan = || fan_out(0..9).limit(4).local();
                let local = group.spawn(async move {
                    let first = fan().first_success(even_fails).await.unwrap_err();
                    let all = fan().outcomes(even_fails).await.unwrap_err();
                    // Four wait, and as many have made room for them; the ninth was not taken.
                    let eight: Vec<_> = (0..8).map(|n| format!("item {n}")).collect();
                    assert_eq!(names(&first), eight);
                    // It began after the signal, and took nothing.
                    assert!(all.is_cancelled() && all.is_empty());
                });
                sleep(ms(1)).await;
                group.cancel();
                local.await;
                Ok(())
            });
        assert!(cancelled.await.unwrap_err().is_empty());
    });
}

#[test]
fn an_error_that_comes_after_the_cut_is_told_too() {
    paused(async || {
        let late = async |n: u64| {
            let section = async {
                sleep(ms(100 + n)).await;
                bad::<()>("late")
            };
            ringfence::shield(ms(1_000), section).await
        };
        let fan = || fan_out(0..20).limit(2).scope(until_100());
        let first = fan().first_success(late).await.unwrap_err();
        let all = fan().outcomes(late).await.unwrap_err();
        let each = fan().for_each(late).await.unwrap_err();
        for error in [first, all, each] {
            assert_eq!(names(&error), ["item 0", "item 1"]);
        }
    });
}

#[test]
fn errors_that_are_kept_when_it_is_dropped_or_panics_go_to_the_observer() {
    every_runtime(async || {
        for is_first in [false, true] {
            let log = Log::new();
            let progress = Progress::new();
            let fan = fan_out(0..4).scope(observed(&log)).progress(&progress);
            let waiting = Count::new();
            let count = waiting.clone();
            let task = spawn(async move {
                let function = move |n| even_fails_odd_waits(n, count.clone());
                if is_first {
                    fan.first_success(function).await.map(drop)
                } else {
                    fan.outcomes(function).await.map(drop)
                }
            });
            until(|| progress.failed() == 2 && waiting.get() == 2).await;
            task.abort();
            task.await.unwrap_err();
            root().wait(PATIENCE).await.unwrap();
            let told = sorted(&log);
            assert!(told.iter().all(|line| line.ends_with(": even")), "{told:?}");
            assert!(told.len() == 2, "{told:?}");
        }
    });
    paused(async || {
        let log = Log::new();
        let fan = fan_out(0..4).limit(4).scope(observed(&log));
        let thrown = caught(fan.outcomes(async |n| {
            assert!(n != 3, "three");
            even_fails(n).await
        }));
        assert_eq!(thrown.await.unwrap_err(), "three");
        assert_eq!(sorted(&log), ["item 0: even", "item 2: even"]);
    });
}

#[test]
fn the_failures_beside_a_success_are_overlooked() {
    paused(async || {
        let log = Log::new();
        let fan = fan_out(0..5).limit(5).scope(observed(&log).grace(ms(50)));
        let won = fan.first_success(async |n| match n {
            3 => {
                sleep(ms(1)).await;
                good(n)
            }
            // On the signal: too late.
            4 => {
                token().cancelled().await;
                bad("late")
            }
            _ => bad("lost"),
        });
        assert_eq!(won.await.unwrap(), Some(3));
        let told: Vec<_> = [0, 1, 2, 4]
            .map(|n| format!("item {n}: overlooked true"))
            .into();
        assert_eq!(sorted(&log), told);
    });
}

#[test]
fn a_failure_behind_results_that_nobody_takes_goes_to_the_observer() {
    struct ThrowsAtTwo(usize);
    impl Drop for ThrowsAtTwo {
        fn drop(&mut self) {
            assert!(self.0 != 2, "two");
        }
    }
    paused(async || {
        for (is_thrown, told) in [(false, "item 2: lost"), (true, "item 2: panic two")] {
            let log = Log::new();
            let fan = fan_out(0..3).scope(observed(&log).panics_as_errors());
            let mut results = fan.results(move |n| {
                let held = ThrowsAtTwo(if is_thrown { n } else { 0 });
                let ended = if n == 2 { bad("lost") } else { good(n) };
                async move {
                    drop(held);
                    ended
                }
            });
            assert_eq!(results.next().await.unwrap().unwrap(), 0);
            // It has ended, and a value is before its failure.
            sleep(ms(1)).await;
            assert_eq!(results.next().await.unwrap().unwrap(), 1);
            drop(results);
            assert_eq!(log.entries(), [told]);
        }
    });
}

/// Fails, and throws when it is dropped.
struct FailsTwice;

impl Future for FailsTwice {
    type Output = Result<(), Fail>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(bad("the error"))
    }
}

impl Drop for FailsTwice {
    fn drop(&mut self) {
        panic!("the destructor");
    }
}

#[test]
fn an_error_that_a_destructor_displaces_is_told_and_its_item_is_counted() {
    every_runtime(async || {
        for is_kept in [false, true] {
            let (log, progress) = (Log::new(), Progress::new());
            let scope = observed(&log);
            let scope = if is_kept {
                scope.panics_as_errors()
            } else {
                scope
            };
            let fan = fan_out(0..1).scope(scope).progress(&progress);
            match caught(fan.for_each(|_| FailsTwice)).await {
                Ok(ended) => assert!(is_kept && ended.unwrap_err().len() == 1),
                Err(thrown) => assert!(!is_kept && thrown == "the destructor"),
            }
            assert_eq!(log.entries(), ["item 0: the error"]);
            assert_eq!((progress.cancelled(), progress.in_flight()), (1, 0));
        }
        let progress = Progress::new();
        let local = fan_out(0..1).progress(&progress).local();
        let thrown = caught(local.for_each(|_| FailsTwice)).await.unwrap_err();
        assert_eq!(thrown, "the destructor");
        assert_eq!((progress.cancelled(), progress.in_flight()), (1, 0));
    });
}
