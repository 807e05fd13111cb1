//! Limits in time: of the run, of the groups around, of an attempt.

use std::{cell::RefCell, future::pending, time::Duration};

use ringfence::{Deadline, Jitter, Retry, RetryEvent, RetryReason, Scope, TaskGroup, Verdict};
use tokio::time::{advance, sleep};

use super::{Flaky, Oops, STEADY, ms};
use crate::support::{Drops, paused};

const FOREVER: u32 = u32::MAX;
const OFTEN: Retry = Retry::constant(ms(400)).jitter(Jitter::None).attempts(10);

#[test]
fn a_run_gives_up_before_it_would_sleep_past_its_deadline() {
    paused(async || {
        let flaky = Flaky::new(FOREVER);
        let run = OFTEN
            .retry(|_| flaky.call())
            .deadline(Deadline::after(ms(1000)));
        let error = run.await.unwrap_err();
        assert_eq!(flaky.times(), [0, 400, 800]);
        assert_eq!((flaky.now(), error.elapsed()), (800, ms(800)));
        assert_eq!(
            (error.reason(), error.last_error()),
            (RetryReason::Deadline, Some(&Oops(3)))
        );
    });
}

#[test]
fn a_pause_that_ends_at_the_deadline_is_not_begun() {
    paused(async || {
        let flaky = Flaky::new(FOREVER);
        let run = OFTEN
            .retry(|_| flaky.call())
            .deadline(Deadline::after(ms(800)));
        assert_eq!(run.await.unwrap_err().reason(), RetryReason::Deadline);
        assert_eq!((flaky.times(), flaky.now()), (vec![0, 400], 400));
        let flaky = Flaky::new(FOREVER);
        let run = OFTEN
            .retry(|_| flaky.call())
            .deadline(Deadline::after(ms(801)));
        assert!(run.await.is_err());
        assert_eq!(flaky.times(), [0, 400, 800]);
        // Nor is a retry told of that has no pause, and never comes.
        let told = RefCell::new(Vec::new());
        let run = STEADY.without_pauses().retry(async |_| {
            sleep(ms(10)).await;
            Err::<(), _>(Oops(1))
        });
        let run = run.deadline(Deadline::after(ms(10))).on_event(|event| {
            told.borrow_mut()
                .push(matches!(event, RetryEvent::GaveUp { .. }));
        });
        let error = run.await.unwrap_err();
        assert_eq!(
            (error.reason(), error.attempts()),
            (RetryReason::Deadline, 1)
        );
        assert_eq!(told.into_inner(), [true]);
    });
}

#[test]
fn of_two_deadlines_the_earlier_holds() {
    paused(async || {
        for [first, second] in [[50, 5000], [5000, 50]] {
            let after = |after| Deadline::after(ms(after));
            let run = STEADY.retry(|_| pending::<Result<(), Oops>>());
            let run = run.deadline(after(first)).deadline(after(second));
            let error = run.await.unwrap_err();
            let expected = (RetryReason::Deadline, ms(50));
            assert_eq!((error.reason(), error.elapsed()), expected);
            let run = ringfence::Hedge::after(ms(10)).run(|_| pending::<Result<(), Oops>>());
            let run = run.deadline(after(first)).deadline(after(second));
            let error = run.await.unwrap_err();
            assert_eq!((error.reason(), error.elapsed()), expected);
        }
    });
}

#[test]
fn a_deadline_that_has_passed_calls_nothing() {
    paused(async || {
        let flaky = Flaky::new(0);
        let deadline = Deadline::after(ms(5));
        let run = OFTEN.retry(|_| flaky.call()).deadline(deadline);
        advance(ms(5)).await;
        let error = run.await.unwrap_err();
        assert_eq!(
            (error.reason(), error.attempts()),
            (RetryReason::Deadline, 0)
        );
        assert_eq!((error.last(), flaky.calls.get()), (None, 0));
    });
}

#[test]
fn a_hanging_attempt_is_dropped_at_the_deadline() {
    paused(async || {
        let drops = Drops::new();
        let flaky = Flaky::new(0);
        let run = OFTEN.retry(|_| {
            let guard = drops.guard();
            async move {
                let _guard = guard;
                pending::<Result<(), Oops>>().await
            }
        });
        let error = run.deadline(Deadline::after(ms(700))).await.unwrap_err();
        assert_eq!((flaky.now(), drops.alive()), (700, 0));
        assert_eq!(
            (error.reason(), error.attempts()),
            (RetryReason::Deadline, 1)
        );
        assert_eq!(error.attempt_timed_out(), None);
    });
}

