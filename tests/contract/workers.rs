//! Worker pools.

use std::convert::Infallible;
use std::future::{Future, pending, ready};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use futures::FutureExt;
use ringfence::queue::{self, Delivery, Queue, Receiver, RecvError};
use ringfence::{
    BoxError, Cause, Deliverable, Displaced, GroupError, Observer, Rate, RateLimiter, Retry, Scope,
    Source, Tally, TaskGroup, TaskInfo, WorkFailure, Workers, scope, token,
};
use tokio::{
    sync::oneshot,
    task::AbortHandle,
    time::{Instant, sleep},
};

use crate::support::{
    Count, Log, OnDrop, PanicOnDrop, every_runtime, multi_thread, paused, settle, single_thread,
    spawn,
};

const fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

fn tally(done: u64, failed: u64) -> (u64, u64) {
    (done, failed)
}

fn figures(tally: Tally) -> (u64, u64) {
    (tally.done, tally.failed)
}

#[test]
fn a_pool_handles_everything_and_ends_with_its_queue() {
    every_runtime(async || {
        let (sender, receiver) = queue::bounded(8);
        let running = Arc::new(Mutex::new((0, 0)));
        let handled = Count::new();
        let (tally, ()) = tokio::join!(
            async {
                let (running, handled) = (running.clone(), handled.clone());
                Workers::<Infallible>::new(3)
                    .run(receiver, move |job: Delivery<u32>| {
                        let (running, handled) = (running.clone(), handled.clone());
                        async move {
                            {
                                let mut running = running.lock().unwrap();
                                running.0 += 1;
                                running.1 = running.1.max(running.0);
                            }
                            tokio::task::yield_now().await;
                            running.lock().unwrap().0 -= 1;
                            handled.add();
                            Ok(job)
                        }
                    })
                    .await
                    .unwrap()
            },
            async {
                for job in 0..200 {
                    sender.send(job).await.unwrap();
                }
                drop(sender);
            }
        );
        assert_eq!((tally.done, handled.get()), (200, 200));
        assert!((1..=3).contains(&running.lock().unwrap().1));
    });
}

#[test]
fn a_failing_handler_does_not_end_its_worker() {
    paused(async || {
        let (sender, receiver) = Queue::bounded(8).redeliver(2).build();
        for job in 0..4 {
            sender.try_send(job).unwrap();
        }
        drop(sender);
        let failures: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = failures.clone();
        let result = Workers::new(1)
            .timeout(ms(50))
            .on_failure(move |failure| {
                told.lock().unwrap().push(match failure {
                    WorkFailure::Error(error) => error,
                    WorkFailure::Panicked(panic) => panic.message().to_owned(),
                    WorkFailure::TimedOut(elapsed) => elapsed.to_string(),
                    other => format!("{other:?}"),
                });
            })
            .run(receiver, |job: Delivery<u32>| {
                assert!(*job != 3 || job.attempt() > 1, "before its future");
                async move {
                    match (*job, job.attempt()) {
                        (0, 1) => Err("an error".to_owned()),
                        (1, 1) => panic!("a panic"),
                        (2, 1) => {
                            let _throws = OnDrop::new(|| panic!("a destructor"));
                            pending().await
                        }
                        _ => Ok(job),
                    }
                }
            })
            .await
            .unwrap();
        assert_eq!(figures(result), tally(4, 4));
        let expected = [
            "an error",
            "a panic",
            "not ready within 50ms",
            "before its future",
        ];
        assert_eq!(*failures.lock().unwrap(), expected);
    });
}

/// An observer that notes what it is told.
#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

impl Observer for Seen {
    fn displaced(&self, what: &Displaced) {
        self.0
            .lock()
            .expect("nobody panics with it")
            .push(what.to_string());
    }
}

/// Runs `pool` in a scope with an observer. Returns what it panicked with, and what the observer was told.
async fn observed<F: Future<Output = Result<Tally, GroupError<RecvError>>>>(
    pool: F,
) -> (Option<String>, Vec<String>) {
    let seen = Arc::new(Seen::default());
    let scope = Scope::new().observer(seen.clone());
    let ended = scope.run(async |_: &TaskGroup| pool.await.map(|_| ()).map_err(Into::into));
    let panic = AssertUnwindSafe(ended).catch_unwind().await.err();
    let message = panic.map(|panic| {
        panic
            .downcast_ref::<&str>()
            .copied()
            .unwrap_or("?")
            .to_owned()
    });
    let told = seen.0.lock().expect("nobody panics with it").clone();
    (message, told)
}

