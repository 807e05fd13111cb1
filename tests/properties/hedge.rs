//! Hedged calls against a plain model: random copies, delays and limits, with a signal at a random time, on the paused clock.
//! When each copy began, which one won, or why none did and when, and what is left of the budget are the model's.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::pending;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, prop_oneof};
use proptest::test_runner::TestCaseError;
use ringfence::retry::HedgeReport;
use ringfence::{Deadline, Hedge, RetryBudget, RetryReason, Scope, TaskGroup, Verdict};
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};

use crate::{cases, figures, seed, try_cases};

/// All times are even but for that of the signal, so that it never comes at the same one.
fn ms(half: u64) -> Duration {
    Duration::from_millis(half * 2)
}

#[derive(Clone, Copy, Debug)]
enum End {
    Good,
    Bad,
    Hint(u64),
    Permanent,
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    delay: u64,
    /// How long each copy takes, or for ever; and how it ends.
    copies: Vec<(Option<u64>, End)>,
    deadline: u64,
    tokens: u32,
    signal: Option<u64>,
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    let end = prop_oneof![
        3 => Just(End::Good),
        4 => Just(End::Bad),
        2 => (0..60_u64).prop_map(End::Hint),
        1 => Just(End::Permanent),
    ];
    let took = prop_oneof![2 => Just(Some(0)), 6 => (0..80_u64).prop_map(Some), 1 => Just(None)];
    let limits = (0..150_u64, 0..4_u32, option::of(0..100_u64));
    (0..30_u64, vec((took, end), 1..6), limits).prop_map(
        |(delay, copies, (deadline, tokens, signal))| Case {
            delay,
            copies,
            deadline,
            tokens,
            signal,
        },
    )
}

#[derive(Debug, Default, PartialEq)]
struct Course {
    begun: Vec<Duration>,
    won_by: Option<u32>,
    reason: Option<RetryReason>,
    /// The copies whose errors are kept: the one that counts first.
    failed: Vec<u32>,
    ended: Duration,
    left: f64,
}

/// A call as it goes on.
struct Model<'c> {
    case: &'c Case,
    now: Duration,
    begun: Vec<Duration>,
    /// Those that run, and when each is over.
    running: Vec<(usize, Duration)>,
    next: Option<Duration>,
    /// Until when the server wants to be left alone.
    asked: Duration,
    stopped: Option<RetryReason>,
    failed: Vec<u32>,
    tokens: u32,
}

impl Model<'_> {
    fn may_start(&self) -> bool {
        self.stopped.is_none() && self.begun.len() < self.case.copies.len()
    }

    fn schedule(&mut self, delay: Duration) {
        let at = (self.now + delay).max(self.asked);
        self.next = (self.may_start() && at < ms(self.case.deadline)).then_some(at);
    }

    fn start(&mut self) {
        let copy = self.begun.len();
        self.begun.push(self.now);
        let over = self.case.copies[copy]
            .0
            .map_or(Duration::MAX, |took| self.now + ms(took));
        self.running.push((copy, over));
        self.schedule(ms(self.case.delay));
    }

    /// Goes on until it is over: which copy has won, or why none has.
    fn run(&mut self) -> Result<u32, RetryReason> {
        let deadline = ms(self.case.deadline);
        let signal = self
            .case
            .signal
            .map_or(Duration::MAX, |at| ms(at) + Duration::from_millis(1));
        if deadline.is_zero() {
            return Err(RetryReason::Deadline);
        }
        self.start();
        loop {
            while let Some(place) = self.running.iter().position(|(_, over)| *over <= self.now) {
                let (copy, _) = self.running.remove(place);
                let number = copy as u32 + 1;
                let hint = match self.case.copies[copy].1 {
                    End::Good => return Ok(number),
                    End::Bad => 0,
                    End::Hint(hint) => hint,
                    End::Permanent => {
                        self.failed.sort_unstable();
                        self.failed.insert(0, number);
                        return Err(RetryReason::Permanent);
                    }
                };
                self.failed.push(number);
                self.asked = self.asked.max(self.now + ms(hint));
                self.schedule(Duration::ZERO);
            }
            if self.now >= deadline {
                return Err(RetryReason::Deadline);
            }
            if self.next.is_some_and(|next| next <= self.now) {
                if signal < self.now {
                    self.stopped = Some(RetryReason::Cancelled);
                } else if self.tokens == 0 {
                    self.stopped = Some(RetryReason::BudgetExhausted);
                } else {
                    self.tokens -= 1;
                    self.start();
                    continue;
                }
                self.next = None;
            }
            if self.running.is_empty() {
                match self.next {
                    None if self.may_start() => return Err(RetryReason::Deadline),
                    None => return Err(self.stopped.unwrap_or(RetryReason::AttemptsExhausted)),
                    Some(next) if signal < next => {
                        self.now = self.now.max(signal);
                        return Err(RetryReason::Cancelled);
                    }
                    Some(_) => {}
                }
            }
            let overs = self.running.iter().map(|(_, over)| *over);
            self.now = overs
                .chain(self.next)
                .chain([deadline])
                .min()
                .unwrap_or(deadline);
        }
    }
}

