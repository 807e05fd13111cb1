//! Cancel: what ends a run from outside; and attempts without a limit.

use std::{
    cell::Cell,
    future::{Future, pending},
    sync::Arc,
    time::Duration,
};

use futures::poll;
use ringfence::{
    Cause, Deadline, OwnedGroup, Retry, RetryError, RetryReason, Scope, TaskGroup, Verdict, scope,
    token,
};
use tokio::time::{Instant, sleep};

use super::{Flaky, Oops, STEADY, ms};
use crate::support::{Drops, Log, every_runtime, paused, settle};

const SLOW: Retry = Retry::constant(ms(1000)).jitter(ringfence::Jitter::None);

#[test]
fn a_signal_ends_a_pause() {
    paused(async || {
        let start = Instant::now();
        let log = Log::new();
        let ended = Scope::new()
            .grace(ms(10_000))
            .run(async |group: &TaskGroup<Oops>| {
                let log = log.clone();
                group.spawn(async move {
                    let error = SLOW
                        .retry(|_| async { Err::<(), _>(Oops(4)) })
                        .await
                        .unwrap_err();
                    log.push((error.reason(), error.last_error().copied(), start.elapsed()));
                    Ok(())
                });
                sleep(ms(50)).await;
                group.cancel();
                pending::<Result<(), Oops>>().await
            });
        assert!(matches!(
            ended.await.unwrap_err().cause(),
            Cause::Cancelled(_)
        ));
        assert_eq!(
            log.entries(),
            [(RetryReason::Cancelled, Some(Oops(4)), ms(50))]
        );
    });
}

#[test]
fn a_signal_lets_the_attempt_finish() {
    paused(async || {
        let start = Instant::now();
        let log = Log::new();
        let ended = Scope::new()
            .grace(ms(10_000))
            .run(async |group: &TaskGroup<Oops>| {
                for good in [true, false] {
                    let log = log.clone();
                    group.spawn(async move {
                        let run = SLOW.retry(|_| async {
                            sleep(ms(200)).await;
                            if good { Ok(1) } else { Err(Oops(2)) }
                        });
                        let ended = run.await.map_err(|error| error.reason());
                        log.push((ended, start.elapsed()));
                        Ok(())
                    });
                }
                sleep(ms(50)).await;
                group.cancel();
                pending::<Result<(), Oops>>().await
            });
        assert!(ended.await.is_err());
        assert_eq!(
            log.entries(),
            [(Ok(1), ms(200)), (Err(RetryReason::Cancelled), ms(200))]
        );
    });
}

#[test]
fn a_cancelled_task_begins_no_run_unless_told_to() {
    paused(async || {
        let flaky = Flaky::new(0);
        let ended = Scope::new()
            .grace(ms(1000))
            .run(async |group: &TaskGroup<Oops>| {
                group.cancel();
                let error = STEADY.retry(|_| flaky.call()).await.unwrap_err();
                assert_eq!(
                    (error.reason(), error.attempts()),
                    (RetryReason::Cancelled, 0)
                );
                assert_eq!((error.last(), flaky.calls.get()), (None, 0));
                let goodbye = STEADY.retry(|_| flaky.call()).cancel_on(None).await;
                assert_eq!(goodbye.unwrap(), 1);
                Ok(())
            });
        assert!(ended.await.is_err());
    });
}

#[test]
fn in_a_shield_nothing_is_asked_to_end() {
    paused(async || {
        let start = Instant::now();
        let ended = Scope::new()
            .grace(ms(10))
            .run(async |group: &TaskGroup<Oops>| {
                group.cancel();
                let (flaky, copies) = (Flaky::new(2), Cell::new(0));
                ringfence::shield(ms(5000), async {
                    assert_eq!(STEADY.retry(|_| flaky.call()).await.unwrap(), 3);
                    let hedge = ringfence::Hedge::after(ms(10));
                    let run = hedge.run(|attempt| {
                        copies.set(attempt.number);
                        async {
                            sleep(ms(50)).await;
                            Ok::<_, Oops>(())
                        }
                    });
                    run.await.unwrap();
                })
                .await;
                assert_eq!((copies.get(), start.elapsed()), (2, ms(250)));
                Ok(())
            });
        assert!(ended.await.is_err());
    });
}

#[test]
fn a_run_that_goes_on_elsewhere_heeds_what_is_around_it_there() {
    /// A run in its first pause, which is long, and what comes of it.
    async fn begun() -> std::pin::Pin<Box<impl Future<Output = Result<(), RetryError<Oops>>>>> {
        let run = SLOW.retry(async |attempt| match attempt.number {
            3 => Ok(()),
            number => Err(Oops(number)),
        });
        let mut run = Box::pin(run.into_future());
        assert!(poll!(run.as_mut()).is_pending());
        run
    }
    paused(async || {
        let start = Instant::now();
        // Into a group: its signal, and its deadline.
        let (run, grace) = (begun().await, Scope::new().grace(ms(60_000)));
        let ended = grace.run(async |group: &TaskGroup<Oops>| {
            group.cancel();
            assert_eq!(run.await.unwrap_err().reason(), RetryReason::Cancelled);
            Ok(())
        });
        assert!(ended.await.is_err());
        assert_eq!(start.elapsed(), ms(0));
        let run = begun().await;
        let limited = Scope::new().deadline(Deadline::after(ms(1500)));
        let ended = limited.run(async |_: &TaskGroup<Oops>| Ok(run.await));
        let error = ended.await.unwrap().unwrap_err();
        assert_eq!(
            (error.reason(), error.elapsed()),
            (RetryReason::Deadline, ms(1000))
        );
        // Out of a group that has ended.
        let run = scope(async |_: &TaskGroup<Oops>| Ok(begun().await));
        assert!(run.await.unwrap().await.is_ok());
        // Out of a shield.
        let ended = Scope::new()
            .grace(ms(60_000))
            .run(async |group: &TaskGroup<Oops>| {
                let run = ringfence::shield(ms(10), begun()).await;
                group.cancel();
                assert_eq!(run.await.unwrap_err().reason(), RetryReason::Cancelled);
                Ok(())
            });
        assert!(ended.await.is_err());
    });
}