fn full(count: u32) -> Receiver<u32> {
    let (sender, receiver) = queue::bounded(count as usize);
    (0..count).for_each(|job| sender.try_send(job).expect("there is room"));
    receiver
}

#[test]
fn a_panic_without_a_hook_goes_on_in_the_caller() {
    single_thread(async || {
        let handled = Count::new();
        let counted = handled.clone();
        let pool = Workers::<()>::new(1).run(full(4), move |job: Delivery<u32>| {
            counted.add();
            async move {
                match *job {
                    1 => panic!("the first"),
                    2 => panic!("the second"),
                    _ => Ok(job),
                }
            }
        });
        let (panic, told) = observed(pool).await;
        assert_eq!(panic.as_deref(), Some("the first"));
        assert_eq!(handled.get(), 4); // when all was done
        assert!(told[0].contains("worker 1") && told[0].ends_with("panicked: the second"));
        assert_eq!(told.len(), 1);
    });
}

#[test]
fn a_panic_of_the_hook_goes_on_in_the_caller() {
    single_thread(async || {
        let handled = Count::new();
        let counted = handled.clone();
        let pool = Workers::new(2).on_failure(|_| panic!("the hook")).run(
            full(4),
            move |job: Delivery<u32>| {
                counted.add();
                async move { if *job == 0 { Err(()) } else { Ok(job) } }
            },
        );
        let (panic, told) = observed(pool).await;
        assert_eq!(panic.as_deref(), Some("the hook"));
        assert_eq!((handled.get(), told.len()), (4, 0));
    });
}

#[test]
fn a_panic_kept_by_a_pool_that_is_cut_short_reaches_the_observer() {
    paused(async || {
        let seen = Arc::new(Seen::default());
        let scope = Scope::new().observer(seen.clone());
        let ended = scope.run(async |group: &TaskGroup| {
            let pool = Workers::<()>::new(1).run(full(2), |job: Delivery<u32>| async move {
                assert!(*job == 1, "the first");
                pending().await
            });
            group.spawn(async move { pool.await.map(|_| ()).map_err(Into::into) });
            settle().await;
            group.cancel();
            pending::<Result<(), _>>().await
        });
        assert!(ended.await.is_err());
        assert_eq!(*seen.0.lock().unwrap(), ["panicked: the first"]);
    });
}

#[test]
fn a_panic_outranks_an_error_of_the_source() {
    single_thread(async || {
        let receiver = full(1);
        let closer = receiver.clone();
        let pool = Workers::<()>::new(1).run(receiver, move |_: Delivery<u32>| {
            closer.close(); // there is no sender to give it a cause
            async { panic!("a panic") }
        });
        let (panic, told) = observed(pool).await;
        assert_eq!((panic.as_deref(), told.len()), (Some("a panic"), 0));

        let (sender, receiver) = queue::bounded(1);
        sender.try_send(0).unwrap();
        let pool = Workers::<()>::new(1).run(receiver, move |_: Delivery<u32>| {
            sender.close_with("a cause");
            async { panic!("a panic") }
        });
        let (panic, told) = observed(pool).await;
        assert_eq!(panic.as_deref(), Some("a panic"));
        assert!(told.len() == 1 && told[0].ends_with("failed"), "{told:?}");
    });
}

#[test]
fn a_destructor_that_panics_ends_no_worker() {
    struct Bomb(u32, Count);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.1.add();
            assert!(self.0 != 1, "a destructor");
        }
    }
    single_thread(async || {
        let dropped = Count::new();
        let (sender, receiver) = queue::bounded(4);
        for job in 0..4 {
            assert!(sender.try_send(Bomb(job, dropped.clone())).is_ok());
        }
        drop(sender);
        let failures: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = failures.clone();
        let result = Workers::<()>::new(1)
            .on_failure(move |failure| told.lock().unwrap().push(format!("{failure:?}")))
            .run(receiver, |job: Delivery<Bomb>| async move { Ok(job) })
            .await
            .unwrap();
        assert_eq!(figures(result), tally(3, 1));
        assert_eq!(dropped.get(), 4);
        assert!(failures.lock().unwrap()[0].contains("a destructor"));
    });
}

