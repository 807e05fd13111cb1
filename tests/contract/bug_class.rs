//! The fifteen ways in which production code on tokio goes wrong most often, and what becomes of each here.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::FutureExt;
use ringfence::{
    CancelReason, Cause, Failure, Jitter, Limiter, Outcome, OwnedGroup, PanicPayload, Retry,
    RetryReason, Scope, SingleFlight, Slots, TaskGroup, Verdict, Workers, fan_out,
    queue::{Delivery, Queue, SendError, bounded},
    root, scope, shield, snapshot, token,
};
use tokio::{
    runtime::Builder,
    task::yield_now,
    time::{Instant, sleep},
};

use crate::support::{Count, Drops, every_runtime, paused, single_thread, until};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn finished_children_do_not_pile_up_though_nobody_joins_them() {
    every_runtime(async || {
        let drops = Drops::new();
        let group = OwnedGroup::<String>::new();
        for _ in 0..1_000 {
            let held = drops.guard();
            drop(group.spawn(async move { drop(held) }));
        }
        until(|| drops.alive() == 0).await;
        until(|| group.is_empty()).await;
        let report = group.shutdown(Duration::ZERO).await;
        assert!(report.is_clean() && report.failures().is_empty());
    });
}

#[test]
fn a_panic_ends_the_group_though_nobody_looks_at_the_child() {
    every_runtime(async || {
        let drops = Drops::new();
        let held = drops.guard();
        let ended = Scope::new()
            .panics_as_errors()
            .run(async move |group: &TaskGroup<String>| {
                let _served = group.spawn(async move {
                    let _held = held;
                    pending::<()>().await;
                });
                let _dies = group.spawn(async { panic!("the listener is dead") });
                // Nobody awaits either of them: what is awaited here is something else, for ever.
                pending::<Result<(), String>>().await
            })
            .await;
        let error = ended.expect_err("a failure");
        let panic = error.iter().next().and_then(Failure::panic);
        assert_eq!(
            panic.map(PanicPayload::message),
            Some("the listener is dead")
        );
        assert_eq!(drops.alive(), 0);
    });
}

#[test]
fn cancelled_is_not_taken_for_panicked() {
    paused(async || {
        let group = OwnedGroup::<String>::new();
        let cancelled = group.spawn(pending::<()>());
        cancelled.cancel();
        assert_eq!(cancelled.await, Outcome::Cancelled(CancelReason::Handle));
        let other = Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .expect("a runtime");
        let gone = {
            let _inside = other.enter();
            OwnedGroup::<String>::new().spawner().spawn(pending::<()>())
        };
        other.shutdown_background();
        assert!(matches!(
            gone.await,
            Outcome::Cancelled(_) | Outcome::RuntimeGone
        ));
    });
}

#[test]
fn what_a_timeout_ends_has_ended() {
    paused(async || {
        let drops = Drops::new();
        let held = drops.guard();
        let late = ringfence::timeout(
            ms(10),
            scope(async move |group: &TaskGroup| {
                let (held, below) = (held, group.spawner());
                group.spawn(async move {
                    let _below = below.spawn(async move {
                        let _held = held;
                        pending::<()>().await;
                    });
                    pending::<()>().await;
                });
                Ok(())
            }),
        );
        assert!(late.await.is_err());
        root().wait(ms(100)).await.expect("nothing is alive");
        assert_eq!((drops.made(), drops.alive()), (1, 0));
    });
}

#[test]
fn nothing_starts_after_the_end_was_decided() {
    every_runtime(async || {
        let group = OwnedGroup::<String>::new();
        let (spawner, started) = (group.spawner(), Count::new());
        let children = spawner.clone();
        let theirs = started.clone();
        group.spawn(async move {
            token().cancelled().await;
            // A child that is told to end tries to put its work off.
            let put_off = children.spawn(async move {
                theirs.add();
            });
            assert!(matches!(put_off.await, Outcome::Cancelled(_)));
        });
        let report = group.shutdown(ms(50)).await;
        assert!(report.is_clean(), "{report:?}");
        let ours = started.clone();
        let refused = spawner.try_spawn(async move {
            ours.add();
        });
        // It comes back, to be run elsewhere.
        refused.expect_err("closed").into_inner().await;
        assert_eq!(started.get(), 1);
    });
}

#[test]
fn who_holds_up_a_shutdown_is_named() {
    paused(async || {
        let began = Instant::now();
        let error = Scope::new()
            .grace(ms(50))
            .run(async |group: &TaskGroup<String>| {
                group.named("the one that hangs").spawn(pending::<()>());
                sleep(ms(1)).await;
                let alive = snapshot().to_string();
                assert!(alive.contains("the one that hangs"), "{alive}");
                Err::<(), _>("the end".to_owned())
            })
            .await
            .expect_err("it failed");
        assert_eq!(error.forced()[0].name(), Some("the one that hangs"));
        assert_eq!(began.elapsed(), ms(51));
    });
}

