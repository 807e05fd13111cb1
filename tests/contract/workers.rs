//! Worker pools.

use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringfence::queue::{self, Delivery, Queue};
use ringfence::{Cause, Deliverable, Scope, Source, Tally, TaskGroup, WorkFailure, Workers, scope};
use tokio::time::{Instant, sleep};

use crate::support::{Count, OnDrop, every_runtime, paused, settle, single_thread};

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
                panic!("the hook, too");
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