#[test]
fn the_last_attempt_cut_by_a_shutdown_is_handed_back() {
    paused(async || {
        let (sender, receiver) = Queue::bounded(4).redeliver(1).build();
        sender.try_send(1).unwrap();
        let rest = receiver.clone();
        let ended = Scope::new().grace(ms(50)).run(async |group: &TaskGroup| {
            let pool = Workers::<()>::new(1).run(receiver, |job: Delivery<u8>| async move {
                sleep(ms(9_000)).await;
                Ok(job)
            });
            group.spawn(async move { pool.await.map(|_| ()).map_err(Into::into) });
            sleep(ms(5)).await;
            group.cancel();
            pending::<Result<(), _>>().await
        });
        assert!(matches!(ended.await, Err(error) if matches!(error.cause(), Cause::Cancelled(_))));
        assert_eq!(rest.abort(), [1]);
        assert_eq!(rest.stats().dead, 0);
    });
}

#[test]
fn what_keeps_failing_is_a_dead_letter() {
    single_thread(async || {
        let dead = Arc::new(Mutex::new(Vec::new()));
        let letters = dead.clone();
        let (sender, receiver) = Queue::bounded(8)
            .redeliver(3)
            .on_discard(move |job, why| letters.lock().unwrap().push((job, why)))
            .build();
        sender.try_send("good").unwrap();
        sender.try_send("poison").unwrap();
        drop(sender);
        let result = Workers::new(2)
            .run(receiver, |job: Delivery<&str>| async move {
                if *job == "poison" { Err(()) } else { Ok(job) }
            })
            .await
            .unwrap();
        assert_eq!(figures(result), tally(1, 3));
        let expected = [("poison", queue::Discarded::Dead { attempts: 3 })];
        assert_eq!(*dead.lock().unwrap(), expected);
    });
}

#[test]
fn a_pool_whose_work_finds_work_ends_by_itself() {
    every_runtime(async || {
        let (sender, receiver) = queue::bounded(1);
        sender.try_send(1_u32).unwrap();
        drop(sender);
        let result = Workers::<Infallible>::new(4)
            .run(receiver, |job: Delivery<u32>| async move {
                for next in [2 * *job, 2 * *job + 1] {
                    if next < 100 {
                        job.send(next).unwrap();
                    }
                }
                Ok(job)
            })
            .await
            .unwrap();
        assert_eq!(result.done, 99);
    });
}

#[test]
fn a_cancelled_pool_drains_within_the_grace() {
    paused(async || {
        let (sender, receiver) = queue::bounded(8);
        for job in 0..6 {
            sender.try_send(job).unwrap();
        }
        let start = Instant::now();
        let handled = Count::new();
        let counted = handled.clone();
        let error = Scope::new()
            .grace(ms(1_000))
            .run(async |group: &TaskGroup| {
                group.spawn(async move {
                    let pool =
                        Workers::<Infallible>::new(2).run(receiver, move |job: Delivery<u32>| {
                            let counted = counted.clone();
                            async move {
                                sleep(ms(100)).await;
                                counted.add();
                                Ok(job)
                            }
                        });
                    assert_eq!(pool.await.unwrap().done, 6);
                });
                sleep(ms(50)).await;
                group.cancel();
                settle().await;
                assert!(sender.try_send(9).is_err());
                sender.join().await;
                Ok(())
            })
            .await
            .unwrap_err();
        assert!(matches!(error.cause(), Cause::Cancelled(_)));
        assert!(error.forced().is_empty());
        assert_eq!((handled.get(), start.elapsed()), (6, ms(300)));
    });
}

#[test]
fn work_hears_of_no_cancel_while_its_pool_drains() {
    paused(async || {
        let (sender, receiver) = Queue::bounded(9).redeliver(1).build();
        for job in 0..6 {
            sender.try_send(job).unwrap();
        }
        let rate = Arc::new(RateLimiter::new(Rate::new(1, ms(10))));
        let error = Scope::new()
            .grace(ms(1_000))
            .run(async |group: &TaskGroup| {
                let stop = token();
                let pool = Workers::<BoxError>::new(2).run(receiver, move |job: Delivery<u32>| {
                    let (rate, stop) = (rate.clone(), stop.clone());
                    async move {
                        // Each is part of work that ends on a cancel, where it hears of one.
                        let flaky = Retry::constant(ms(10)).retry(|attempt| {
                            ready(if attempt.number > 1 {
                                Ok(())
                            } else {
                                Err("a bad day")
                            })
                        });
                        flaky.await?;
                        rate.acquire().await?;
                        scope(async |_: &TaskGroup| {
                            sleep(ms(10)).await;
                            Ok(())
                        })
                        .await?;
                        assert!(!token().is_cancelled());
                        assert!(*job < 2 || stop.is_cancelled());
                        Ok(job)
                    }
                });
                group.spawn(async {
                    assert_eq!(figures(pool.await.unwrap()), tally(6, 0));
                });
                sleep(ms(5)).await;
                group.cancel();
                sender.join().await;
                Ok(())
            })
            .await
            .unwrap_err();
        assert!(error.forced().is_empty());
    });
}