#[test]
fn work_goes_on_while_its_results_are_being_used() {
    paused(async || {
        // Each result holds the lock that the next item needs. With futures that only their consumer polls, the one that
        // has queued for it would never run again.
        let (lock, began) = (Arc::new(tokio::sync::Mutex::new(())), Instant::now());
        let inside = lock.clone();
        let mut results = fan_out(0..4_u32).limit(2).results_unordered(move |item| {
            let lock = inside.clone();
            async move {
                let _held = lock.lock().await;
                sleep(ms(10)).await;
                Ok::<_, String>(item)
            }
        });
        let mut seen = Vec::new();
        while let Some(item) = results.next().await {
            seen.push(item.expect("an item"));
            // The consumer is busy, and wants the same lock.
            let _held = lock.lock().await;
            sleep(ms(1)).await;
        }
        assert_eq!(seen.len(), 4);
        assert!(began.elapsed() < ms(100));
    });
}

#[test]
fn a_limit_of_one_is_enough_however_deep_the_nesting() {
    fn deeper(slots: Slots, depth: u32) -> futures::future::BoxFuture<'static, u32> {
        async move {
            if depth == 0 {
                return 0;
            }
            let inner = scope(async move |group: &TaskGroup<String>| {
                let below = deeper(slots.clone(), depth - 1).map(Ok);
                Ok(group.limit(&slots).spawn(below).await.await)
            });
            inner.await.expect("it ends") + 1
        }
        .boxed()
    }
    every_runtime(async || assert_eq!(deeper(Slots::new(1), 5).await, 5));
}

#[test]
fn no_destructor_blocks() {
    single_thread(async || {
        // One thread: a destructor that waited for what it drops would wait for ever.
        let (sender, receiver) = bounded::<u32>(1);
        let group = OwnedGroup::<String>::new();
        let sends = sender.clone();
        group.spawn(async move { while sends.send(1).await.is_ok() {} });
        group.spawn(shield(ms(100), async { sleep(ms(5)).await }));
        let mut dropped = Box::pin(scope(async |group: &TaskGroup| {
            group.spawn(pending::<()>());
            pending::<Result<(), _>>().await
        }));
        assert!((&mut dropped).now_or_never().is_none());
        yield_now().await;
        drop(dropped);
        drop((group, sender, receiver));
        root()
            .wait(Duration::from_secs(20))
            .await
            .expect("all ends");
    });
}

#[test]
fn a_section_that_must_finish_does_though_its_caller_goes() {
    paused(async || {
        let steps = Arc::new(Mutex::new(Vec::new()));
        let note = {
            let steps = steps.clone();
            move |step| steps.lock().expect("no panic").push(step)
        };
        let transaction = scope(async move |group: &TaskGroup| {
            group.spawn(shield(ms(100), async move {
                note("begin");
                sleep(ms(10)).await;
                note("commit");
            }));
            Ok(())
        });
        // The client goes away half way through.
        assert!(ringfence::timeout(ms(5), transaction).await.is_err());
        root().wait(ms(100)).await.expect("nothing is alive");
        assert_eq!(*steps.lock().expect("no panic"), ["begin", "commit"]);
    });
}

#[test]
fn a_bound_holds_back_those_who_make_work() {
    paused(async || {
        // Nothing is taken from the input before there is room: no unbounded heap of tasks behind a bounded queue.
        let (taken, running, most) = (Count::new(), Count::new(), Arc::new(Mutex::new(0)));
        let (input, most_seen) = (taken.clone(), most.clone());
        let source = (0..100_u32).inspect(move |_| {
            input.add();
        });
        let (taken_inside, done) = (taken.clone(), running.clone());
        let all = fan_out(source).limit(3).for_each(move |_| {
            let (taken, done, most) = (taken_inside.clone(), done.clone(), most_seen.clone());
            async move {
                let ahead = taken.get() - done.get();
                {
                    let mut most = most.lock().expect("no panic");
                    *most = ahead.max(*most);
                }
                sleep(ms(1)).await;
                done.add();
                Ok::<_, String>(())
            }
        });
        all.await.expect("no failure");
        assert_eq!((taken.get(), running.get()), (100, 100));
        assert!(*most.lock().expect("no panic") <= 4);
        // And a queue gives back what it has no room for.
        let (sender, _receiver) = bounded(1);
        sender.try_send(1).expect("room");
        assert!(matches!(sender.try_send(2), Err(SendError::Full(2))));
    });
}

