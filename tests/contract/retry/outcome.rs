//! What comes out: errors, values that were not good enough, events, history.

use std::{cell::Cell, cell::RefCell, error::Error, time::Duration};

use ringfence::{BoxError, Hedge, Retry, RetryError, RetryEvent, RetryReason, Verdict};

use super::{Flaky, Oops, STEADY, ms};
use crate::support::paused;

const FOREVER: u32 = u32::MAX;

#[test]
fn a_permanent_error_ends_the_run() {
    paused(async || {
        let flaky = Flaky::new(FOREVER);
        let run = STEADY.retry(|_| flaky.call()).when(|error| error.0 < 2);
        let error = run.await.unwrap_err();
        assert_eq!(
            (error.reason(), error.attempts()),
            (RetryReason::Permanent, 2)
        );
        assert_eq!(error.last_error(), Some(&Oops(2)));
        assert_eq!((flaky.times(), flaky.now()), (vec![0, 100], 100));
    });
}

#[test]
fn the_classifier_is_asked_once_an_attempt() {
    paused(async || {
        for (failures, asked) in [(0, 1), (2, 3), (FOREVER, 3)] {
            let flaky = Flaky::new(failures);
            let count = Cell::new(0);
            let run = STEADY.retry(|_| flaky.call()).classify(|outcome| {
                count.set(count.get() + 1);
                if outcome.is_ok() {
                    Verdict::Done
                } else {
                    Verdict::Retry
                }
            });
            assert_eq!(run.await.is_ok(), failures < 3);
            assert_eq!(count.get(), asked);
        }
    });
}

#[test]
fn a_value_that_is_not_good_enough_is_handed_back() {
    paused(async || {
        let flaky = Flaky::new(0);
        let run = STEADY.retry(|_| flaky.call()).until(|number| *number == 3);
        assert_eq!(run.await.unwrap(), 3);
        let flaky = Flaky::new(0);
        let error = STEADY
            .retry(|_| flaky.call())
            .until(|_| false)
            .await
            .unwrap_err();
        assert_eq!(error.reason(), RetryReason::AttemptsExhausted);
        assert_eq!(error.last(), Some(Ok(&3)));
        assert_eq!(error.last_error(), None);
        assert_eq!(error.into_last(), Some(Ok(3)));
        // A value may be final without being good.
        let flaky = Flaky::new(0);
        let run = STEADY
            .retry(|_| flaky.call())
            .classify(|_| Verdict::Permanent);
        let error = run.await.unwrap_err();
        assert_eq!(
            (error.reason(), error.into_last()),
            (RetryReason::Permanent, Some(Ok(1)))
        );
    });
}

#[test]
fn an_error_cannot_be_done() {
    paused(async || {
        let flaky = Flaky::new(FOREVER);
        let run = STEADY.retry(|_| flaky.call()).classify(|_| Verdict::Done);
        assert_eq!(run.await.unwrap_err().reason(), RetryReason::Permanent);
    });
}

type Told = RefCell<Vec<(u32, Duration, Duration, Option<Oops>, u128)>>;

#[test]
fn each_pause_is_told_before_it_begins() {
    paused(async || {
        let flaky = Flaky::new(FOREVER);
        let told = Told::default();
        let policy = Retry::linear(ms(100), ms(50)).jitter(ringfence::Jitter::None);
        let run = policy.retry(|_| flaky.call()).on_event(|event| {
            if let RetryEvent::Pausing {
                attempt,
                delay,
                elapsed,
                last,
                ..
            } = event
            {
                let error = last
                    .as_ref()
                    .and_then(|last| last.as_ref().err().copied().copied());
                told.borrow_mut()
                    .push((*attempt, *delay, *elapsed, error, flaky.now()));
            }
        });
        assert!(run.await.is_err());
        assert_eq!(
            told.into_inner(),
            [
                (1, ms(100), ms(0), Some(Oops(1)), 0),
                (2, ms(150), ms(100), Some(Oops(2)), 100),
            ]
        );
        assert_eq!(flaky.times(), [0, 100, 250]);
    });
}