#[test]
fn what_was_not_done_is_handed_back() {
    paused(async || {
        let (sender, receiver) = Queue::bounded(8).redeliver(9).build();
        for job in 0..6 {
            sender.try_send(job).unwrap();
        }
        let rest = receiver.clone();
        let outcome = Scope::new()
            .grace(ms(250))
            .run(async |group: &TaskGroup| {
                group.spawn(async move {
                    let pool = Workers::<Infallible>::new(1).run(
                        receiver,
                        |job: Delivery<u32>| async move {
                            sleep(ms(100)).await;
                            Ok(job)
                        },
                    );
                    drop(pool.await);
                });
                settle().await;
                group.cancel();
                pending::<Result<(), _>>().await
            })
            .await;
        assert!(outcome.is_err());
        assert_eq!(rest.abort(), [2, 3, 4, 5]);
    });
}

/// A broker: it hands out numbers, fails after so many, and cannot mark every one.
#[derive(Clone)]
struct Broker {
    next: Count,
    until: usize,
    is_stopped: Arc<Mutex<bool>>,
}

struct Number(usize);

impl Source for Broker {
    type Delivery = Number;
    type Error = &'static str;

    async fn deliver(&mut self) -> Result<Option<Number>, &'static str> {
        tokio::task::yield_now().await;
        if *self.is_stopped.lock().expect("no poison") {
            return Ok(None);
        }
        match self.next.add() {
            number if number < self.until => Ok(Some(Number(number))),
            _ => Err("the connection is gone"),
        }
    }

    fn stop(&mut self) {
        *self.is_stopped.lock().expect("no poison") = true;
    }
}

impl Deliverable for Number {
    type Error = std::io::Error;

    async fn done(self) -> Result<(), std::io::Error> {
        if self.0 == 3 {
            return Err(std::io::Error::other("not marked"));
        }
        Ok(())
    }
}

#[test]
fn a_broker_can_stand_where_the_queue_stands() {
    single_thread(async || {
        let broker = Broker {
            next: Count::new(),
            until: 10,
            is_stopped: Arc::default(),
        };
        let (handled, told) = (Count::new(), Arc::new(Mutex::new(Vec::new())));
        let (counted, failures) = (handled.clone(), told.clone());
        let error = Workers::<Infallible>::new(2)
            .on_failure(move |failure| failures.lock().unwrap().push(format!("{failure:?}")))
            .run(broker, move |number: Number| {
                counted.add();
                async { Ok(number) }
            })
            .await
            .unwrap_err();
        assert_eq!(error.into_first().unwrap(), "the connection is gone");
        assert!(
            (9..=10).contains(&handled.get()),
            "the other worker may be cancelled at its last"
        );
        let told = told.lock().unwrap();
        assert!(
            told.len() == 1 && told[0].contains("not marked"),
            "{told:?}"
        );
    });
}

#[test]
fn a_stopped_source_ends_the_pool() {
    single_thread(async || {
        let mut broker = Broker {
            next: Count::new(),
            until: usize::MAX,
            is_stopped: Arc::default(),
        };
        let source = broker.clone();
        let result = scope(async |group: &TaskGroup| {
            let pool = group.spawn(async move {
                let pool = Workers::<Infallible>::new(2);
                Ok(pool
                    .run(source, |number: Number| async { Ok(number) })
                    .await
                    .unwrap())
            });
            settle().await;
            broker.stop();
            Ok(pool.await)
        })
        .await
        .unwrap();
        assert!(result.done > 2);
    });
}