#[test]
fn workers_may_feed_their_own_queue_and_it_ends_by_itself() {
    paused(async || {
        // A tree of work through a queue of one place: its only worker is also who sends.
        let (sender, receiver) = Queue::bounded(1).build();
        sender.send(5_u32).await.expect("open");
        drop(sender);
        let tally = Workers::<String>::new(1)
            .run(receiver, |job: Delivery<u32>| async move {
                for _ in 0..if *job > 0 { 2 } else { 0 } {
                    job.send(*job - 1).expect("open while somebody works");
                }
                Ok(job)
            })
            .await
            .expect("no failure");
        assert_eq!((tally.done, tally.failed), (63, 0));
    });
}

#[test]
fn a_retry_pauses_ends_and_says_why() {
    paused(async || {
        // The server says "at once", each time: the policy's delays hold. The last failure is followed by no pause.
        let policy = Retry::constant(ms(50)).jitter(Jitter::None).attempts(4);
        let began = Instant::now();
        let error = policy
            .retry(async |_| Err::<(), _>("busy"))
            .classify(|_: &Result<(), &str>| Verdict::RetryAfter(Duration::ZERO))
            .await
            .expect_err("it never works");
        assert_eq!(
            (error.reason(), error.attempts()),
            (RetryReason::AttemptsExhausted, 4)
        );
        assert_eq!(error.last_error(), Some(&"busy"));
        assert_eq!((began.elapsed(), error.elapsed()), (ms(150), ms(150)));
        // And a stop ends the pause.
        let group = OwnedGroup::<String>::new();
        let stopped = group.spawn(async {
            let policy = Retry::constant(Duration::from_secs(3600)).unlimited();
            let ended = policy.retry(async |_| Err::<(), _>("down")).await;
            Ok(ended.expect_err("it never works").reason())
        });
        yield_now().await;
        let began = Instant::now();
        let report = group.shutdown(ms(50)).await;
        assert!(report.is_clean());
        assert_eq!(stopped.await, Outcome::Completed(RetryReason::Cancelled));
        assert_eq!(began.elapsed(), Duration::ZERO);
    });
}

#[test]
fn what_is_counted_comes_back_however_work_ends() {
    paused(async || {
        let (slots, limiter) = (Slots::new(2), Limiter::new(2));
        let flights = SingleFlight::<u32, u32, String>::new();
        for how in 0..3 {
            let (slots, limiter) = (slots.clone(), limiter.clone());
            let ended = Scope::new()
                .panics_as_errors()
                .run(async |group: &TaskGroup<String>| {
                    let limited = group.limit(&slots);
                    for _ in 0..2 {
                        let limiter = limiter.clone();
                        let child = limited.spawn(async move {
                            let _permit = limiter.acquire().await;
                            sleep(ms(1)).await;
                            match how {
                                0 => Err("failed".to_owned()),
                                1 => panic!("panicked"),
                                _ => pending::<Result<(), String>>().await,
                            }
                        });
                        child.await;
                    }
                    sleep(ms(10)).await;
                    Err::<(), _>("over".to_owned())
                })
                .await;
            assert!(ended.is_err());
            assert_eq!((slots.free(), limiter.in_flight()), (2, 0), "{how}");
        }
        // The leader dies: those who wait for it hear of that, and the next caller leads.
        let leader = flights.run(1, || async { panic!("the leader is dead") });
        let follower = flights.run(1, || async { Ok(2) });
        let (led, followed) = tokio::join!(leader, follower);
        assert!(led.is_err() && followed.is_err());
        assert_eq!(flights.run(1, || async { Ok(3) }).await.ok(), Some(3));
    });
}

#[test]
fn a_closed_source_ends_once_and_a_stop_wins_over_ready_work() {
    paused(async || {
        // A queue that is never empty, a worker that never waits, and a stop: no select in sight.
        let (sender, mut receiver) = bounded::<u32>(10);
        let handled = Count::new();
        let counted = handled.clone();
        let error = scope(async |group: &TaskGroup<String>| {
            group.spawn(async move { while sender.send(1).await.is_ok() {} });
            group.spawn(async move {
                while receiver.recv().await.is_ok() {
                    counted.add();
                }
            });
            until(|| handled.get() > 100).await;
            group.cancel();
            Ok(())
        })
        .await
        .expect_err("it was cancelled");
        assert!(matches!(error.cause(), Cause::Cancelled(_)));
        assert!(handled.get() > 0);
        // Closed, it says so, and each time.
        let (sender, mut receiver) = bounded::<u32>(1);
        drop(sender);
        for _ in 0..3 {
            assert!(receiver.recv().await.is_err());
        }
    });
}
