//! Hedge: a second copy of what takes long. Delay 100 ms and one further copy, unless said.

use std::{
    cell::{Cell, RefCell},
    future::pending,
    pin::pin,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, poll};
use ringfence::{
    Attempt, Deadline, Displaced, Hedge, Jitter, Latency, Observer, Retry, RetryBudget,
    RetryReason, Scope, TaskGroup, Verdict,
    retry::{HedgeEvent, HedgeReport},
    timeout,
};
use tokio::time::{Instant, advance, sleep};

use crate::support::{DropGuard, Drops, PanicOnDrop, caught, paused, spawn};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const HEDGE: Hedge<'_> = Hedge::after(ms(100));

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no. {0}")]
struct Oops(u32);

/// Copies that take so long, and then succeed or fail; and when each was started.
struct Plan {
    start: Instant,
    copies: Vec<(u64, bool)>,
    times: RefCell<Vec<u128>>,
    drops: Drops,
}

impl Plan {
    fn new(copies: &[(u64, bool)]) -> Self {
        Self {
            start: Instant::now(),
            copies: copies.to_vec(),
            times: RefCell::default(),
            drops: Drops::new(),
        }
    }

    fn copy(&self, attempt: Attempt) -> impl Future<Output = Result<u32, Oops>> + use<> {
        let number = attempt.number;
        self.times.borrow_mut().push(self.now());
        let (took, good) = self.copies[number as usize - 1];
        let guard: DropGuard = self.drops.guard();
        async move {
            let _guard = guard;
            if took > 0 {
                sleep(ms(took)).await;
            }
            if good { Ok(number) } else { Err(Oops(number)) }
        }
    }

    fn now(&self) -> u128 {
        self.start.elapsed().as_millis()
    }

    fn times(&self) -> Vec<u128> {
        self.times.borrow().clone()
    }
}

#[test]
fn a_fast_call_is_made_once() {
    paused(async || {
        let plan = Plan::new(&[(50, true)]);
        let report = HEDGE.run(|attempt| plan.copy(attempt)).report().await;
        assert_eq!(
            (report.result.unwrap(), report.won_by, report.copies),
            (1, Some(1), 1)
        );
        assert_eq!(
            (plan.times(), plan.now(), report.elapsed),
            (vec![0], 50, ms(50))
        );
    });
}

#[test]
fn the_loser_is_gone_before_the_result() {
    paused(async || {
        let plan = Plan::new(&[(300, true), (20, true)]);
        assert_eq!(HEDGE.run(|attempt| plan.copy(attempt)).await.unwrap(), 2);
        assert_eq!(
            (plan.now(), plan.drops.made(), plan.drops.alive()),
            (120, 2, 0)
        );
        // Also where the call itself stays.
        let plan = Plan::new(&[(300, true), (20, true)]);
        let mut call = pin!(HEDGE.run(|attempt| plan.copy(attempt)).into_future());
        assert_eq!(call.as_mut().await.unwrap(), 2);
        assert_eq!((plan.drops.made(), plan.drops.alive()), (2, 0));
    });
}

#[test]
fn a_failure_starts_the_next_copy_at_once() {
    paused(async || {
        let plan = Plan::new(&[(50, false), (20, true)]);
        assert_eq!(HEDGE.run(|attempt| plan.copy(attempt)).await.unwrap(), 2);
        assert_eq!((plan.times(), plan.now()), (vec![0, 50], 70));
        let plan = Plan::new(&[(50, false), (300, true), (300, true)]);
        let run = HEDGE.copies(3).run(|attempt| plan.copy(attempt));
        assert_eq!(run.await.unwrap(), 2);
        assert_eq!(plan.times(), [0, 50, 150], "and the cadence begins anew");
    });
}

#[test]
fn a_failing_copy_never_beats_a_succeeding_one() {
    paused(async || {
        let plan = Plan::new(&[(300, true), (10, false)]);
        assert_eq!(HEDGE.run(|attempt| plan.copy(attempt)).await.unwrap(), 1);
        assert_eq!(plan.now(), 300);
        let plan = Plan::new(&[(0, false), (30, true)]);
        assert_eq!(HEDGE.run(|attempt| plan.copy(attempt)).await.unwrap(), 2);
        assert_eq!(plan.now(), 30);
    });
}

