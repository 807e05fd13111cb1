//! Runs of a retry against a plain model: random policies, limits and operations, with a signal at a random time, on the
//! paused clock. When each attempt began, how the run ended and when, and what is left of the budget are the model's.

use std::cell::RefCell;
use std::future::pending;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::TestCaseError;
use ringfence::{
    Attempt, Deadline, Jitter, Retry, RetryBudget, RetryError, RetryReason, Scope, TaskGroup,
    Verdict,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep};

use crate::{cases, figures, seed, try_cases};

/// Half of a time in milliseconds: all times are even but for that of the signal, so that it never comes at the same one.
type Half = u64;

fn ms(half: Half) -> Duration {
    Duration::from_millis(half * 2)
}

#[derive(Clone, Copy, Debug)]
enum End {
    Good,
    Bad,
    Hint(Half),
    Permanent,
}

/// How long an attempt takes, or for ever; and how it ends.
type Script = (Option<Half>, End);

#[derive(Clone, Debug)]
pub(crate) struct Case {
    policy: Retry,
    /// For each attempt; the last one for all that follow.
    scripts: Vec<Script>,
    deadline: Option<Half>,
    timeout: Option<Half>,
    tokens: u32,
    signal: Option<Half>,
    is_lent: bool,
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    let policy = (0..4_u8, 0..60_u64, 1..7_u32, any::<bool>()).prop_map(
        |(shape, base, attempts, pauses)| {
            let policy = match shape {
                0 => Retry::constant(ms(base)),
                1 => Retry::linear(ms(base), ms(20)),
                _ => Retry::exponential(ms(base)).cap(ms(100)),
            };
            let policy = policy.jitter(Jitter::None).attempts(attempts);
            if pauses || shape > 0 {
                policy
            } else {
                policy.without_pauses()
            }
        },
    );
    let end = prop_oneof![
        2 => Just(End::Good),
        6 => Just(End::Bad),
        2 => (0..150_u64).prop_map(End::Hint),
        1 => Just(End::Permanent),
    ];
    let took = prop_oneof![4 => Just(Some(0)), 6 => (0..80_u64).prop_map(Some), 1 => Just(None)];
    let limits = (
        option::of(0..300_u64),
        option::of(0..80_u64),
        0..5_u32,
        option::of(0..200_u64),
    );
    (policy, vec((took, end), 1..6), limits, any::<bool>()).prop_map(
        |(policy, scripts, (deadline, timeout, tokens, signal), is_lent)| Case {
            policy,
            scripts,
            // What hangs needs an end.
            deadline: deadline.or(Some(2000)),
            timeout,
            tokens,
            signal,
            is_lent,
        },
    )
}

impl Case {
    fn script(&self, number: u32) -> Script {
        let place = (number as usize - 1).min(self.scripts.len() - 1);
        self.scripts[place]
    }
}

#[derive(Debug, Default, PartialEq)]
struct Course {
    /// When each attempt began.
    begun: Vec<Duration>,
    /// None: it succeeded.
    reason: Option<RetryReason>,
    /// The number of the attempt whose error is kept.
    last: Option<u32>,
    timed_out: Option<Duration>,
    ended: Duration,
    left: f64,
}

/// What is to be expected.
fn model(case: &Case) -> Course {
    let mut course = Course::default();
    let delays: Vec<_> = case.policy.delays().collect();
    let has_pauses = case.policy != case.policy.without_pauses();
    let deadline = case.deadline.map_or(Duration::MAX, ms);
    let signal = case
        .signal
        .map_or(Duration::MAX, |at| ms(at) + Duration::from_millis(1));
    let (mut now, mut spent) = (Duration::ZERO, 0);
    let reason = loop {
        if deadline <= now {
            break Some(RetryReason::Deadline);
        }
        if signal < now {
            break Some(RetryReason::Cancelled);
        }
        course.begun.push(now);
        let number = course.begun.len() as u32;
        spent = number - 1;
        let (took, end) = case.script(number);
        let own = case.timeout.map_or(Duration::MAX, |limit| now + ms(limit));
        let over = took.map_or(Duration::MAX, |took| now + ms(took));
        let hint = if took == Some(0) || over <= own.min(deadline) {
            now = over;
            course.timed_out = None;
            match end {
                End::Good => break None,
                End::Bad | End::Permanent | End::Hint(_) => course.last = Some(number),
            }
            match end {
                End::Permanent => break Some(RetryReason::Permanent),
                End::Hint(hint) => ms(hint),
                End::Good | End::Bad => Duration::ZERO,
            }
        } else if own < deadline {
            now = own;
            course.timed_out = case.timeout.map(ms);
            Duration::ZERO
        } else {
            now = deadline;
            course.timed_out = None;
            break Some(RetryReason::Deadline);
        };
        let Some(delay) = delays.get(number as usize - 1) else {
            break Some(RetryReason::AttemptsExhausted);
        };
        let delay = match (has_pauses, hint.is_zero()) {
            (false, _) => Duration::ZERO,
            (true, true) => *delay,
            (true, false) => hint,
        };
        if now + delay >= deadline {
            break Some(RetryReason::Deadline);
        }
        if spent == case.tokens {
            break Some(RetryReason::BudgetExhausted);
        }
        if signal < now + delay {
            now = now.max(signal);
            break Some(RetryReason::Cancelled);
        }
        now += delay;
    };
    course.reason = reason;
    course.ended = now;
    course.left = f64::from(case.tokens - spent);
    course
}

