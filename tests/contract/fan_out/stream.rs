//! Streams in and out.
#![cfg(feature = "stream")]

use futures::{StreamExt, stream};
use ringfence::{Progress, fan_out, root};
use tokio::time::{Instant, sleep};

use super::{Fail, good, ms};
use crate::support::{Count, PATIENCE, every_runtime, paused, spawn, until};

#[test]
fn a_stream_is_an_input_like_an_iterator() {
    every_runtime(async || {
        let input = || {
            stream::iter(0..300).then(|n| async move {
                tokio::task::yield_now().await;
                n
            })
        };
        let work = async |n: usize| {
            tokio::task::yield_now().await;
            good(n)
        };
        // Also in how many it says there are.
        let progress = Progress::new();
        let fan = fan_out(input()).limit(8).progress(&progress);
        let all = fan.collect(work).await.unwrap();
        assert!(all.into_iter().eq(0..300));
        assert_eq!(progress.total(), Some(300));
        let all = fan_out(input())
            .limit(8)
            .local()
            .collect(work)
            .await
            .unwrap();
        assert!(all.into_iter().eq(0..300));
    });
}

#[test]
fn results_come_while_the_input_is_slow() {
    paused(async || {
        let start = Instant::now();
        let input = stream::iter([10, 500]).then(move |at| async move {
            tokio::time::sleep_until(start + ms(at)).await;
            at
        });
        let mut results = fan_out(input).limit(4).results(async |n: u64| good(n));
        assert_eq!(results.next().await.unwrap().unwrap(), 10);
        assert_eq!(start.elapsed(), ms(10));
        assert_eq!(results.next().await.unwrap().unwrap(), 500);
        assert_eq!(start.elapsed(), ms(500));
    });
}

#[test]
fn one_worker_at_a_time_waits_for_the_input() {
    paused(async || {
        let metrics = tokio::runtime::Handle::current().metrics();
        let input = stream::iter(0..20).then(|n| async move {
            sleep(ms(10)).await;
            n
        });
        // Each item is done before the next comes: one that runs, and one that waits for the next.
        let task = spawn(
            fan_out(input)
                .limit(1_000)
                .for_each(async |_| sleep(ms(5)).await),
        );
        sleep(ms(150)).await;
        assert!(
            metrics.num_alive_tasks() <= 3,
            "{}",
            metrics.num_alive_tasks()
        );
        task.await.unwrap().unwrap();
    });
}

#[test]
fn a_stream_that_is_pending_for_ever_is_cancelled() {
    every_runtime(async || {
        let (asked, seen) = (Count::new(), Count::new());
        let inner = asked.clone();
        let input = stream::poll_fn(move |_| {
            inner.add();
            std::task::Poll::<Option<u8>>::Pending
        });
        let count = seen.clone();
        let task = spawn(fan_out(input).limit(4).for_each(move |_| {
            count.add();
            async {}
        }));
        until(|| asked.get() > 0).await;
        task.abort();
        drop(task.await);
        root().wait(PATIENCE).await.unwrap();
        assert_eq!(seen.get(), 0);
    });
}

#[test]
fn results_are_a_stream() {
    every_runtime(async || {
        let results = fan_out(0..30).limit(4).results(async |n: usize| good(n));
        let all: Vec<Result<usize, _>> = results.collect().await;
        let all: Result<Vec<usize>, ringfence::GroupError<Fail>> = all.into_iter().collect();
        assert!(all.unwrap().into_iter().eq(0..30));
    });
}

#[test]
fn an_item_behind_its_key_runs_while_the_input_is_pending() {
    paused(async || {
        let start = Instant::now();
        let input = stream::iter([1, 1]).chain(stream::once(async {
            sleep(ms(1_000)).await;
            2
        }));
        let log = crate::support::Log::new();
        let inner = log.clone();
        let fan = fan_out(input).limit(8).key(|n| *n);
        fan.for_each(move |n: u8| {
            let log = inner.clone();
            async move {
                log.push((n, start.elapsed().as_millis()));
                sleep(ms(10)).await;
            }
        })
        .await
        .unwrap();
        assert_eq!(log.entries(), [(1, 0), (1, 10), (2, 1_000)]);
    });
}