#[test]
fn a_permanent_error_ends_the_race() {
    paused(async || {
        let plan = Plan::new(&[(300, true), (10, false)]);
        let run = HEDGE
            .run(|attempt| plan.copy(attempt))
            .when(|error| error.0 != 2);
        let error = run.await.unwrap_err();
        assert_eq!(
            (error.reason(), error.copies(), plan.now()),
            (RetryReason::Permanent, 2, 110)
        );
        assert_eq!((plan.drops.alive(), error.into_error()), (0, Some(Oops(2))));
        // It counts before the failure of an earlier copy.
        let plan = Plan::new(&[(50, false), (10, false)]);
        let run = HEDGE
            .run(|attempt| plan.copy(attempt))
            .when(|error| error.0 != 2);
        let error = run.await.unwrap_err();
        let failures: Vec<_> = error
            .failures()
            .map(|(copy, last)| (copy, last.err().copied()))
            .collect();
        assert_eq!(failures, [(2, Some(Oops(2))), (1, Some(Oops(1)))]);
    });
}

#[test]
fn when_all_fail_the_first_copys_error_is_the_source() {
    paused(async || {
        let plan = Plan::new(&[(500, false), (10, false), (20, false)]);
        let error = HEDGE
            .copies(3)
            .run(|attempt| plan.copy(attempt))
            .await
            .unwrap_err();
        assert_eq!(
            (error.reason(), error.copies()),
            (RetryReason::AttemptsExhausted, 3)
        );
        assert_eq!((plan.now(), error.elapsed()), (500, ms(500)));
        let in_time = HEDGE
            .run(async |attempt| Err::<(), _>(Oops(attempt.number)))
            .deadline(Deadline::after(ms(1_000)));
        let reason = in_time.await.unwrap_err().reason();
        assert_eq!(reason, RetryReason::AttemptsExhausted);
        assert_eq!(
            std::error::Error::source(&error).unwrap().to_string(),
            "no. 1"
        );
        let failed: Vec<_> = error.failures().map(|(copy, _)| copy).collect();
        assert_eq!(failed, [1, 2, 3]);
        let bad = HEDGE.run(async |attempt| match attempt.number {
            1 => Ok(String::from("a value")),
            number => Err(Oops(number)),
        });
        let bad = bad.until(|_| false).await.unwrap_err();
        let both: Vec<_> = bad.into_failures().collect();
        assert_eq!(both, [(1, Ok("a value".into())), (2, Err(Oops(2)))]);
        assert_eq!(
            error.to_string(),
            "no good answer from 3 copies in 500ms: no attempts left"
        );
    });
}

#[test]
fn a_tie_goes_to_the_first_copy() {
    paused(async || {
        let plan = Plan::new(&[(150, true), (50, true)]);
        let report = HEDGE.run(|attempt| plan.copy(attempt)).report().await;
        assert_eq!(
            (report.result.unwrap(), report.won_by, report.copies),
            (1, Some(1), 2)
        );
    });
}

#[test]
fn copies_begin_one_delay_apart() {
    paused(async || {
        let plan = Plan::new(&[(1000, true); 5]);
        let run = HEDGE.copies(5).run(|attempt| plan.copy(attempt));
        assert_eq!(run.await.unwrap(), 1);
        assert_eq!(plan.times(), [0, 100, 200, 300, 400]);
        assert_eq!((plan.drops.made(), plan.drops.alive()), (5, 0));
        let plan = Plan::new(&[(1000, true), (900, false), (900, true), (10, true)]);
        assert_eq!(
            HEDGE
                .copies(4)
                .run(|attempt| plan.copy(attempt))
                .await
                .unwrap(),
            4
        );
        assert_eq!((plan.now(), plan.drops.alive()), (310, 0));
    });
}

#[test]
fn without_delay_all_copies_begin_at_once() {
    paused(async || {
        let plan = Plan::new(&[(30, true), (20, true), (10, true)]);
        let run = Hedge::after(Duration::ZERO)
            .copies(3)
            .run(|attempt| plan.copy(attempt));
        assert_eq!(run.await.unwrap(), 3);
        assert_eq!((plan.times(), plan.now()), (vec![0, 0, 0], 10));
    });
}

#[test]
fn an_empty_budget_suppresses_copies() {
    paused(async || {
        let budget = RetryBudget::new(0.0).capacity(0).reserve(0);
        let plan = Plan::new(&[(300, true), (20, true)]);
        let told = RefCell::new(Vec::new());
        let run = HEDGE.run(|attempt| plan.copy(attempt)).budget(&budget);
        let run = run.on_event(|event| told.borrow_mut().push(*event));
        assert_eq!(run.await.unwrap(), 1);
        assert_eq!((plan.times(), plan.now()), (vec![0], 300));
        assert_eq!(told.into_inner(), [HedgeEvent::Suppressed(2, ms(100))]);
        let plan = Plan::new(&[(50, false)]);
        let error = HEDGE
            .run(|attempt| plan.copy(attempt))
            .budget(&budget)
            .await
            .unwrap_err();
        assert_eq!(
            (error.reason(), plan.now()),
            (RetryReason::BudgetExhausted, 50)
        );
        assert_eq!(error.into_error(), Some(Oops(1)));
    });
}