#[test]
fn a_cause_ends_the_pool_with_an_error() {
    single_thread(async || {
        let (sender, receiver) = queue::bounded(4);
        sender.try_send(1).unwrap();
        sender.close_with("no more power");
        let handled = Count::new();
        let counted = handled.clone();
        let error = Workers::<Infallible>::new(1)
            .run(receiver, move |job: Delivery<u32>| {
                counted.add();
                async { Ok(job) }
            })
            .await
            .unwrap_err();
        let end = error.into_first().unwrap();
        assert_eq!(end.cause().unwrap().to_string(), "no more power");
        assert_eq!(handled.get(), 1);
    });
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn displaced(&self, what: &Displaced) {
        self.0
            .lock()
            .expect("nobody panics with it")
            .push(what.to_string());
    }
}

#[test]
fn errors_without_a_hook_reach_the_observer() {
    paused(async || {
        let told = Arc::new(Told::default());
        let (sender, receiver) = queue::bounded(4);
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        drop(sender);
        let tally = Scope::new()
            .observer(told.clone())
            .run(async |_: &TaskGroup| {
                let pool = Workers::new(1).timeout(ms(5));
                let run = pool.run(receiver, |job: Delivery<u32>| async move {
                    if *job == 2 {
                        pending::<()>().await;
                    }
                    drop(job);
                    Err("lost")
                });
                Ok(run.await.unwrap())
            })
            .await
            .unwrap();
        assert_eq!(figures(tally), (0, 2));
        let told = told.0.lock().unwrap();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told.iter().all(|told| told.contains("worker 1")),
            "{told:?}"
        );
    });
}

#[test]
fn the_hook_runs_when_the_delivery_is_gone() {
    paused(async || {
        let (sender, receiver) = queue::bounded(4);
        for job in 0..3 {
            sender.try_send(job).unwrap();
        }
        let (stats, seen) = (receiver.clone(), Count::new());
        let hook = seen.clone();
        drop(sender);
        let pool = Workers::new(1).timeout(ms(5)).on_failure(move |_| {
            assert_eq!(stats.stats().in_delivery, 0);
            hook.add();
        });
        let run = pool.run(receiver, |job: Delivery<u32>| async move {
            match *job {
                0 => pending().await,
                1 => panic!("a bad job"),
                _ => Err("failed"),
            }
        });
        assert_eq!(figures(run.await.unwrap()), (0, 3));
        assert_eq!(seen.get(), 3);
    });
}

#[test]
fn a_timeout_may_be_anything() {
    paused(async || {
        for (limit, expected) in [(Duration::MAX, (2, 0)), (Duration::ZERO, (0, 2))] {
            let (sender, receiver) = queue::bounded(4);
            sender.try_send(1).unwrap();
            sender.try_send(2).unwrap();
            drop(sender);
            let pool = Workers::<Infallible>::new(1).timeout(limit);
            let run = pool.run(receiver, |job: Delivery<u32>| async move {
                sleep(ms(10)).await;
                Ok(job)
            });
            assert_eq!(figures(run.await.unwrap()), expected);
        }
    });
}

#[test]
fn a_pool_may_be_fed_from_another_runtime() {
    let (sender, receiver) = queue::bounded(1);
    let feeder = std::thread::spawn(move || {
        single_thread(async move || {
            for job in 0..100_u32 {
                sender.send(job).await.unwrap();
            }
            sender.join().await;
        });
    });
    single_thread(async || {
        let run = Workers::<Infallible>::new(2).run(receiver, async |job: Delivery<u32>| Ok(job));
        assert_eq!(figures(run.await.unwrap()), (100, 0));
    });
    feeder.join().unwrap();
}

/// An observer that notes where each child was spawned.
#[derive(Default)]
struct Spawned(Mutex<Vec<(Option<String>, String, u32)>>);

impl Observer for Spawned {
    fn spawned(&self, task: &TaskInfo) {
        let (name, location) = (task.name().map(str::to_owned), task.location());
        let place = (name, location.file().to_owned(), location.line());
        self.0.lock().expect("nobody panics with it").push(place);
    }
}

#[test]
fn workers_are_found_where_their_pool_was_made() {
    paused(async || {
        let seen = Arc::new(Spawned::default());
        let made = line!() + 1;
        let pool = Workers::<Infallible>::new(1);
        let run = Scope::new().observer(seen.clone()).run(async |_| {
            let pool = pool.run(full(1), |job: Delivery<u32>| async move { Ok(job) });
            pool.await.map_err(BoxError::from)
        });
        assert_eq!(run.await.unwrap().done, 1);
        let expected =
            ["worker 1", "stop"].map(|name| (Some(name.to_owned()), file!().to_owned(), made));
        assert_eq!(*seen.0.lock().unwrap(), expected);
    });
}