/// What the operation of a case is lent.
struct Lent<'c> {
    case: &'c Case,
    start: Instant,
    begun: &'c RefCell<Vec<Duration>>,
}

impl Lent<'_> {
    #[expect(clippy::future_not_send, reason = "it runs where it is awaited")]
    async fn attempt(&mut self, attempt: Attempt) -> Result<(), u32> {
        attempt_of(self.case, self.start, self.begun, attempt).await
    }
}

#[expect(clippy::future_not_send, reason = "it runs where it is awaited")]
async fn attempt_of(
    case: &Case,
    start: Instant,
    begun: &RefCell<Vec<Duration>>,
    attempt: Attempt,
) -> Result<(), u32> {
    begun.borrow_mut().push(start.elapsed());
    let (took, end) = case.script(attempt.number);
    match took {
        Some(0) => {}
        Some(took) => sleep(ms(took)).await,
        None => pending().await,
    }
    match end {
        End::Good => Ok(()),
        End::Bad | End::Hint(_) | End::Permanent => Err(attempt.number),
    }
}

fn judge(case: &Case, outcome: &Result<(), u32>) -> Verdict {
    match outcome.map_err(|number| case.script(number).1) {
        Ok(()) => Verdict::Done,
        Err(End::Hint(hint)) => Verdict::RetryAfter(ms(hint)),
        Err(End::Permanent) => Verdict::Permanent,
        Err(End::Good | End::Bad) => Verdict::Retry,
    }
}

/// Runs it.
#[expect(clippy::future_not_send, reason = "it runs where it is awaited")]
async fn course(case: &Case) -> Course {
    let budget = RetryBudget::new(0.0).capacity(case.tokens).reserve(0);
    let (start, begun) = (Instant::now(), RefCell::default());
    let deadline = case
        .deadline
        .map_or(Deadline::NEVER, |limit| Deadline::at(start + ms(limit)));
    macro_rules! limited {
        ($run:expr) => {{
            let run = $run.classify(|outcome| judge(case, outcome));
            let run = run.budget(&budget).deadline(deadline);
            match case.timeout {
                Some(limit) => run.attempt_timeout(ms(limit)),
                None => run,
            }
        }};
    }
    let run = async {
        let ended: Result<(), RetryError<u32, ()>> = if case.is_lent {
            let begun = &begun;
            let mut lent = Lent { case, start, begun };
            limited!(case.policy.retry_with(&mut lent, Lent::attempt))
                .run()
                .await
        } else {
            let op = |attempt| attempt_of(case, start, &begun, attempt);
            limited!(case.policy.retry(op)).await
        };
        (ended, start.elapsed())
    };
    let (ended, at) = match case.signal {
        None => run.await,
        Some(signal) => {
            let mut both = None;
            let scope = Scope::new().grace(Duration::from_secs(3600));
            let ended = scope.run(async |group: &TaskGroup<String>| {
                let signal = async {
                    sleep(ms(signal) + Duration::from_millis(1)).await;
                    group.cancel();
                };
                both = Some(tokio::join!(run, signal).0);
                Ok(())
            });
            drop(ended.await);
            both.unwrap_or_else(|| unreachable!("a body that was signalled ends by itself"))
        }
    };
    let error = ended.err();
    Course {
        begun: begun.take(),
        reason: error.as_ref().map(RetryError::reason),
        last: error.as_ref().and_then(RetryError::last_error).copied(),
        timed_out: error.as_ref().and_then(RetryError::attempt_timed_out),
        ended: at,
        left: budget.available(),
    }
}

fn paused() -> Result<Runtime, TestCaseError> {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.map_err(|error| TestCaseError::fail(error.to_string()))
}

/// Why it failed, if it did.
pub(crate) fn agree(case: &Case) -> Result<Option<RetryReason>, TestCaseError> {
    let mut expected = model(case);
    if expected.reason.is_none() {
        (expected.last, expected.timed_out) = (None, None);
    }
    let seen = paused()?.block_on(course(case));
    if seen == expected {
        return Ok(seen.reason);
    }
    let text = format!("{seen:?}\nexpected {expected:?}");
    Err(TestCaseError::fail(text))
}

#[test]
fn every_run_goes_as_the_model_says() {
    let ends = RefCell::new(std::collections::BTreeMap::new());
    try_cases(cases(4_000), &case(), |case| {
        let end = agree(&case)?.map_or("success".to_owned(), |why| why.to_string());
        *ends.borrow_mut().entry(end).or_insert(0) += 1;
        Ok(())
    });
    figures(format_args!("seed {}: {:?}", seed(), ends.borrow()));
    assert_eq!(ends.borrow().len(), 6, "each end is reached: {ends:?}");
}