#[test]
fn a_copy_is_charged_also_when_it_loses() {
    paused(async || {
        let budget = RetryBudget::new(0.5).capacity(10).reserve(0);
        for (copies, left) in [
            ([(300, true), (250, true)], 9.5),
            ([(300, true), (20, true)], 9.0),
            ([(50, true), (0, true)], 9.5),
        ] {
            let plan = Plan::new(&copies);
            assert!(
                HEDGE
                    .run(|attempt| plan.copy(attempt))
                    .budget(&budget)
                    .await
                    .is_ok()
            );
            assert_eq!(budget.available(), left);
        }
    });
}

/// One call that takes so long, under a percentile; says when its copy began, if one did.
#[expect(clippy::future_not_send, reason = "it runs where it is awaited")]
async fn measured(hedge: Hedge<'_>, took: u64) -> Option<u128> {
    let plan = Plan::new(&[(took, true), (took, true)]);
    let report: HedgeReport<_, _> = hedge.run(|attempt| plan.copy(attempt)).report().await;
    assert_eq!((report.result.ok(), plan.drops.alive()), (Some(1), 0));
    plan.times().get(1).copied()
}

#[test]
fn a_percentile_needs_samples_and_has_bounds() {
    paused(async || {
        let latency = Latency::new().min_samples(10);
        let hedge = Hedge::percentile(0.9, &latency);
        for _ in 0..10 {
            assert_eq!(measured(hedge, 40).await, None);
        }
        assert!(
            latency
                .percentile(0.9)
                .is_some_and(|p| (ms(40)..=ms(45)).contains(&p))
        );
        let began = measured(hedge, 5000).await.unwrap();
        assert!((40..=46).contains(&began), "{began}");
        assert_eq!(measured(hedge.cap(ms(7)), 300).await, Some(7));
        let fast = Latency::new().min_samples(1);
        fast.record(Duration::ZERO);
        assert_eq!(measured(Hedge::percentile(0.5, &fast), 300).await, Some(1));
    });
}

#[test]
fn a_cap_below_a_millisecond_holds() {
    paused(async || {
        let latency = taught(100);
        let hedge = Hedge::percentile(0.9, &latency).cap(Duration::ZERO);
        assert_eq!(measured(hedge, 50).await, Some(0));
    });
}

#[test]
fn losers_are_counted_and_fast_failures_are_not() {
    paused(async || {
        let latency = Latency::new().min_samples(1);
        latency.record(ms(100));
        let hedge = Hedge::percentile(0.5, &latency);
        let plan = Plan::new(&[(3000, true), (20, true)]);
        assert_eq!(hedge.run(|attempt| plan.copy(attempt)).await.unwrap(), 2);
        let lost = latency.percentile(0.99).unwrap();
        assert!((ms(120)..=ms(150)).contains(&lost), "{lost:?}");
        let won = latency.percentile(0.01).unwrap();
        assert!((ms(20)..=ms(23)).contains(&won), "{won:?}");
        let other = Latency::new().min_samples(1);
        let plan = Plan::new(&[(1, false), (1, false)]);
        assert!(
            Hedge::percentile(0.5, &other)
                .run(|attempt| plan.copy(attempt))
                .await
                .is_err()
        );
        assert_eq!(other.percentile(0.5), None);
    });
}

/// What twenty calls of so long have taught.
fn taught(took: u64) -> Latency {
    let latency = Latency::new().window(ms(3_600_000));
    (0..20).for_each(|_| latency.record(ms(took)));
    latency
}