#[test]
fn a_hanging_attempt_does_not_hide_the_error_before_it() {
    paused(async || {
        let flaky = Flaky::new(FOREVER);
        let run = OFTEN.retry(async |attempt| {
            if attempt.number == 3 {
                pending::<()>().await;
            }
            flaky.call().await
        });
        let error = run.deadline(Deadline::after(ms(1000))).await.unwrap_err();
        assert_eq!(
            (error.reason(), error.attempts()),
            (RetryReason::Deadline, 3)
        );
        assert_eq!((flaky.now(), error.into_error()), (1000, Some(Oops(2))));
    });
}

#[test]
fn elapsed_counts_from_the_first_poll() {
    paused(async || {
        let run = STEADY.retry(|_| async {
            sleep(ms(30)).await;
            Err::<(), _>(Oops(0))
        });
        advance(ms(5000)).await;
        assert_eq!(run.await.unwrap_err().elapsed(), ms(290));
    });
}

#[test]
fn the_earlier_of_timeout_and_deadline_ends_an_attempt() {
    paused(async || {
        let seen = RefCell::new(Vec::new());
        let flaky = Flaky::new(0);
        let run = STEADY.retry(|attempt| {
            seen.borrow_mut().push(attempt.deadline.remaining());
            pending::<Result<(), Oops>>()
        });
        let run = run
            .attempt_timeout(ms(300))
            .deadline(Deadline::after(ms(500)));
        let error = run.await.unwrap_err();
        assert_eq!(seen.into_inner(), [ms(300), ms(100)]);
        assert_eq!(flaky.now(), 500);
        assert_eq!(
            (error.reason(), error.attempt_timed_out()),
            (RetryReason::Deadline, None)
        );
        // At the same instant it is the deadline.
        let run = STEADY
            .retry(|_| pending::<Result<(), Oops>>())
            .attempt_timeout(ms(300))
            .deadline(Deadline::after(ms(300)));
        let error = run.await.unwrap_err();
        assert_eq!(
            (error.reason(), error.attempt_timed_out()),
            (RetryReason::Deadline, None)
        );
        let run = STEADY
            .retry(|_| pending::<Result<(), Oops>>())
            .attempt_timeout(ms(300));
        let error = run.await.unwrap_err();
        assert_eq!(error.reason(), RetryReason::AttemptsExhausted);
        assert_eq!(error.attempt_timed_out(), Some(ms(300)));
        assert_eq!(error.last(), None, "no attempt came to an end");
        assert!(
            error
                .to_string()
                .ends_with("the last attempt took longer than 300ms")
        );
    });
}

#[test]
fn a_timed_out_attempt_is_classified() {
    paused(async || {
        let run = STEADY
            .retry(|_| pending::<Result<(), Oops>>())
            .attempt_timeout(ms(10));
        let error = run.after_timeout(Verdict::Permanent).await.unwrap_err();
        assert_eq!(
            (error.reason(), error.attempts()),
            (RetryReason::Permanent, 1)
        );
        assert_eq!(error.attempt_timed_out(), Some(ms(10)));
        let flaky = Flaky::new(0);
        let run = STEADY
            .retry(|_| pending::<Result<(), Oops>>())
            .attempt_timeout(ms(10));
        assert!(
            run.after_timeout(Verdict::RetryAfter(ms(1000)))
                .await
                .is_err()
        );
        assert_eq!(flaky.now(), 10 + 1000 + 10 + 1000 + 10);
        let run = STEADY
            .retry(|_| pending::<Result<(), Oops>>())
            .deadline(Deadline::after(ms(10)));
        let error = run.after_timeout(Verdict::Retry).await.unwrap_err();
        assert_eq!(
            (error.reason(), error.attempts()),
            (RetryReason::Deadline, 1)
        );
    });
}

#[test]
fn an_attempt_timeout_drops_each_attempt() {
    paused(async || {
        let flaky = Flaky::new(0);
        let drops = Drops::new();
        let policy = Retry::constant(ms(50)).jitter(Jitter::None);
        let run = policy.retry(|_| {
            drop(flaky.call());
            let guard = drops.guard();
            async move {
                let _guard = guard;
                pending::<Result<(), Oops>>().await
            }
        });
        let error = run.attempt_timeout(ms(100)).await.unwrap_err();
        assert_eq!((flaky.times(), flaky.now()), (vec![0, 150, 300], 400));
        assert_eq!((drops.made(), drops.alive()), (3, 0));
        assert_eq!(error.attempts(), 3);
    });
}

