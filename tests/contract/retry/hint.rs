//! What a server asks for.

use std::{cell::RefCell, time::Duration};

use ringfence::{
    Deadline, Hedge, Jitter, Retry, RetryBudget, RetryError, RetryEvent, RetryReason, Verdict,
};

use super::{Flaky, Oops, STEADY, ms};
use crate::support::paused;

/// One run in which each failure asks for the next of these.
#[expect(clippy::future_not_send, reason = "it runs where it is awaited")]
async fn run(
    policy: Retry,
    flaky: &Flaky,
    hints: &[Duration],
    deadline: Deadline,
) -> (Result<u32, RetryError<Oops, u32>>, Vec<Duration>) {
    let told = RefCell::new(Vec::new());
    let mut hints = hints.iter();
    let result = policy
        .retry(|_| flaky.call())
        .deadline(deadline)
        .classify(|outcome| match (outcome, hints.next()) {
            (Ok(_), _) => Verdict::Done,
            (Err(_), Some(hint)) => Verdict::RetryAfter(*hint),
            (Err(_), None) => Verdict::Retry,
        })
        .on_event(|event| {
            if let RetryEvent::Pausing { delay, .. } = event {
                told.borrow_mut().push(*delay);
            }
        })
        .await;
    (result, told.into_inner())
}

#[test]
fn a_hint_takes_the_place_of_the_delay() {
    paused(async || {
        let flaky = Flaky::new(1);
        let (result, told) = run(STEADY, &flaky, &[ms(10_000)], Deadline::NEVER).await;
        assert_eq!(result.unwrap(), 2);
        assert_eq!((flaky.times(), told), (vec![0, 10_000], vec![ms(10_000)]));
    });
}

#[test]
fn a_hint_is_not_spread() {
    paused(async || {
        for seed in 0..50 {
            let policy = Retry::DEFAULT.jitter(Jitter::Full).seed(seed);
            let flaky = Flaky::new(1);
            let (_, told) = run(policy, &flaky, &[ms(700)], Deadline::NEVER).await;
            assert_eq!(told, [ms(700)]);
        }
    });
}

#[test]
fn a_minute_is_the_longest_hint_unless_given() {
    paused(async || {
        for (hint, expected) in [
            (60_000, RetryReason::AttemptsExhausted),
            (60_001, RetryReason::HintTooLong),
        ] {
            let run = STEADY
                .attempts(2)
                .retry(|_| async { Err::<(), _>(Oops(0)) });
            let error = run
                .classify(|_| Verdict::RetryAfter(ms(hint)))
                .await
                .unwrap_err();
            assert_eq!(error.reason(), expected);
        }
    });
}

#[test]
fn a_hint_that_is_too_long_gives_up() {
    paused(async || {
        let flaky = Flaky::new(1);
        let (result, _) = run(STEADY, &flaky, &[ms(60_001)], Deadline::NEVER).await;
        let error = result.unwrap_err();
        assert_eq!(
            (error.reason(), error.last_error()),
            (RetryReason::HintTooLong, Some(&Oops(1)))
        );
        assert_eq!(flaky.now(), 0);
        let flaky = Flaky::new(1);
        let (result, _) = run(STEADY, &flaky, &[ms(60_000)], Deadline::NEVER).await;
        assert!(result.is_ok());
    });
}

#[test]
fn a_hint_beyond_a_year_is_not_cut_short() {
    paused(async || {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        let policy = STEADY.max_hint(Duration::MAX);
        let flaky = Flaky::new(1);
        let (result, told) = run(policy, &flaky, &[YEAR], Deadline::NEVER).await;
        assert_eq!((result.ok(), told), (Some(2), vec![YEAR]));
        for hint in [YEAR + ms(1), Duration::MAX] {
            let (result, _) = run(policy, &Flaky::new(1), &[hint], Deadline::NEVER).await;
            assert_eq!(result.unwrap_err().reason(), RetryReason::HintTooLong);
            let hedge = Hedge::after(ms(10)).max_hint(Duration::MAX);
            let run = hedge.run(|_| async { Err::<(), _>(Oops(0)) });
            let error = run.classify(|_| Verdict::RetryAfter(hint)).await;
            assert_eq!(error.unwrap_err().reason(), RetryReason::HintTooLong);
        }
    });
}

#[test]
fn a_hint_costs_an_attempt_and_a_token() {
    paused(async || {
        let budget = RetryBudget::new(0.0).capacity(1).reserve(0);
        let op = |_| async { Err::<u32, _>(Oops(0)) };
        let after = |_: &Result<u32, Oops>| Verdict::RetryAfter(ms(5));
        let error = STEADY
            .retry(op)
            .classify(after)
            .budget(&budget)
            .await
            .unwrap_err();
        assert_eq!(
            (error.reason(), error.attempts()),
            (RetryReason::BudgetExhausted, 2)
        );
        let error = STEADY.retry(op).classify(after).await.unwrap_err();
        assert_eq!(
            (error.reason(), error.attempts()),
            (RetryReason::AttemptsExhausted, 3)
        );
    });
}

#[test]
fn a_hint_beyond_the_deadline_gives_up_at_once() {
    paused(async || {
        let flaky = Flaky::new(1);
        let (result, _) = run(STEADY, &flaky, &[ms(2000)], Deadline::after(ms(1000))).await;
        let error = result.unwrap_err();
        assert_eq!(
            (error.reason(), error.last_error()),
            (RetryReason::Deadline, Some(&Oops(1)))
        );
        assert_eq!(flaky.now(), 0);
    });
}

#[test]
fn an_empty_hint_leaves_the_delay() {
    paused(async || {
        let flaky = Flaky::new(2);
        let hints = [Duration::ZERO, ms(3)];
        let policy = STEADY.floor(ms(20));
        let (result, told) = run(policy, &flaky, &hints, Deadline::NEVER).await;
        assert!(result.is_ok());
        assert_eq!(told, [ms(100), ms(20)]);
    });
}

#[test]
fn after_a_hint_the_backoff_goes_on() {
    paused(async || {
        let flaky = Flaky::new(3);
        let policy = Retry::exponential(ms(100)).jitter(Jitter::None).attempts(4);
        let hints = [Duration::ZERO, ms(7000)];
        let (_, told) = run(policy, &flaky, &hints, Deadline::NEVER).await;
        assert_eq!(told, [ms(100), ms(7000), ms(400)]);
    });
}