#[test]
fn a_run_can_listen_to_another_token() {
    paused(async || {
        let (give, take) = tokio::sync::oneshot::channel();
        let start = Instant::now();
        let group = async {
            let scope = Scope::new().grace(ms(5000));
            let ended = scope.run(async |group: &TaskGroup<Oops>| {
                drop(give.send(token()));
                sleep(ms(50)).await;
                group.cancel();
                Ok(())
            });
            ended.await.is_err()
        };
        let run = async {
            let token = take.await.unwrap();
            SLOW.retry(|_| async { Err::<(), _>(Oops(0)) })
                .cancel_on(token)
                .await
        };
        let (_, ended) = tokio::join!(group, run);
        assert_eq!(ended.unwrap_err().reason(), RetryReason::Cancelled);
        assert_eq!(start.elapsed(), ms(50));
    });
}

#[test]
fn a_cancel_is_not_a_deadline() {
    paused(async || {
        let scope = Scope::new()
            .grace(ms(1000))
            .deadline(Deadline::after(ms(5000)));
        let ended = scope.run(async |group: &TaskGroup<Oops>| {
            group.spawn(async {
                let error = SLOW
                    .retry(|_| async { Err::<(), _>(Oops(0)) })
                    .await
                    .unwrap_err();
                assert_eq!(error.reason(), RetryReason::Cancelled);
                Ok(())
            });
            sleep(ms(10)).await;
            group.cancel();
            pending::<Result<(), Oops>>().await
        });
        assert!(matches!(
            ended.await.unwrap_err().cause(),
            Cause::Cancelled(_)
        ));
    });
}

#[test]
fn a_forced_run_is_dropped_where_it_is() {
    every_runtime(async || {
        let drops = Drops::new();
        let begun = Arc::new(tokio::sync::Semaphore::new(0));
        let ended = scope(async |group: &TaskGroup<Oops>| {
            for pauses in [true, false] {
                let (guard, begun) = (drops.guard(), begun.clone());
                group.spawn(async move {
                    let _guard = guard;
                    let patient = Retry::constant(Duration::from_secs(3600)).cap(Duration::MAX);
                    let run = patient.retry(async |_| {
                        begun.add_permits(1);
                        if !pauses {
                            pending::<()>().await;
                        }
                        Err::<(), _>(Oops(0))
                    });
                    run.await.map_err(|error| error.into_error().unwrap())
                });
            }
            begun.acquire_many(2).await.unwrap().forget();
            group.cancel();
            pending::<Result<(), Oops>>().await
        });
        assert!(ended.await.is_err());
        assert_eq!((drops.made(), drops.alive()), (2, 0));
    });
}

#[test]
fn a_signal_at_the_end_of_a_pause_makes_one_outcome() {
    paused(async || {
        for early in [99, 100, 101] {
            let calls = Cell::new(0);
            let ended = Scope::new()
                .grace(ms(1000))
                .run(async |group: &TaskGroup<Oops>| {
                    let run = STEADY.retry(|_| {
                        calls.set(calls.get() + 1);
                        async { Err::<(), _>(Oops(0)) }
                    });
                    let cancel = async {
                        sleep(ms(early)).await;
                        group.cancel();
                    };
                    let (ended, ()) = tokio::join!(run.into_future(), cancel);
                    assert_eq!(ended.unwrap_err().reason(), RetryReason::Cancelled);
                    Ok(())
                });
            assert!(ended.await.is_err());
            let seen = calls.get();
            assert!(
                if early < 100 {
                    seen == 1
                } else {
                    (1..=2).contains(&seen)
                },
                "{seen}"
            );
        }
    });
}

#[test]
fn unlimited_attempts_go_on_until_one_succeeds() {
    paused(async || {
        let flaky = Flaky::new(1000);
        let policy = STEADY.unlimited();
        let run = policy.retry(|_| flaky.call());
        assert_eq!(run.await.unwrap(), 1001);
        assert_eq!(flaky.now(), 100_000);
    });
}

#[test]
fn a_pause_leaves_nothing_with_the_group() {
    paused(async || {
        let ended = Scope::new()
            .grace(ms(1000))
            .run(async |_: &TaskGroup<Oops>| {
                for _ in 0..100 {
                    let flaky = Flaky::new(2);
                    assert!(STEADY.retry(|_| flaky.call()).await.is_ok());
                }
                settle().await;
                Ok(token().is_cancelled())
            });
        assert!(!ended.await.unwrap());
    });
}

#[test]
fn the_shutdown_of_a_long_lived_group_ends_a_pause() {
    paused(async || {
        let group = OwnedGroup::<Oops>::new();
        let (start, log) = (Instant::now(), Log::new());
        let inner = log.clone();
        group.spawn(async move {
            let error = SLOW
                .cap(ms(60_000))
                .retry(|_| async { Err::<(), _>(Oops(4)) })
                .classify(|_| Verdict::RetryAfter(ms(15_000)))
                .await
                .unwrap_err();
            inner.push((error.reason(), error.into_error(), start.elapsed()));
            Ok(())
        });
        sleep(ms(50)).await;
        let report = group.shutdown(ms(10_000)).await;
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(
            log.entries(),
            [(RetryReason::Cancelled, Some(Oops(4)), ms(50))]
        );
        assert_eq!(start.elapsed(), ms(50));
    });
}