#[test]
fn calls_that_are_cut_from_outside_are_counted() {
    paused(async || {
        let outage = async |latency: &Latency, around: u32| {
            let sent = Cell::new(0);
            let hedge = Hedge::percentile(0.9, latency);
            for _ in 0..100 {
                let call = async || {
                    let op = async |_| {
                        sent.set(sent.get() + 1);
                        pending::<Result<(), Oops>>().await
                    };
                    hedge.run(op).await
                };
                match around {
                    0 => assert!(timeout(ms(500), call()).await.is_err()),
                    1 => {
                        let run = Retry::DEFAULT.attempts(1).retry(async |_| call().await);
                        assert!(run.attempt_timeout(ms(500)).await.is_err());
                    }
                    _ => {
                        let run = hedge.run(async |_| call().await);
                        assert!(run.deadline(Deadline::after(ms(500))).await.is_err());
                    }
                }
            }
            sent.get()
        };
        for around in 0..3 {
            let latency = taught(10);
            let sent = outage(&latency, around).await;
            assert!(sent < 120, "{sent} copies for 100 calls");
            assert!(latency.percentile(0.9).unwrap() > ms(400));
        }
    });
}

#[test]
fn a_copy_that_is_cut_young_teaches_nothing() {
    paused(async || {
        // A first copy that fails for good just after the second one began; one that answers then; a caller that goes away.
        let latency = taught(100);
        let before = latency.percentile(0.01);
        let hedge = Hedge::percentile(0.9, &latency);
        for (good, calls) in [(false, 20), (true, 1)] {
            for _ in 0..calls {
                let plan = Plan::new(&[(115, good), (5000, true)]);
                let run = hedge.run(|attempt| plan.copy(attempt)).when(|_| false);
                assert_eq!((run.await.is_ok(), plan.times().len()), (good, 2));
            }
        }
        for _ in 0..20 {
            let plan = Plan::new(&[(5000, true)]);
            let run = hedge.run(|attempt| plan.copy(attempt));
            assert!(timeout(ms(5), run).await.is_err());
        }
        assert_eq!(latency.percentile(0.01), before);
    });
}

#[test]
fn a_failure_is_followed_without_samples() {
    paused(async || {
        let latency = Latency::new();
        let plan = Plan::new(&[(30, false), (10, true)]);
        let hedge = Hedge::percentile(0.9, &latency);
        assert_eq!(hedge.run(|attempt| plan.copy(attempt)).await.unwrap(), 2);
        assert_eq!(plan.times(), [0, 30]);
    });
}

#[test]
fn unless_given_twenty_calls_are_known_for_half_a_minute() {
    paused(async || {
        let latency = Latency::new();
        for call in 1..=20 {
            assert_eq!(latency.percentile(0.5), None, "{call}");
            latency.record(ms(10));
        }
        assert!(latency.percentile(0.5).is_some());
        advance(ms(59_999)).await;
        assert!(latency.percentile(0.5).is_some());
        advance(ms(1)).await;
        assert_eq!(latency.percentile(0.5), None);
    });
}

#[test]
fn an_idle_percentile_forgets() {
    paused(async || {
        let latency = Latency::new().min_samples(1).window(ms(1000));
        latency.record(ms(50));
        advance(ms(999)).await;
        assert!(latency.percentile(0.5).is_some());
        advance(ms(1001)).await;
        assert_eq!(latency.percentile(0.5), None);
        assert_eq!(measured(Hedge::percentile(0.5, &latency), 300).await, None);
    });
}

#[test]
fn no_copy_begins_at_the_deadline() {
    paused(async || {
        for (limit, copies) in [(100, 1), (101, 2)] {
            let plan = Plan::new(&[(300, true); 2]);
            let run = HEDGE.run(|attempt| plan.copy(attempt));
            let error = run.deadline(Deadline::after(ms(limit))).await.unwrap_err();
            assert_eq!(
                (error.reason(), error.copies()),
                (RetryReason::Deadline, copies)
            );
            assert_eq!((plan.now(), plan.drops.alive()), (limit.into(), 0));
        }
        let plan = Plan::new(&[(30, false), (10, true)]);
        let run = HEDGE
            .run(|attempt| plan.copy(attempt))
            .classify(|outcome| match outcome {
                Ok(_) => Verdict::Done,
                Err(_) => Verdict::RetryAfter(ms(70)),
            });
        let error = run.deadline(Deadline::after(ms(100))).await.unwrap_err();
        assert_eq!((error.reason(), plan.now()), (RetryReason::Deadline, 30));
        let scope = Scope::new().deadline(Deadline::after(ms(50)));
        let ended = scope.run(async |_: &TaskGroup<Oops>| {
            let plan = Plan::new(&[(40, true)]);
            let run = HEDGE.run(|attempt| {
                assert_eq!(attempt.deadline, Deadline::current());
                plan.copy(attempt)
            });
            Ok(run.await.unwrap())
        });
        assert_eq!(ended.await.unwrap(), 1);
        let plan = Plan::new(&[(40, true)]);
        let run = HEDGE
            .run(|attempt| plan.copy(attempt))
            .deadline(Deadline::after(Duration::ZERO));
        let error = run.await.unwrap_err();
        assert_eq!((error.copies(), plan.times()), (0, vec![]));
    });
}