#[test]
fn a_ready_attempt_makes_no_timer_and_wins_its_tick() {
    // Outside every runtime a timer would panic.
    let run = STEADY.retry(|_| std::future::ready(Ok::<_, Oops>(7)));
    let run = run
        .attempt_timeout(ms(5))
        .deadline(Deadline::after(ms(5000)));
    let mut run = std::pin::pin!(run.into_future());
    let waker = futures::task::noop_waker();
    let polled = run
        .as_mut()
        .poll(&mut std::task::Context::from_waker(&waker));
    assert!(matches!(polled, std::task::Poll::Ready(Ok(7))));
    paused(async || {
        let slow = |_| async {
            sleep(ms(20)).await;
            Ok::<_, Oops>(7)
        };
        assert_eq!(STEADY.retry(slow).attempt_timeout(ms(20)).await.unwrap(), 7);
        assert_eq!(
            STEADY
                .retry(slow)
                .deadline(Deadline::after(ms(20)))
                .await
                .unwrap(),
            7
        );
        assert!(
            STEADY
                .attempts(1)
                .retry(slow)
                .attempt_timeout(ms(19))
                .await
                .is_err()
        );
    });
}

#[test]
fn timeouts_of_any_length_are_accepted() {
    paused(async || {
        let flaky = Flaky::new(0);
        let ready = STEADY
            .retry(|_| flaky.call())
            .attempt_timeout(Duration::ZERO);
        assert_eq!(ready.await.unwrap(), 1);
        let run = STEADY
            .retry(|_| pending::<Result<(), Oops>>())
            .attempt_timeout(Duration::ZERO);
        assert_eq!(run.await.unwrap_err().attempts(), 3);
        assert_eq!(flaky.now(), 200, "only the pauses took time");
        let slow = |_| async {
            sleep(ms(1_000_000)).await;
            Ok::<_, Oops>(7)
        };
        let run = STEADY.retry(slow).attempt_timeout(Duration::MAX);
        assert_eq!(
            run.deadline(Deadline::after(Duration::MAX)).await.unwrap(),
            7
        );
    });
}

#[test]
fn an_attempt_that_spends_every_turn_still_times_out() {
    paused(async || {
        let flaky = Flaky::new(0);
        let greedy = |_| async {
            loop {
                tokio::task::coop::consume_budget().await;
                if flaky.now() == 0 {
                    advance(ms(10)).await;
                }
            }
        };
        let policy = STEADY.attempts(1);
        let run = policy
            .retry(greedy)
            .when(|_: &Oops| true)
            .attempt_timeout(ms(5));
        let ended: Result<(), _> = run.await;
        assert_eq!(ended.unwrap_err().attempt_timed_out(), Some(ms(5)));
    });
}

#[test]
fn the_shortest_pause_is_a_millisecond() {
    paused(async || {
        let flaky = Flaky::new(FOREVER);
        let tiny = Retry::constant(Duration::from_nanos(1)).jitter(Jitter::None);
        assert!(tiny.retry(|_| flaky.call()).await.is_err());
        assert_eq!(flaky.times(), [0, 1, 2]);
    });
}

#[test]
fn an_attempt_timeout_may_grow() {
    paused(async || {
        let flaky = Flaky::new(0);
        let run = STEADY.retry(|_| pending::<Result<(), Oops>>());
        let run = run.attempt_timeout_by(|number| ms(u64::from(number) * 10));
        assert_eq!(run.await.unwrap_err().attempt_timed_out(), Some(ms(30)));
        assert_eq!(flaky.now(), 10 + 100 + 20 + 100 + 30);
    });
}

#[test]
fn a_run_inherits_the_deadline_of_its_group() {
    paused(async || {
        let flaky = Flaky::new(FOREVER);
        let scope = Scope::new().deadline(Deadline::after(ms(1000)));
        let ended = scope.run(async |_: &TaskGroup<Oops>| {
            let run = OFTEN.retry(|attempt| {
                assert_eq!(attempt.deadline, Deadline::current());
                flaky.call()
            });
            let error = run.deadline(Deadline::after(ms(9000))).await.unwrap_err();
            assert_eq!((error.reason(), flaky.now()), (RetryReason::Deadline, 800));
            let run = OFTEN
                .retry(|_| flaky.call())
                .deadline(Deadline::after(ms(100)));
            assert_eq!(run.await.unwrap_err().attempts(), 1);
            Ok(())
        });
        assert!(
            ended.await.is_ok(),
            "it gave up in time, so the deadline did not pass"
        );
    });
}

#[test]
fn a_clock_that_jumps_over_the_deadline_ends_the_run() {
    paused(async || {
        let flaky = Flaky::new(FOREVER);
        let day = Duration::from_secs(86_400);
        let run = OFTEN.retry(|_| flaky.call()).deadline(Deadline::after(day));
        let jump = async {
            sleep(ms(500)).await;
            advance(day * 2).await;
        };
        let (ended, ()) = tokio::join!(run.into_future(), jump);
        let error = ended.unwrap_err();
        assert_eq!(
            (error.reason(), error.into_error()),
            (RetryReason::Deadline, Some(Oops(2)))
        );
    });
}
