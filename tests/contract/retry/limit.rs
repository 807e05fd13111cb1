//! Cancel: what ends a run from outside; and attempts without a limit.

use std::{
    cell::Cell,
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures::poll;
use ringfence::{
    Cause, Deadline, OwnedGroup, Retry, RetryError, RetryReason, Scope, TaskGroup, Verdict,
    local_scope, scope, token,
};
use tokio::time::{Instant, sleep};

use super::{Flaky, Oops, STEADY, ms};
use crate::support::{Drops, Log, every_runtime, paused, settle};

const SLOW: Retry = Retry::constant(ms(1000)).jitter(ringfence::Jitter::None);

#[test]
fn a_signal_ends_a_pause() {
    // To the group, or to the one child; and it is heard in a scope inside, which has no grace of its own.
    for (alone, inside) in [(false, false), (true, false), (false, true), (true, true)] {
        paused(async || {
            let start = Instant::now();
            let log = Log::new();
            let ended = Scope::new()
                .grace(ms(10_000))
                .run(async |group: &TaskGroup<Oops>| {
                    let log = log.clone();
                    let run = async move {
                        let run = SLOW.retry(|_| async { Err::<(), _>(Oops(4)) });
                        let report = run.report().await;
                        assert_eq!(report.slept, ms(50), "as long as the pause lasted");
                        let error = report.result.unwrap_err();
                        log.push((error.reason(), error.last_error().copied(), start.elapsed()));
                        Ok::<_, Oops>(())
                    };
                    let child = group.spawn(async move {
                        if inside {
                            let scoped = scope(async |_: &TaskGroup<Oops>| run.await);
                            scoped.await.expect("nobody fails");
                        } else {
                            run.await?;
                        }
                        Ok(())
                    });
                    sleep(ms(50)).await;
                    if alone {
                        child.cancel();
                    } else {
                        group.cancel();
                    }
                    Ok(())
                });
            match ended.await {
                Ok(()) => assert!(alone),
                Err(error) => assert!(!alone && error.is_cancelled(), "{error:?}"),
            }
            assert_eq!(
                log.entries(),
                [(RetryReason::Cancelled, Some(Oops(4)), ms(50))]
            );
        });
    }
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

type Begun = Pin<Box<dyn Future<Output = Result<(), RetryError<Oops>>>>>;

/// A run of each form that waits in its first attempt for so long, or else in its pause, and succeeds in the third.
#[expect(clippy::future_not_send, reason = "it runs where it is awaited")]
async fn begun(form: u8, first: u64) -> Begun {
    let op = move |number: u32| async move {
        if number == 1 && first > 0 {
            sleep(ms(first)).await;
        }
        if number == 3 {
            Ok(())
        } else {
            Err(Oops(number))
        }
    };
    let mut run: Begun = match form {
        0 => Box::pin(SLOW.retry(move |attempt| op(attempt.number)).into_future()),
        1 => Box::pin(async move {
            let mut lent = op;
            let run = SLOW.retry_with(&mut lent, async |op, attempt| op(attempt.number).await);
            run.run().await
        }),
        _ => Box::pin(async move {
            let mut tries = SLOW.tries();
            loop {
                match op(tries.begin()?.number).await {
                    Ok(()) => return Ok(()),
                    Err(error) => tries.failed(error, |_| true).await?,
                }
            }
        }),
    };
    assert!(poll!(run.as_mut()).is_pending());
    run
}

#[test]
fn a_run_that_goes_on_elsewhere_heeds_what_is_around_it_there() {
    paused(async || {
        for form in 0..3 {
            let start = Instant::now();
            let listening = || Scope::new().grace(ms(60_000));
            // Into a group: its signal, and its deadline.
            let run = begun(form, 0).await;
            let ended = listening().run_local(|group| async move {
                group.cancel();
                assert_eq!(run.await.unwrap_err().reason(), RetryReason::Cancelled);
                Ok::<_, Oops>(())
            });
            assert!(ended.await.is_err());
            assert_eq!(start.elapsed(), ms(0));
            for (first, limit, after) in [(0, 1500, 1000), (10, 500, 10)] {
                let run = begun(form, first).await;
                let limited = Scope::new().deadline(Deadline::after(ms(limit)));
                let ended = limited.run_local(|_| async move { Ok::<_, Oops>(run.await) });
                let error = ended.await.unwrap().unwrap_err();
                let expected = (RetryReason::Deadline, ms(after));
                assert_eq!((error.reason(), error.elapsed()), expected, "{form}");
            }
            // Out of a group that has ended.
            let run = local_scope(|_| async move { Ok::<_, Oops>(begun(form, 0).await) });
            assert!(run.await.unwrap().await.is_ok());
            // Out of a shield.
            let ended = listening().run_local(|group| async move {
                let run = ringfence::shield(ms(10), begun(form, 0)).await;
                group.cancel();
                assert_eq!(run.await.unwrap_err().reason(), RetryReason::Cancelled);
                Ok::<_, Oops>(())
            });
            assert!(ended.await.is_err());
        }
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