#[test]
fn a_dropped_call_drops_every_copy() {
    paused(async || {
        let plan = Plan::new(&[(5000, true); 4]);
        {
            let mut run = std::pin::pin!(
                HEDGE
                    .copies(4)
                    .run(|attempt| plan.copy(attempt))
                    .into_future()
            );
            assert!(poll!(run.as_mut()).is_pending());
            for _ in 0..3 {
                sleep(ms(100)).await;
                assert!(poll!(run.as_mut()).is_pending());
            }
            assert_eq!(plan.drops.alive(), 4);
        }
        assert_eq!(plan.drops.alive(), 0);
        let mut run = std::pin::pin!(HEDGE.run(|_| async { Ok::<_, Oops>(()) }).into_future());
        assert!(poll!(run.as_mut()).is_ready());
        let text = caught(run).await.unwrap_err();
        assert_eq!(text, "ringfence: a hedge was polled after it was over");
    });
}

#[test]
fn a_hint_puts_the_next_copy_off() {
    paused(async || {
        let plan = Plan::new(&[(30, false), (10, true)]);
        let run = HEDGE
            .run(|attempt| plan.copy(attempt))
            .classify(|outcome| match outcome {
                Ok(_) => Verdict::Done,
                Err(_) => Verdict::RetryAfter(ms(400)),
            });
        assert_eq!(run.await.unwrap(), 2);
        assert_eq!((plan.times(), plan.now()), (vec![0, 430], 440));
    });
}

#[test]
fn of_several_hints_the_latest_holds() {
    paused(async || {
        // The first two fail at 110 and 120 ms, and ask for so long.
        for (hints, third) in [([1000, 0], 1110), ([1000, 50], 1110), ([50, 1000], 1120)] {
            for hint in [true, false] {
                let plan = Plan::new(&[(110, false), (20, false), (10, true)]);
                let run = HEDGE.copies(3).run(|attempt| plan.copy(attempt));
                let run = run.classify(|outcome| match outcome {
                    Ok(_) => Verdict::Done,
                    // One that asks for nothing says so, or does not say anything.
                    Err(Oops(copy)) => match hints[*copy as usize - 1] {
                        0 if hint => Verdict::Retry,
                        asked => Verdict::RetryAfter(ms(asked)),
                    },
                });
                assert_eq!(run.await.unwrap(), 3);
                assert_eq!(plan.times(), [0, 100, third]);
            }
        }
    });
}

#[test]
fn a_hint_that_is_too_long_ends_the_copies() {
    paused(async || {
        let minute = Duration::from_secs(60);
        let year = Duration::from_secs(365 * 24 * 60 * 60);
        let asked = async |hedge: Hedge<'_>, hint| {
            let start = Instant::now();
            let run = hedge.run(|_| async { Err::<(), _>(Oops(1)) });
            let error = run.classify(|_| Verdict::RetryAfter(hint)).await;
            let error = error.unwrap_err();
            (error.reason(), error.copies(), start.elapsed())
        };
        let (too_long, done) = (RetryReason::HintTooLong, RetryReason::AttemptsExhausted);
        for hint in [minute + ms(1), year * 10, Duration::MAX] {
            assert_eq!(asked(HEDGE, hint).await, (too_long, 1, ms(0)));
        }
        assert_eq!(asked(HEDGE, minute).await, (done, 2, minute));
        assert_eq!(
            asked(HEDGE.max_hint(ms(9)), ms(10)).await,
            (too_long, 1, ms(0))
        );
        assert_eq!(asked(HEDGE.copies(1), year).await, (done, 1, ms(0)));
        let patient = HEDGE.max_hint(Duration::MAX);
        assert_eq!(asked(patient, year).await, (done, 2, year));
        // A copy that runs may still win.
        let plan = Plan::new(&[(300, true), (20, false), (0, true)]);
        let run = HEDGE.copies(3).run(|attempt| plan.copy(attempt));
        let run = run.classify(|outcome| match outcome {
            Ok(_) => Verdict::Done,
            Err(_) => Verdict::RetryAfter(year),
        });
        assert_eq!((run.await.unwrap(), plan.times().len()), (1, 2));
    });
}

