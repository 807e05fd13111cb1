//! Bounded fan-out: what runs, how much is taken, what comes out.

use std::{
    future::{Future, pending},
    sync::{Arc, Barrier, mpsc},
    time::Duration,
};

use ringfence::{FanOut, GroupError, Input, fan_out};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use crate::support::{
    Count, Drops, PATIENCE, Watchdog, caught, current_thread, every_runtime,
    every_runtime_in_a_task, multi_thread, paused, settle, spawn, until,
};

mod cut;
mod ends;
mod forms;
mod options;
mod peers;
mod results;
mod stream;
mod throws;
mod told;
mod unhurried;

type Fail = std::io::Error;
type Answer<T> = Result<T, GroupError<Fail>>;
type Boxed<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Succeeds with an error type that the tests need not name.
fn good<T>(value: T) -> Result<T, Fail> {
    Ok(value)
}

fn bad<T>(why: &str) -> Result<T, Fail> {
    Err(Fail::other(why))
}

/// Counts how many run at once.
#[derive(Clone, Debug, Default)]
struct Gauge {
    drops: Drops,
    peak: Arc<std::sync::atomic::AtomicUsize>,
}

impl Gauge {
    fn enter(&self) -> impl Drop + Send + use<> {
        let guard = self.drops.guard();
        let now = self.drops.alive();
        self.peak
            .fetch_max(now, std::sync::atomic::Ordering::SeqCst);
        guard
    }