#[test]
fn workers_are_started_as_there_is_work() {
    paused(async || {
        let (sender, receiver) = queue::bounded(8);
        let stats = receiver.clone();
        let pool = Workers::<Infallible>::new(usize::MAX);
        let pool = spawn(pool.run(receiver, |job: Delivery<u32>| async move {
            sleep(ms(10)).await;
            Ok(job)
        }));
        let (kept, stop, source) = (1, 1, 1);
        settle().await;
        assert_eq!(stats.stats().receivers, kept + stop + source);
        for job in 0..4 {
            sender.try_send(job).unwrap();
        }
        settle().await;
        assert_eq!(stats.stats().in_delivery, 4);
        assert_eq!(stats.stats().receivers, kept + stop + source + 4);
        sleep(ms(10)).await;
        for job in 0..4 {
            sender.try_send(job).unwrap();
        }
        settle().await;
        assert_eq!(stats.stats().in_delivery, 4);
        assert_eq!(stats.stats().receivers, kept + stop + source + 4);
        drop(sender);
        assert_eq!(pool.await.unwrap().unwrap().done, 8);
    });
}

#[test]
fn handlers_that_do_not_wait_run_on_all_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .build()
        .unwrap();
    let all = Arc::new(Barrier::new(3));
    let done = runtime.block_on(async {
        let pool = Workers::<Infallible>::new(3).run(full(3), move |job: Delivery<u32>| {
            all.wait();
            async move { Ok(job) }
        });
        spawn(pool).await.unwrap().unwrap().done
    });
    assert_eq!(done, 3);
}

/// A queue that has its pool dropped when it is looked at so often.
#[derive(Clone)]
struct Ends(Receiver<u32>, Count, usize, AbortHandle);

impl Source for Ends {
    type Delivery = Delivery<u32>;
    type Error = RecvError;

    async fn deliver(&mut self) -> Result<Option<Delivery<u32>>, RecvError> {
        if self.1.add() == self.2 {
            self.3.abort();
        }
        Source::deliver(&mut self.0).await
    }

    fn stop(&mut self) {}
}

#[test]
fn what_no_handler_has_seen_when_the_pool_is_forced_is_in_the_queue() {
    let kinds = [
        || Queue::bounded(8),
        || Queue::bounded(8).lifo(),
        || Queue::bounded(8).weight(|_| 1),
    ];
    for (kind, looks) in kinds
        .iter()
        .flat_map(|kind| [1, 2, 4].map(|looks| (kind, looks)))
    {
        let (sender, receiver) = kind().build();
        (0..8).for_each(|item| sender.try_send(item).unwrap());
        let (rest, seen) = (receiver.clone(), Log::new());
        let sees = seen.clone();
        multi_thread(1).block_on(async {
            let (tell, own) = oneshot::channel();
            let pool = spawn(async move {
                let source = Ends(receiver, Count::new(), looks, own.await.unwrap());
                // Each worker starts the next one, and lets it run first.
                let pool = Workers::new(6).run(source, move |job: Delivery<u32>| {
                    sees.push(*job);
                    pending::<Result<_, Infallible>>()
                });
                pool.await
            });
            tell.send(pool.abort_handle()).unwrap();
            assert!(pool.await.unwrap_err().is_cancelled());
        });
        let (seen, rest) = (seen.entries(), rest.abort());
        assert!(
            rest.is_sorted() || rest.is_sorted_by(|a, b| a > b),
            "{rest:?}"
        );
        assert_eq!(seen.len() + rest.len(), 8, "{seen:?}, {rest:?}");
    }
}

#[test]
fn a_handler_that_throws_when_it_goes_costs_no_error_and_meets_no_panic() {
    paused(async || {
        let handler = || {
            let held = PanicOnDrop("handler");
            move |_: Delivery<u32>| {
                let _held = &held;
                async { panic!("work") }
            }
        };
        let pool = Workers::<Infallible>::new(1).run(full(1), handler());
        let (thrown, told) = observed(pool).await;
        assert_eq!(thrown.as_deref(), Some("work"));
        assert_eq!(told, ["panicked: handler"]);
    });
}