#[test]
fn copies_run_in_the_callers_task() {
    paused(async || {
        let seen = RefCell::new(Vec::new());
        let shared = Rc::new(Cell::new(0));
        let run = HEDGE.copies(3).run(|attempt| {
            seen.borrow_mut().push((attempt.number, attempt.elapsed));
            let shared = shared.clone();
            async move {
                sleep(ms(120)).await;
                shared.set(shared.get() + 1);
                Ok::<_, Oops>(shared.get())
            }
        });
        assert_eq!(run.until(|value| *value == 3).await.unwrap(), 3);
        assert_eq!(seen.into_inner(), [(1, ms(0)), (2, ms(100)), (3, ms(120))]);
    });
}

#[test]
fn a_loser_that_panics_in_its_destructor_is_observed() {
    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);
    impl Observer for Heard {
        fn displaced(&self, what: &Displaced) {
            self.0.lock().unwrap().push(what.to_string());
        }
    }
    paused(async || {
        let heard = Arc::new(Heard::default());
        let scope = Scope::new().observer(heard.clone());
        let ended = scope.run(async |_: &TaskGroup<Oops>| {
            let run = HEDGE.run(async |attempt| {
                if attempt.number == 1 {
                    let _bomb = PanicOnDrop("a destructor");
                    pending::<()>().await;
                }
                Ok::<_, Oops>(attempt.number)
            });
            Ok(run.await.unwrap())
        });
        assert_eq!(ended.await.unwrap(), 2);
        assert_eq!(*heard.0.lock().unwrap(), ["panicked: a destructor"]);
        let drops = Drops::new();
        let run = HEDGE.run(|attempt| {
            let guard = drops.guard();
            async move {
                let _guard = guard;
                assert!(attempt.number < 2, "the second");
                pending::<Result<(), Oops>>().await
            }
        });
        assert_eq!(caught(run.into_future()).await.unwrap_err(), "the second");
        assert_eq!((drops.made(), drops.alive()), (2, 0));
    });
}

#[test]
fn copies_whose_destructors_panic_go_one_by_one() {
    paused(async || {
        // Two of them, then three more in boxes; from outside, or because another copy panics.
        for (bombs, panics) in [(2, false), (5, false), (2, true), (5, true)] {
            let drops = Drops::new();
            let run = HEDGE.copies(6).run(|attempt| {
                let guard = drops.guard();
                async move {
                    let _guard = guard;
                    if attempt.number > bombs {
                        assert!(!panics, "a copy");
                        sleep(ms(50)).await;
                    }
                    let _bomb = PanicOnDrop("a destructor");
                    pending::<Result<(), Oops>>().await
                }
            });
            let ended = caught(timeout(ms(u64::from(bombs) * 100 + 10), run)).await;
            if panics {
                assert_eq!(ended.unwrap_err(), "a copy");
            } else {
                assert!(ended.unwrap().is_err());
            }
            assert_eq!((drops.made() as u32, drops.alive()), (bombs + 1, 0));
        }
        // That of a copy that has ended keeps nobody from the answer.
        let run = HEDGE.run(|attempt| {
            let bomb = (attempt.number == 2).then(|| PanicOnDrop("a destructor"));
            let mut late = Box::pin(sleep(ms(300)));
            std::future::poll_fn(move |cx| match &bomb {
                Some(_) => std::task::Poll::Ready(Err(Oops(2))),
                None => late.as_mut().poll(cx).map(|()| Ok(1)),
            })
        });
        assert_eq!(caught(run.into_future()).await.unwrap().unwrap(), 1);
    });
}

#[test]
fn retry_and_hedge_nest_either_way() {
    paused(async || {
        let policy = Retry::constant(ms(10)).jitter(Jitter::None).attempts(3);
        for (tokens, sends) in [(100, 6), (2, 3), (0, 1)] {
            for outside in [true, false] {
                let budget = RetryBudget::new(0.0).capacity(tokens).reserve(0);
                let sent = Cell::new(0);
                let op = async |_| {
                    sent.set(sent.get() + 1);
                    sleep(ms(500)).await;
                    Err::<(), _>(Oops(0))
                };
                if outside {
                    let run = policy.retry(async |_| HEDGE.run(op).budget(&budget).await);
                    assert!(run.budget(&budget).await.is_err());
                } else {
                    let run = HEDGE.run(async |_| policy.retry(op).budget(&budget).await);
                    assert!(run.budget(&budget).await.is_err());
                }
                assert_eq!(
                    sent.get(),
                    sends,
                    "{tokens} tokens, retry outside: {outside}"
                );
            }
        }
    });
}