    fn peak(&self) -> usize {
        self.peak.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// Numbers from 0 on, counting how many were taken.
fn counted(taken: &Count) -> impl Iterator<Item = usize> + Send + use<> {
    let taken = taken.clone();
    std::iter::from_fn(move || Some(taken.add()))
}

#[test]
fn at_most_the_limit_runs_at_once_and_the_limit_is_reached() {
    every_runtime(async || {
        for limit in [1, 3, 64] {
            let gauge = Gauge::default();
            let inner = gauge.clone();
            fan_out(0..300)
                .limit(limit)
                .for_each(move |_| {
                    let gauge = inner.clone();
                    async move {
                        let _in = gauge.enter();
                        for _ in 0..3 {
                            yield_now().await;
                        }
                    }
                })
                .await
                .unwrap();
            assert_eq!((gauge.drops.made(), gauge.drops.alive()), (300, 0));
            assert!(gauge.peak() <= limit);
        }
    });
    paused(async || {
        for limit in [1, 3, 64] {
            let gauge = Gauge::default();
            let work = async |_| {
                let _in = gauge.enter();
                sleep(ms(10)).await;
            };
            let start = Instant::now();
            fan_out(0..limit * 4)
                .limit(limit)
                .local()
                .for_each(work)
                .await
                .unwrap();
            assert_eq!((gauge.peak(), start.elapsed()), (limit, ms(40)));
            let (gauge, start) = (Gauge::default(), Instant::now());
            let inner = gauge.clone();
            let work = move |_| {
                let gauge = inner.clone();
                async move {
                    let _in = gauge.enter();
                    sleep(ms(10)).await;
                }
            };
            fan_out(0..limit * 4)
                .limit(limit)
                .for_each(work)
                .await
                .unwrap();
            assert_eq!((gauge.peak(), start.elapsed()), (limit, ms(40)));
        }
    });
}

#[test]
fn nothing_is_taken_from_the_input_that_there_is_no_room_for() {
    every_runtime(async || {
        let taken = Count::new();
        let parked = fan_out(counted(&taken))
            .limit(8)
            .for_each(|_| pending::<()>());
        let task = spawn(parked);
        until(|| taken.get() >= 8).await;
        settle().await;
        assert_eq!(taken.get(), 8);
        task.abort();
        let taken = Count::new();
        let local = fan_out(counted(&taken)).limit(8).local();
        let mut parked = std::pin::pin!(local.for_each(|_| pending::<()>()));
        assert!(futures::poll!(parked.as_mut()).is_pending());
        assert_eq!(taken.get(), 8);
    });
}

#[test]
fn a_worker_is_started_only_when_there_is_input_for_it() {
    paused(async || {
        let metrics = tokio::runtime::Handle::current().metrics();
        let most = Count::new();
        let work = move |_| {
            while most.get() < metrics.num_alive_tasks() {
                most.add();
            }
            assert!(most.get() <= 4, "more workers than items and one");
            async {}
        };
        fan_out(0..3).limit(1_000_000).for_each(work).await.unwrap();
    });
}

#[test]
fn an_input_without_end_can_be_cancelled() {
    every_runtime(async || {
        let taken = Count::new();
        let endless = spawn(fan_out(counted(&taken)).limit(4).for_each(async |_| {}));
        until(|| taken.get() > 1_000).await;
        endless.abort();
        assert!(endless.await.unwrap_err().is_cancelled());
        ringfence::root().wait(PATIENCE).await.unwrap();
        let end = taken.get();
        settle().await;
        assert_eq!(taken.get(), end);
    });
}

#[test]
fn an_input_that_lies_about_its_size_costs_nothing() {
    struct Liar(usize, (usize, Option<usize>));
    impl Iterator for Liar {
        type Item = usize;
        fn next(&mut self) -> Option<usize> {
            self.0 = self.0.checked_sub(1)?;
            Some(self.0)
        }
        fn size_hint(&self) -> (usize, Option<usize>) {
            self.1
        }
    }
    every_runtime(async || {
        for hint in [
            (0, Some(0)),
            (usize::MAX, Some(usize::MAX)),
            (usize::MAX, None),
            (9, Some(2)),
        ] {
            let work = async |n| good(n);
            let spawned = fan_out(Liar(50, hint))
                .limit(7)
                .collect(work)
                .await
                .unwrap();
            let local = fan_out(Liar(50, hint))
                .limit(7)
                .local()
                .collect(work)
                .await
                .unwrap();
            assert!(spawned.iter().rev().eq(&(0..50).collect::<Vec<_>>()));
            assert_eq!(spawned, local);
        }
    });
}

#[test]
fn an_input_that_blocks_holds_up_one_thread_only() {
    let _watchdog = Watchdog::start("an input that blocks", PATIENCE);
    let runtime = multi_thread(2);
    let (go, wait) = mpsc::channel();
    let asked = Count::new();
    let seen = asked.clone();
    let mut first = true;
    let input = std::iter::from_fn(move || {
        if std::mem::take(&mut first) {
            return Some(0);
        }
        seen.add();
        wait.recv().ok() // the thread stands still here
    });
    runtime.block_on(async move {
        let items = spawn(fan_out(input).limit(4).collect(async |n: i32| good(n)));
        until(|| asked.get() > 0).await;
        // One of two threads is left for this.
        spawn(async move { go.send(1) }).await.unwrap().unwrap();
        assert_eq!(items.await.unwrap().unwrap(), [0, 1]);
    });
}

#[test]
fn an_empty_input_ends_at_once() {
    every_runtime(async || {
        let none = Vec::<u8>::new;
        let work = async |n: u8| good(n);
        assert_eq!(fan_out(none()).collect(work).await.unwrap(), []);
        assert_eq!(fan_out(none()).collect_unordered(work).await.unwrap(), []);
        assert_eq!(fan_out(none()).fold(7, work, |_, _| 0).await.unwrap(), 7);
        assert_eq!(fan_out(none()).first_success(work).await.unwrap(), None);
        assert!(fan_out(none()).outcomes(work).await.unwrap().is_empty());
        assert!(fan_out(none()).results(work).next().await.is_none());
        fan_out(none()).for_each(async |_| {}).await.unwrap();
        let local = || fan_out(none()).local();
        assert_eq!(local().collect(work).await.unwrap(), []);
        assert_eq!(local().fold(7, work, |_, _| 0).await.unwrap(), 7);
        assert_eq!(local().first_success(work).await.unwrap(), None);
    });
}

#[test]
fn a_limit_of_zero_is_refused_and_the_greatest_is_none() {
    every_runtime(async || {
        let zero = caught(async { drop(fan_out(0..3).limit(0)) }).await;
        assert!(zero.unwrap_err().contains("must be at least 1, not 0"));
        let all = fan_out(0..100).limit(usize::MAX);
        assert_eq!(all.collect(async |n| good(n)).await.unwrap().len(), 100);
        let all = fan_out(0..100).limit(usize::MAX).local();
        assert_eq!(all.collect(async |n| good(n)).await.unwrap().len(), 100);
    });
}

#[test]
fn the_spawned_form_runs_items_in_parallel() {
    let _watchdog = Watchdog::start("two items that meet", PATIENCE);
    multi_thread(2).block_on(async {
        let meet = Arc::new(Barrier::new(2));
        let work = move |_| {
            let meet = meet.clone();
            async move {
                meet.wait(); // blocks the thread until the other is here
            }
        };
        fan_out(0..10).limit(2).for_each(work).await.unwrap();
    });
}

#[test]
fn the_local_form_borrows_and_needs_nothing_to_be_send() {
    every_runtime(async || {
        let words = [String::from("a"), String::from("bb")];
        let total = std::cell::Cell::new(0);
        let lengths = fan_out(&words)
            .limit(2)
            .local()
            .collect(async |word| {
                let kept = std::rc::Rc::new(word.len());
                yield_now().await;
                total.set(total.get() + *kept);
                good(word.as_str())
            })
            .await
            .unwrap();
        assert_eq!((lengths, total.get()), (vec!["a", "bb"], 3));
    });
}

#[test]
fn both_forms_can_be_spawned_and_borrow_from_the_caller() {
    /// A caller that borrows, as handlers do.
    async fn total(words: &[String]) -> Answer<usize> {
        let local = fan_out(words.iter().filter(|word| !word.is_empty()))
            .limit(2)
            .local()
            .fold(0, async |word| good(word.len()), |sum, n| sum + n)
            .await?;
        let sizes = words.iter().map(String::len).collect::<Vec<_>>();
        let spawned = fan_out(sizes)
            .limit(64)
            .collect(|n| async move { good(n) })
            .await?;
        Ok(local + spawned.iter().sum::<usize>())
    }
    every_runtime_in_a_task(|| async {
        let task = spawn(async {
            let words = vec!["one".to_owned(), String::new(), "three".to_owned()];
            total(&words).await
        });
        assert_eq!(task.await.unwrap().unwrap(), 16);
    });
}

#[test]
fn items_that_are_ready_at_once_let_others_run() {
    async fn test() {
        let turns = Count::new();
        let inner = turns.clone();
        let other = spawn(async move {
            loop {
                inner.add();
                yield_now().await;
            }
        });
        until(|| turns.get() > 0).await;
        let before = turns.get();
        fan_out(0..100_000)
            .limit(2)
            .for_each(async |_| {})
            .await
            .unwrap();
        let between = turns.get();
        assert!(between - before > 5, "{} turns", between - before);
        fan_out(0..100_000)
            .limit(2)
            .local()
            .for_each(async |_| {})
            .await
            .unwrap();
        assert!(turns.get() - between > 5);
        other.abort();
    }
    let _watchdog = Watchdog::start("items that never wait", PATIENCE);
    // On one thread each: with another one it is the system that gives turns.
    current_thread().block_on(test());
    multi_thread(1).block_on(async { spawn(test()).await.unwrap() });
}

#[test]
fn a_million_items_leave_no_stack_and_no_task_behind() {
    let _watchdog = Watchdog::start("a million items", PATIENCE);
    for runtime in [current_thread(), multi_thread(2)] {
        runtime.block_on(async {
            let metrics = tokio::runtime::Handle::current().metrics();
            let sum = |fan: FanOut<_, _>| fan.fold(0, async |n: u64| good(n), |sum, n| sum + n);
            let n = 200_000;
            assert_eq!(sum(fan_out(0..n).limit(64)).await.unwrap(), n * (n - 1) / 2);
            assert!(metrics.num_alive_tasks() <= 1);
        });
    }
}

/// Shows that a bound on any source can be written by users.
#[test]
fn a_source_of_ones_own_can_be_fanned_out() {
    struct Twice<S>(S, bool);
    impl<S: Input<Item: Clone>> Input for Twice<S> {
        type Item = S::Item;
        fn poll_next(
            &mut self,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<S::Item>> {
            // Pending every other time.
            self.1 = !self.1;
            if self.1 {
                cx.waker().wake_by_ref();
                return std::task::Poll::Pending;
            }
            self.0.poll_next(cx)
        }
    }
    struct Mark;
    impl<S: Input<Item: Clone>> ringfence::IntoInput<Mark> for Twice<S> {
        type Item = S::Item;
        type Input = Self;
        fn into_input(self) -> Self {
            self
        }
    }
    fn numbers() -> Twice<impl Input<Item = u8> + Send + 'static> {
        Twice(ringfence::IntoInput::into_input(0..100), false)
    }
    every_runtime(async || {
        let work = async |n| good(n);
        let all = fan_out::<_, Mark>(numbers()).limit(9).collect(work).await;
        assert!(all.unwrap().into_iter().eq(0..100));
        let all = fan_out::<_, Mark>(numbers())
            .limit(9)
            .local()
            .collect(work)
            .await;
        assert!(all.unwrap().into_iter().eq(0..100));
    });
}

/// An item that is never ready, and counts itself.
fn parked(drops: &Drops) -> impl Future<Output = Result<(), Fail>> + Send + use<> {
    let guard = drops.guard();
    async move {
        let _guard = guard;
        pending().await
    }
}