#[test]
fn giving_up_is_told_once() {
    paused(async || {
        let ends = RefCell::new(Vec::new());
        let listen = |event: &RetryEvent<'_, Oops>| {
            if let RetryEvent::GaveUp {
                reason, attempts, ..
            } = event
            {
                ends.borrow_mut().push((*reason, *attempts));
            }
        };
        let empty = ringfence::RetryBudget::new(0.0).capacity(0).reserve(0);
        let past = ringfence::Deadline::after(Duration::ZERO);
        let op = |_| async { Err::<(), _>(Oops(0)) };
        assert!(
            STEADY
                .retry(op)
                .when(|_| false)
                .on_event(listen)
                .await
                .is_err()
        );
        assert!(STEADY.retry(op).on_event(listen).await.is_err());
        assert!(
            STEADY
                .retry(op)
                .deadline(past)
                .on_event(listen)
                .await
                .is_err()
        );
        assert!(
            STEADY
                .retry(op)
                .budget(&empty)
                .on_event(listen)
                .await
                .is_err()
        );
        assert!(
            STEADY
                .retry(|_| async { Ok::<_, Oops>(()) })
                .on_event(listen)
                .await
                .is_ok()
        );
        assert_eq!(
            ends.into_inner(),
            [
                (RetryReason::Permanent, 1),
                (RetryReason::AttemptsExhausted, 3),
                (RetryReason::Deadline, 0),
                (RetryReason::BudgetExhausted, 1),
            ]
        );
    });
}

#[test]
fn the_first_of_several_reasons_is_given() {
    paused(async || {
        let empty = ringfence::RetryBudget::new(0.0).capacity(0).reserve(0);
        let reason = async |permanent: bool, attempts: u32, deadline: bool, budget: bool| {
            let limit = ringfence::Deadline::after(if deadline { ms(50) } else { ms(5000) });
            let policy = STEADY.attempts(attempts);
            let mut run = policy
                .retry(|_| async { Err::<(), _>(Oops(0)) })
                .when(|_| !permanent)
                .deadline(limit);
            if budget {
                run = run.budget(&empty);
            }
            // The group is cancelled from inside the attempt in the test of the cancel itself.
            run.await.unwrap_err().reason()
        };
        assert_eq!(reason(true, 1, true, true).await, RetryReason::Permanent);
        assert_eq!(
            reason(false, 1, true, true).await,
            RetryReason::AttemptsExhausted
        );
        assert_eq!(reason(false, 3, true, true).await, RetryReason::Deadline);
        assert_eq!(
            reason(false, 3, false, true).await,
            RetryReason::BudgetExhausted
        );
        assert_eq!(
            reason(false, 3, false, false).await,
            RetryReason::AttemptsExhausted
        );
    });
}

#[test]
fn the_error_carries_what_happened() {
    paused(async || {
        let flaky = Flaky::new(FOREVER);
        let error = STEADY.retry(|_| flaky.call()).await.unwrap_err();
        assert_eq!((error.attempts(), error.elapsed()), (3, ms(200)));
        assert_eq!(
            error.to_string(),
            "gave up after 3 attempts in 200ms: no attempts left"
        );
        assert_eq!(error.source().unwrap().to_string(), "no. 3");
        assert_eq!(error.into_error(), Some(Oops(3)));
        let through: anyhow::Result<()> = async {
            // Neither `Sync` nor `'static` is asked of the value.
            let local = Cell::new(0);
            STEADY
                .retry(|_| async { Err::<&Cell<i32>, _>(Oops(local.get() as u32)) })
                .await?;
            Ok(())
        }
        .await;
        assert!(
            through
                .unwrap_err()
                .downcast_ref::<RetryError<Oops>>()
                .is_some()
        );
        let boxed: Result<u32, Box<dyn Error + Send + Sync>> =
            async { Ok(STEADY.retry(|_| async { Err::<u32, _>(Oops(0)) }).await?) }.await;
        assert!(boxed.is_err());
    });
}

#[test]
fn earlier_errors_are_kept_on_request() {
    paused(async || {
        let flaky = Flaky::new(FOREVER);
        let error = STEADY
            .attempts(6)
            .retry(|_| flaky.call())
            .await
            .unwrap_err();
        assert!(error.earlier().is_empty());
        let flaky = Flaky::new(FOREVER);
        let policy = STEADY.attempts(6);
        let run = policy.retry(|_| flaky.call()).history(3);
        let error = run.await.unwrap_err();
        assert_eq!(error.earlier(), [Oops(3), Oops(4), Oops(5)]);
        assert_eq!(error.last_error(), Some(&Oops(6)));
    });
}