#[test]
fn a_hedge_that_makes_no_sense_is_refused() {
    static LATENCY: Latency = Latency::new();
    let refusal = |build: fn()| {
        let payload = std::panic::catch_unwind(build).expect_err("it should be refused");
        crate::support::message(&*payload)
    };
    let copies = "ringfence: a hedge has from 1 to 16 copies";
    assert_eq!(
        refusal(|| drop(HEDGE.copies(0).run(|_| async { Ok::<_, Oops>(()) }))),
        copies
    );
    assert_eq!(
        refusal(|| drop(HEDGE.copies(17).run(|_| async { Ok::<_, Oops>(()) }))),
        copies
    );
    let share = "ringfence: the percentile of a hedge lies between 0 and 1";
    for build in [
        || drop(Hedge::percentile(0.0, &LATENCY).run(|_| async { Ok::<_, Oops>(()) })),
        || drop(Hedge::percentile(1.0, &LATENCY).run(|_| async { Ok::<_, Oops>(()) })),
        || drop(Hedge::percentile(f64::NAN, &LATENCY).run(|_| async { Ok::<_, Oops>(()) })),
    ] {
        assert_eq!(refusal(build), share);
    }
    for (share, said) in [(f64::NAN, "NaN"), (-1.0, "-1"), (0.0, "0"), (7.0, "7")] {
        let payload = std::panic::catch_unwind(|| LATENCY.percentile(share)).unwrap_err();
        assert_eq!(
            crate::support::message(&*payload),
            format!("ringfence: a percentile is a share above 0, and 1 at most: {said} is none")
        );
    }
    assert_eq!(LATENCY.percentile(1.0), None);
    let window = "ringfence: a window of no time holds nothing";
    assert_eq!(
        refusal(|| drop(Latency::new().window(Duration::ZERO))),
        window
    );
}

#[test]
fn a_copy_that_spends_every_turn_does_not_put_the_deadline_off() {
    paused(async || {
        let run = HEDGE.copies(1).run(|_| async {
            advance(ms(30)).await;
            // It ends in the end, so that a failure is none to wait for.
            for _ in 0..100_000 {
                tokio::task::coop::consume_budget().await;
            }
            Err::<(), _>(Oops(0))
        });
        let error = run.deadline(Deadline::after(ms(20))).await.unwrap_err();
        assert_eq!((error.reason(), error.copies()), (RetryReason::Deadline, 1));
    });
}

/// A hedged call in a task that is asked to end after so long; says how the call ended, and when.
async fn signalled<F, T>(after: u64, call: impl FnOnce() -> F + Send) -> (T, u128)
where
    F: Future<Output = T> + Send,
    T: Send + 'static,
{
    let start = Instant::now();
    let mut ended = None;
    let scope = Scope::new().grace(ms(60_000));
    let run = scope.run(async |group: &TaskGroup<Oops>| {
        let cancel = async {
            sleep(ms(after)).await;
            group.cancel();
        };
        let call = async {
            if after == 0 {
                sleep(ms(1)).await;
            }
            call().await
        };
        ended = Some((tokio::join!(call, cancel).0, start.elapsed().as_millis()));
        Ok(())
    });
    assert!(run.await.is_err());
    ended.expect("the body was run")
}

#[test]
fn after_a_signal_no_copy_begins() {
    paused(async || {
        // The wait for a hint ends.
        let hint = |outcome: &Result<(), Oops>| match outcome {
            Ok(()) => Verdict::Done,
            Err(_) => Verdict::RetryAfter(ms(20_000)),
        };
        let (ended, at) = signalled(50, || {
            let run = HEDGE.run(|_| async { Err::<(), _>(Oops(7)) });
            run.classify(hint).report().into_future()
        })
        .await;
        let error = ended.result.unwrap_err();
        assert_eq!(
            (error.reason(), error.copies(), at),
            (RetryReason::Cancelled, 1, 50)
        );
        assert_eq!(error.into_error(), Some(Oops(7)));
        // What runs may finish, and is not hedged any more.
        for good in [true, false] {
            let (ended, at) = signalled(50, || {
                let run = HEDGE.run(move |_| async move {
                    sleep(ms(300)).await;
                    if good { Ok(1) } else { Err(Oops(2)) }
                });
                run.report().into_future()
            })
            .await;
            assert_eq!((ended.copies, at), (1, 300));
            let ended = ended.result.map_err(|error| error.reason());
            let expected = if good {
                Ok(1)
            } else {
                Err(RetryReason::Cancelled)
            };
            assert_eq!(ended, expected);
        }
        // What begins after it calls nothing, unless it was told to listen to no token.
        for listens in [true, false] {
            let (ended, _) = signalled(0, || {
                let run = HEDGE.run(|_| async { Ok::<_, Oops>(1) });
                let run = if listens { run } else { run.cancel_on(None) };
                run.report().into_future()
            })
            .await;
            let ended = (ended.copies, ended.result.map_err(|error| error.reason()));
            let refused = (0, Err(RetryReason::Cancelled));
            assert_eq!(ended, if listens { refused } else { (1, Ok(1)) });
        }
    });
}