fn model(case: &Case) -> Course {
    let mut model = Model {
        case,
        now: Duration::ZERO,
        begun: Vec::new(),
        running: Vec::new(),
        next: None,
        asked: Duration::ZERO,
        stopped: None,
        failed: Vec::new(),
        tokens: case.tokens,
    };
    let ended = model.run();
    if ended != Err(RetryReason::Permanent) {
        model.failed.sort_unstable();
    }
    Course {
        begun: model.begun,
        won_by: ended.ok(),
        reason: ended.err(),
        failed: ended.map_or(model.failed, |_| Vec::new()),
        ended: model.now,
        left: model.tokens.into(),
    }
}

/// Runs it.
#[expect(clippy::future_not_send, reason = "it runs where it is awaited")]
async fn course(case: &Case) -> Course {
    let budget = RetryBudget::new(0.0).capacity(case.tokens).reserve(0);
    let (start, begun) = (Instant::now(), RefCell::new(Vec::new()));
    let call = async {
        let hedge = Hedge::after(ms(case.delay)).copies(case.copies.len() as u32);
        let run = hedge.run(|attempt| {
            begun.borrow_mut().push(start.elapsed());
            let (took, end) = case.copies[attempt.number as usize - 1];
            async move {
                match took {
                    Some(0) => {}
                    Some(took) => sleep(ms(took)).await,
                    None => pending().await,
                }
                if matches!(end, End::Good) {
                    Ok(())
                } else {
                    Err(end)
                }
            }
        });
        let run = run.classify(|outcome| match outcome {
            Ok(()) => Verdict::Done,
            Err(End::Hint(hint)) => Verdict::RetryAfter(ms(*hint)),
            Err(End::Permanent) => Verdict::Permanent,
            Err(End::Good | End::Bad) => Verdict::Retry,
        });
        let run = run.deadline(Deadline::at(start + ms(case.deadline)));
        let report: HedgeReport<_, _> = run.budget(&budget).report().await;
        (report, start.elapsed())
    };
    let (report, at) = match case.signal {
        None => call.await,
        Some(signal) => {
            let mut both = None;
            let scope = Scope::new().grace(Duration::from_secs(3600));
            let ended = scope.run(async |group: &TaskGroup<String>| {
                let signal = async {
                    sleep(ms(signal) + Duration::from_millis(1)).await;
                    group.cancel();
                };
                both = Some(tokio::join!(call, signal).0);
                Ok(())
            });
            drop(ended.await);
            both.unwrap_or_else(|| unreachable!("a body that was signalled ends by itself"))
        }
    };
    let error = report.result.err();
    let failed = error.as_ref().map(|error| error.failures());
    Course {
        begun: begun.take(),
        won_by: report.won_by,
        reason: error.as_ref().map(|error| error.reason()),
        failed: failed.map_or_else(Vec::new, |failed| failed.map(|(copy, _)| copy).collect()),
        ended: at,
        left: budget.available(),
    }
}

/// Why it failed, if it did.
pub(crate) fn agree(case: &Case) -> Result<Option<RetryReason>, TestCaseError> {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| TestCaseError::fail(error.to_string()))?;
    let (expected, seen) = (model(case), runtime.block_on(course(case)));
    if seen == expected {
        return Ok(seen.reason);
    }
    let text = format!("{seen:?}\nexpected {expected:?}");
    Err(TestCaseError::fail(text))
}

#[test]
fn every_call_goes_as_the_model_says() {
    let ends = RefCell::new(BTreeMap::new());
    try_cases(cases(4_000), &case(), |case| {
        let end = agree(&case)?.map_or("success".to_owned(), |why| why.to_string());
        *ends.borrow_mut().entry(end).or_insert(0) += 1;
        Ok(())
    });
    figures(format_args!("seed {}: {:?}", seed(), ends.borrow()));
    assert_eq!(ends.borrow().len(), 6, "each end is reached: {ends:?}");
}
