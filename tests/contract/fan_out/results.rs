//! Results one by one.

use std::future::pending;

use ringfence::{Progress, TaskGroup, Token, fan_out, root, scope, token};
use tokio::time::{Instant, sleep};

use super::{Fail, bad, counted, good, ms, parked};
use crate::support::{Count, Drops, Log, PATIENCE, every_runtime, paused, settle, spawn, until};

#[test]
fn they_come_in_order_or_as_they_finish() {
    paused(async || {
        let work = async |n: u64| {
            sleep(ms(100 - n * 10)).await;
            good(n)
        };
        let (mut all, mut results) = (Vec::new(), fan_out(0..5).limit(5).results(work));
        while let Some(result) = results.next().await {
            all.push(result.unwrap());
        }
        assert_eq!(all, [0, 1, 2, 3, 4]);
        let (mut all, mut results) = (Vec::new(), fan_out(0..5).limit(5).results_unordered(work));
        while let Some(result) = results.next().await {
            all.push(result.unwrap());
        }
        assert_eq!(all, [4, 3, 2, 1, 0]);
        assert!(results.next().await.is_none());
    });
}

#[test]
fn not_asked_for_an_hour_the_work_goes_on_up_to_its_bound_and_nothing_is_frozen() {
    paused(async || {
        let (taken, log, start) = (Count::new(), Log::new(), Instant::now());
        let (input, inner) = (counted(&taken).take(100), log.clone());
        let mut results = fan_out(input).limit(4).buffer(3).results(move |n| {
            let log = inner.clone();
            async move {
                sleep(ms(20)).await;
                log.push(start.elapsed().as_millis());
                good(n)
            }
        });
        assert_eq!(results.next().await.unwrap().unwrap(), 0);
        sleep(ms(3_600_000)).await;
        // One was taken; seven wait, of which none stands still half-way.
        assert_eq!(log.entries(), [20, 20, 20, 20, 40, 40, 40, 40]);
        assert_eq!(taken.get(), 8);
        let mut rest = 0;
        while let Some(result) = results.next().await {
            result.unwrap();
            rest += 1;
        }
        assert_eq!(rest, 99);
    });
}

#[test]
fn a_slow_first_item_holds_up_no_more_than_the_bound() {
    paused(async || {
        let taken = Count::new();
        let input = counted(&taken).take(1_000_000);
        let mut results = fan_out(input).limit(8).buffer(20).results(|n| async move {
            if n == 0 {
                sleep(ms(1_000)).await;
            }
            good(n)
        });
        let first = results.next();
        let mut first = std::pin::pin!(first);
        assert!(futures::poll!(first.as_mut()).is_pending());
        settle().await;
        assert_eq!(taken.get(), 28);
        assert_eq!(first.await.unwrap().unwrap(), 0);
    });
}

#[test]
fn a_failure_comes_after_what_was_ready_before_it() {
    paused(async || {
        let work = async |n: u64| {
            sleep(ms(n)).await;
            if n == 3 { bad("three") } else { good(n) }
        };
        let mut results = fan_out([1, 2, 3, 40]).limit(4).results(work);
        assert_eq!(results.next().await.unwrap().unwrap(), 1);
        sleep(ms(100)).await;
        assert_eq!(results.next().await.unwrap().unwrap(), 2);
        let error = results.next().await.unwrap().unwrap_err();
        assert_eq!(error.into_first().unwrap().to_string(), "three");
        assert!(results.next().await.is_none());
        assert!(results.next().await.is_none());
    });
}

#[test]
fn dropped_half_way_the_rest_is_cancelled_and_gone_before_its_owner_ends() {
    every_runtime(async || {
        let drops = Drops::new();
        scope(async |group: &TaskGroup<Fail>| {
            let inner = drops.clone();
            group.spawn(async move {
                let work = move |n: usize| {
                    let parked = parked(&inner);
                    async move {
                        if n > 0 {
                            parked.await?;
                        }
                        good(n)
                    }
                };
                let mut results = fan_out(0..100).limit(5).results(work);
                assert_eq!(results.next().await.unwrap().unwrap(), 0);
                Ok(())
            });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(drops.alive(), 0);
    });
}

#[test]
fn next_loses_nothing_when_it_is_dropped() {
    paused(async || {
        let mut results = fan_out(0..50).limit(3).results(async |n| {
            sleep(ms(n % 5)).await;
            good(n)
        });
        let mut all = Vec::new();
        loop {
            // Dropped after each poll that is pending.
            let next = futures::poll!(std::pin::pin!(results.next()));
            match next {
                std::task::Poll::Ready(Some(result)) => all.push(result.unwrap()),
                std::task::Poll::Ready(None) => break,
                std::task::Poll::Pending => sleep(ms(1)).await,
            }
        }
        assert!(all.into_iter().eq(0..50));
    });
}

#[test]
fn they_start_when_the_first_is_asked_for_and_end_with_the_one_who_asks() {
    every_runtime(async || {
        let taken = Count::new();
        let work = |_: usize| pending::<Result<(), Fail>>();
        let mut results = fan_out(counted(&taken)).limit(2).results(work);
        settle().await;
        assert_eq!(taken.get(), 0);
        assert!(futures::poll!(std::pin::pin!(results.next())).is_pending());
        until(|| taken.get() == 2).await;
        drop(results);
        root().wait(PATIENCE).await.unwrap();
    });
}

#[test]
fn a_deadline_holds_while_there_is_always_a_result() {
    paused(async || {
        let deadline = ringfence::Deadline::after(std::time::Duration::from_secs(1));
        let mut results = fan_out(0_u64..)
            .limit(4)
            .scope(ringfence::Scope::new().deadline(deadline))
            .results(|n| async move { Ok::<_, String>(n) });
        let mut taken = 0;
        let error = loop {
            match results.next().await {
                Some(Ok(_)) => taken += 1,
                Some(Err(error)) => break error,
                None => unreachable!("the input has no end"),
            }
            sleep(std::time::Duration::from_millis(10)).await;
        };
        assert!(error.is_deadline_exceeded());
        assert!((100..120).contains(&taken), "{taken}");
    });
}

#[test]
fn who_takes_results_that_are_ready_lets_others_run() {
    paused(async || {
        let (turns, progress) = (Count::new(), Progress::new());
        let inner = turns.clone();
        let other = spawn(async move {
            loop {
                inner.add();
                tokio::task::yield_now().await;
            }
        });
        let fan = fan_out(0..1_000).limit(4).buffer(1_000);
        let mut results = fan.progress(&progress).results(async |n| good(n));
        assert_eq!(results.next().await.unwrap().unwrap(), 0);
        until(|| progress.done() == 1_000).await;
        let before = turns.get();
        while let Some(result) = results.next().await {
            result.unwrap();
        }
        assert!(turns.get() - before > 5, "{} turns", turns.get() - before);
        other.abort();
    });
}

#[test]
fn dropped_they_are_cancelled_before_their_values_are_dropped() {
    /// Notes whether the item that made it was asked to end by the time it is dropped.
    struct Noting(Token, Log<bool>);
    impl Drop for Noting {
        fn drop(&mut self) {
            self.1.push(self.0.is_cancelled());
        }
    }
    paused(async || {
        let log = Log::new();
        let inner = log.clone();
        let mut results = fan_out(0..).limit(2).buffer(3).results_unordered(move |_| {
            let log = inner.clone();
            async move { good(Noting(token(), log)) }
        });
        let first = results.next().await.unwrap().unwrap();
        settle().await;
        drop(results);
        assert_eq!(log.entries(), [true; 5]);
        drop(first);
    });
}