#[test]
fn a_timer_that_is_over_is_over_by_every_clock() {
    let op = async |attempt: Attempt| match attempt.number {
        1 => pending().await,
        number => Ok::<_, Oops>(number),
    };
    let mut run = Box::pin(HEDGE.run(op).into_future());
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        advance(Duration::from_secs(3600)).await;
        assert!(poll!(run.as_mut()).is_pending());
        sleep(ms(200)).await;
    });
    // An hour earlier.
    assert_eq!(futures::executor::block_on(run).unwrap(), 2);
}

#[test]
fn a_call_can_listen_to_another_token() {
    paused(async || {
        let (give, take) = tokio::sync::oneshot::channel();
        let other = signalled(50, || async { give.send(ringfence::token()) });
        let call = async {
            let run = HEDGE.run(|_| async { Err::<(), _>(Oops(0)) });
            let run = run.classify(|_| Verdict::RetryAfter(ms(20_000)));
            run.cancel_on(take.await.unwrap()).await.unwrap_err()
        };
        let (_, error) = tokio::join!(other, call);
        assert_eq!(
            (error.reason(), error.elapsed()),
            (RetryReason::Cancelled, ms(50))
        );
    });
}

#[test]
fn a_call_that_goes_on_elsewhere_heeds_what_is_around_it_there() {
    paused(async || {
        let op = |_| async { Err::<(), _>(Oops(7)) };
        let later = |_: &Result<(), Oops>| Verdict::RetryAfter(ms(20_000));
        let begun = || {
            let mut run = Box::pin(HEDGE.run(op).classify(later).into_future());
            assert!(run.as_mut().now_or_never().is_none());
            run
        };
        let run = begun();
        let (ended, at) = signalled(50, || run).await;
        assert_eq!(
            (ended.unwrap_err().reason(), at),
            (RetryReason::Cancelled, 50)
        );
        let run = begun();
        let scope = Scope::new().deadline(Deadline::after(ms(50)));
        let ended = scope.run(async |_: &TaskGroup<Oops>| Ok(run.await));
        let error = ended.await.unwrap().unwrap_err();
        assert_eq!(
            (error.reason(), error.elapsed()),
            (RetryReason::Deadline, ms(0))
        );
    });
}

#[test]
fn a_borrowing_call_can_be_spawned() {
    paused(async || {
        let task = spawn(async {
            let (url, budget) = (String::from("12345"), RetryBudget::new(0.1));
            let mut told = 0;
            let fetch = async |attempt: Attempt| {
                sleep(ms(if attempt.number == 1 { 300 } else { 20 })).await;
                Ok::<_, Oops>(url.len())
            };
            let run = HEDGE.run(fetch).when(|error| error.0 > 0).budget(&budget);
            let length = run.on_event(|_| told += 1).await.unwrap();
            let run = Retry::DEFAULT
                .retry(|_| HEDGE.run(fetch).budget(&budget))
                .budget(&budget);
            length + run.await.unwrap() + told
        });
        assert_eq!(task.await.unwrap(), 11);
    });
}

#[test]
fn two_copies_allocate_nothing() {
    paused(async || {
        let call = async || {
            let plan = Cell::new(0);
            let run = HEDGE.run(|attempt| {
                plan.set(plan.get() + 1);
                async move {
                    sleep(ms(if attempt.number == 1 { 300 } else { 20 })).await;
                    Ok::<_, Oops>(attempt.number)
                }
            });
            (run.await.unwrap(), plan.get())
        };
        assert_eq!(call().await, (2, 2)); // the first timer of a runtime, and what else is made once
        let mut counted = std::pin::pin!(call());
        let mut allocations = 0;
        let ended = std::future::poll_fn(|cx| {
            let mut polled = std::task::Poll::Pending;
            let info = allocation_counter::measure(|| polled = counted.as_mut().poll(cx));
            allocations += info.count_total;
            polled
        });
        assert_eq!((ended.await, allocations), ((2, 2), 0));
    });
}