#[test]
fn fewer_errors_may_be_asked_for_later() {
    paused(async || {
        let mut tries = STEADY.attempts(20).tries().history(3);
        for attempt in 1..5 {
            tries.failed(Oops(attempt), |_| true).await.unwrap();
        }
        let mut tries = tries.history(2);
        tries.failed(Oops(5), |_| true).await.unwrap();
        let error = tries.failed(Oops(6), |_| false).await.unwrap_err();
        assert_eq!(error.earlier(), [Oops(4), Oops(5)]);
    });
}

#[test]
fn an_event_tells_that_an_attempt_timed_out() {
    paused(async || {
        let told = RefCell::new(Vec::new());
        let run = STEADY.retry(async |attempt| match attempt.number {
            1 => Err::<(), _>(Oops(1)),
            _ => std::future::pending().await,
        });
        let run = run.attempt_timeout(ms(10)).on_event(|event| match event {
            RetryEvent::Pausing { timed_out, .. } | RetryEvent::GaveUp { timed_out, .. } => {
                told.borrow_mut().push(*timed_out);
            }
            _ => {}
        });
        assert!(run.await.is_err());
        assert_eq!(told.into_inner(), [None, Some(ms(10)), Some(ms(10))]);
    });
}

#[test]
fn a_hook_may_borrow_and_change() {
    paused(async || {
        let mut pauses = 0;
        let text = String::from("not static");
        let flaky = Flaky::new(2);
        let run = STEADY
            .retry(|_| flaky.call())
            .on_event(|_| pauses += text.len());
        assert!(run.await.is_ok());
        assert_eq!(pauses, 20);
    });
}

#[test]
fn every_kind_of_error_goes_through_the_question_mark() {
    type StdBox = Box<dyn Error + Send + Sync>;
    /// One kind of error, into each kind that a caller may have.
    macro_rules! through {
        ($error:ty, $make:expr) => {{
            async fn fetch() -> Result<u32, $error> {
                Err($make)
            }
            async fn into_anyhow() -> anyhow::Result<u32> {
                Ok(STEADY.retry(|_| fetch()).await?)
            }
            async fn into_std() -> Result<u32, Box<dyn Error>> {
                Ok(STEADY.retry(async |_| fetch().await).await?)
            }
            async fn into_ours() -> Result<u32, BoxError> {
                Ok(Hedge::after(ms(1)).run(|_| fetch()).await?)
            }
            async fn in_a_loop() -> Result<u32, StdBox> {
                let mut tries = STEADY.tries();
                loop {
                    tries.begin()?;
                    match fetch().await {
                        Ok(value) => return Ok(tries.succeeded(value)),
                        Err(error) => tries.failed(error, |_| true).await?,
                    }
                }
            }
            let error = into_anyhow().await.unwrap_err();
            assert!(error.is::<RetryError<$error>>());
            let gave_up = "gave up after 3 attempts in 200ms: no attempts left";
            assert_eq!(format!("{error:#}"), format!("{gave_up}: no. 7"));
            assert_eq!(into_std().await.unwrap_err().to_string(), gave_up);
            let error = in_a_loop().await.unwrap_err();
            assert_eq!(
                error.source().map(ToString::to_string),
                Some("no. 7".into())
            );
            let error = into_ours().await.unwrap_err();
            let source = error.source().map(ToString::to_string);
            assert_eq!(source, Some("no. 7".into()));
        }};
    }
    paused(async || {
        through!(Oops, Oops(7));
        through!(std::io::Error, std::io::Error::other(Oops(7)));
        through!(anyhow::Error, Oops(7).into());
        through!(BoxError, Oops(7).into());
        through!(StdBox, Oops(7).into());
        through!(String, Oops(7).to_string());
        // A chain inside is said in full by what can say it.
        let error = STEADY
            .retry(|_| async { Err::<(), _>(anyhow::anyhow!("the cause").context("the effect")) })
            .await
            .unwrap_err();
        let source = error.source().unwrap();
        assert_eq!(source.to_string(), "the effect: the cause");
        assert!(source.source().is_none());
    });
}
