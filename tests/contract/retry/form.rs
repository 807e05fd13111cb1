//! The three forms, and what compiles where: the matrix of closures, borrows and `Send`.

use std::{cell::Cell, cell::RefCell, future::Future, rc::Rc, time::Duration};

use ringfence::{
    Attempt, Deadline, Retry, RetryBudget, RetryError, RetryEvent, RetryReason, Scope, TaskGroup,
    Verdict, retry, scope, timeout, timeout_at,
};
use tokio::task::LocalSet;

use super::{Flaky, Oops, STEADY, ms};
use crate::support::{every_runtime, paused, spawn};

/// Something to borrow, with a method that borrows it and one that changes it.
#[derive(Debug, Default)]
struct Client {
    sent: u32,
}

impl Client {
    async fn get(&self, url: &str, _: Deadline) -> Result<usize, Oops> {
        tokio::task::yield_now().await;
        Ok(url.len())
    }

    async fn send(&mut self) -> Result<u32, Oops> {
        tokio::task::yield_now().await;
        self.sent += 1;
        if self.sent < 3 {
            Err(Oops(self.sent))
        } else {
            Ok(self.sent)
        }
    }
}

const AT_ONCE: Retry = Retry::constant(Duration::ZERO);

#[test]
fn a_borrowing_run_can_be_spawned() {
    async fn item(attempt: Attempt) -> Result<u32, Oops> {
        Ok(attempt.number)
    }
    every_runtime(async || {
        let sum = spawn(async {
            let client = Client::default();
            let url = String::from("12345");
            let budget = RetryBudget::new(0.1);
            let mut seen = 0;
            let a = AT_ONCE
                .retry(|attempt| client.get(&url, attempt.deadline))
                .when(|error| error.0 > 0)
                .budget(&budget)
                .on_event(|_| seen += 1)
                .await;
            let b = AT_ONCE
                .retry(|_| async { client.get(&url, Deadline::NEVER).await })
                .await;
            let c = AT_ONCE
                .retry(async |attempt| client.get(&url, attempt.deadline).await)
                .await;
            let d = AT_ONCE
                .retry(async move |_| Ok::<_, Oops>(1))
                .until(|one| *one == 1)
                .await;
            let e = AT_ONCE.retry(item).report().await.result;
            assert_eq!(seen, 0);
            a.unwrap() + b.unwrap() + c.unwrap() + d.unwrap() + e.unwrap() as usize
        });
        assert_eq!(sum.await.unwrap(), 17);
    });
}

#[test]
fn the_future_of_a_run_has_a_name() {
    type Named<'p, Op, Fut> = retry::RetryFuture<
        'p,
        Op,
        Fut,
        retry::AnyError,
        retry::NoHook,
        Oops,
        std::convert::Infallible,
    >;
    fn named<Op, Fut>(policy: &Retry, op: Op) -> Named<'_, Op, Fut>
    where
        Op: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<u32, Oops>>,
    {
        policy.retry(op).into_future()
    }
    paused(async || {
        let policy = STEADY.attempts(5);
        let flaky = Flaky::new(4);
        assert_eq!(named(&policy, |_| flaky.call()).await.unwrap(), 5);
        let flaky = Flaky::new(9);
        let within = timeout(ms(250), policy.retry(|_| flaky.call())).await;
        assert!(within.is_err());
        assert_eq!(flaky.calls.get(), 3);
    });
}

#[test]
fn generic_callers_can_pass_operations_on() {
    trait Source: Sync {
        fn fetch(&self, number: u32) -> impl Future<Output = Result<u32, Oops>> + Send;
    }
    struct Third;
    impl Source for Third {
        async fn fetch(&self, number: u32) -> Result<u32, Oops> {
            if number == 3 {
                Ok(number)
            } else {
                Err(Oops(number))
            }
        }
    }
    fn run<Op, Fut>(op: Op) -> impl Future<Output = Result<u32, RetryError<Oops>>> + Send
    where
        Op: FnMut(Attempt) -> Fut + Send,
        Fut: Future<Output = Result<u32, Oops>> + Send,
    {
        AT_ONCE.retry(op).into_future()
    }
    async fn of<S: Source>(source: S) -> u32 {
        AT_ONCE
            .retry(|attempt| source.fetch(attempt.number))
            .await
            .unwrap()
    }
    type Boxed<'a> = std::pin::Pin<Box<dyn Future<Output = Result<u32, Oops>> + Send + 'a>>;
    every_runtime(async || {
        let task = spawn(async {
            let mut op: Box<dyn FnMut(Attempt) -> Boxed<'static> + Send> =
                Box::new(|attempt| Box::pin(async move { Ok(attempt.number) }));
            run(&mut op).await.unwrap() + of(Third).await
        });
        assert_eq!(task.await.unwrap(), 4);
    });
}

#[test]
fn a_run_need_not_be_send() {
    paused(async || {
        let set = LocalSet::new();
        let ended = set.run_until(async {
            let seen = Rc::new(Cell::new(0));
            let run = STEADY.retry(|_| {
                let seen = seen.clone();
                async move {
                    seen.set(seen.get() + 1);
                    if seen.get() < 3 {
                        Err(Rc::new(seen.get()))
                    } else {
                        Ok(seen)
                    }
                }
            });
            run.await.unwrap().get()
        });
        assert_eq!(ended.await, 3);
    });
}

#[test]
fn an_operation_can_change_what_it_is_lent() {
    struct Borrows<'a> {
        name: &'a str,
        calls: u32,
    }
    #[derive(Default)]
    struct Counter(u32);
    impl Counter {
        async fn step(&mut self, attempt: Attempt) -> Result<u32, Oops> {
            self.0 += 1;
            tokio::task::yield_now().await;
            if attempt.number == 1 {
                Err(Oops(self.0))
            } else {
                Ok(self.0)
            }
        }
    }
    async fn step(borrows: &mut Borrows<'_>, _: Attempt) -> Result<usize, Oops> {
        borrows.calls += 1;
        tokio::task::yield_now().await;
        if borrows.calls == 2 {
            Ok(borrows.name.len())
        } else {
            Err(Oops(0))
        }
    }
    every_runtime(async || {
        let task = spawn(async {
            let mut client = Client::default();
            let sent = AT_ONCE
                .retry_with(&mut client, async |client, _| client.send().await)
                .run();
            assert_eq!(sent.await.unwrap(), 3);
            let name = String::from("name");
            let mut borrows = Borrows {
                name: &name,
                calls: 0,
            };
            let length = AT_ONCE
                .retry_with(&mut borrows, step)
                .when(|_| true)
                .run()
                .await
                .unwrap();
            // A method as it is, and a closure with captures of its own.
            let own = std::sync::Arc::new(3);
            let mut counter = Counter::default();
            let run = AT_ONCE.retry_with(&mut counter, Counter::step).run();
            assert_eq!(run.await.unwrap(), 2);
            let run = AT_ONCE.retry_with(&mut counter, async move |counter, attempt| {
                counter.step(attempt).await.map(|steps| steps + *own)
            });
            assert_eq!(run.run().await.unwrap(), 7);
            (client.sent, length, borrows.calls)
        });
        assert_eq!(task.await.unwrap(), (3, 4, 2));
    });
}

/// A loop around something that changes, with a borrow and an early return.
async fn drive(client: &mut Client, url: &str) -> Result<u32, RetryError<Oops>> {
    let mut tries = AT_ONCE.tries();
    loop {
        let attempt = tries.begin()?;
        assert_eq!(client.get(url, attempt.deadline).await, Ok(url.len()));
        match client.send().await {
            Ok(sent) => return Ok(tries.succeeded(sent)),
            Err(error) => tries.failed(error, |error| error.0 < 9).await?,
        }
    }
}

#[test]
fn a_loop_can_do_anything_in_between() {
    every_runtime(async || {
        let task = spawn(async {
            let mut client = Client::default();
            let url = String::from("url");
            (drive(&mut client, &url).await.unwrap(), client.sent)
        });
        assert_eq!(task.await.unwrap(), (3, 3));
    });
}

/// What an error carries.
type Parts = (RetryReason, u32, Duration, Option<Oops>, Vec<Oops>);

/// What one run did: when its operation was called, what was told, how it ended.
#[derive(Debug, PartialEq)]
struct Course {
    times: Vec<u128>,
    told: Vec<String>,
    ended: Result<u32, Parts>,
    available: f64,
}

fn judge(error: &Oops) -> Verdict {
    match error.0 {
        2 => Verdict::RetryAfter(ms(333)),
        7 => Verdict::Permanent,
        _ => Verdict::Retry,
    }
}

/// The same run in each of the three forms.
#[expect(clippy::future_not_send, reason = "it runs where it is awaited")]
async fn courses(policy: &Retry, failures: u32, limit: Duration, tokens: u32) -> [Course; 3] {
    let told = RefCell::new(Vec::new());
    let tell = |event: &RetryEvent<'_, Oops>| told.borrow_mut().push(format!("{event:?}"));
    let valued = |event: &RetryEvent<'_, Oops, u32>| told.borrow_mut().push(format!("{event:?}"));
    let judged =
        |outcome: &Result<u32, Oops>| outcome.as_ref().map_or_else(judge, |_| Verdict::Done);
    let course = |flaky: &Flaky, ended: Result<u32, _>, budget: &RetryBudget| Course {
        times: flaky.times(),
        told: told.take(),
        ended,
        available: budget.available(),
    };
    fn parts<V>(error: RetryError<Oops, V>) -> Parts {
        let earlier = error.earlier().to_vec();
        (
            error.reason(),
            error.attempts(),
            error.elapsed(),
            error.into_error(),
            earlier,
        )
    }
    let budget = || RetryBudget::new(0.5).capacity(tokens).reserve(0);

    let (flaky, purse) = (Flaky::new(failures), budget());
    let run = policy
        .retry(|_| flaky.call())
        .classify(judged)
        .on_event(valued);
    let run = run
        .deadline(Deadline::after(limit))
        .budget(&purse)
        .history(2)
        .stream(3);
    let closure = course(&flaky, run.await.map_err(parts), &purse);

    let (mut flaky, purse) = (Flaky::new(failures), budget());
    let run = policy.retry_with(&mut flaky, async |flaky, _| flaky.call().await);
    let run = run.classify(judged).on_event(valued);
    let run = run
        .deadline(Deadline::after(limit))
        .budget(&purse)
        .history(2)
        .stream(3);
    let ended = run.run().await.map_err(parts);
    let lent = course(&flaky, ended, &purse);

    let (flaky, purse) = (Flaky::new(failures), budget());
    let tries = policy
        .tries()
        .on_event(tell)
        .deadline(Deadline::after(limit));
    let mut tries = tries.budget(&purse).history(2).stream(3);
    let ended = async {
        loop {
            tries.begin()?;
            match flaky.call().await {
                Ok(value) => return Ok(tries.succeeded(value)),
                Err(error) => tries.failed(error, judge).await?,
            }
        }
    };
    let ended = ended.await.map_err(parts);
    let driven = course(&flaky, ended, &purse);
    [closure, lent, driven]
}

#[test]
fn the_three_forms_do_the_same() {
    paused(async || {
        let policy = Retry::exponential(ms(50)).seed(11).attempts(6);
        let mut reasons = std::collections::HashSet::new();
        for failures in [0, 1, 3, 5, 100] {
            for limit in [0, 120, 500, 100_000] {
                for tokens in [0, 2, 100] {
                    let [a, b, c] = courses(&policy, failures, ms(limit), tokens).await;
                    assert_eq!(a, b);
                    assert_eq!(a, c);
                    reasons.insert(a.ended.map_or_else(|(reason, ..)| Some(reason), |_| None));
                }
            }
        }
        assert_eq!(reasons.len(), 4, "success and three reasons: {reasons:?}");
    });
}

#[test]
fn a_loop_keeps_time_by_the_attempts_deadline() {
    paused(async || {
        let flaky = Flaky::new(0);
        let mut tries = STEADY
            .tries()
            .attempt_timeout(ms(30))
            .deadline(Deadline::after(ms(145)));
        let error: RetryError<Oops> = loop {
            let attempt = match tries.begin() {
                Ok(attempt) => attempt,
                Err(error) => break error,
            };
            drop(flaky.call());
            let late = timeout_at(attempt.deadline, std::future::pending::<()>()).await;
            assert!(late.is_err());
            if let Err(error) = tries.failed(Oops(attempt.number), |_| true).await {
                break error;
            }
        };
        assert_eq!((flaky.times(), flaky.now()), (vec![0, 130], 145));
        assert_eq!(
            (error.reason(), tries.attempts()),
            (RetryReason::Deadline, 2)
        );
    });
}

#[test]
fn a_run_allocates_nothing() {
    paused(async || {
        let count = async |what: &str, run: &mut (dyn AsyncRun + '_)| {
            run.run().await; // the first timer of a runtime, and what else is made once
            let mut counted = std::pin::pin!(run.run());
            let mut allocations = 0;
            std::future::poll_fn(|cx| {
                let mut polled = std::task::Poll::Pending;
                let info = allocation_counter::measure(|| polled = counted.as_mut().poll(cx));
                allocations += info.count_total;
                polled
            })
            .await;
            assert_eq!(allocations, 0, "{what}");
        };
        count("closure", &mut Closure).await;
        count("lent", &mut Lent).await;
        count("loop", &mut Loop).await;
        scope(async |_: &TaskGroup<Oops>| {
            count("closure, in a group", &mut Closure).await;
            Ok(())
        })
        .await
        .unwrap();
    });
}

/// A run of a form. Boxed by `run`, before it is counted.
trait AsyncRun {
    fn run(&mut self) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>>;
}

static PURSE: RetryBudget = RetryBudget::new(0.1);

struct Closure;
impl AsyncRun for Closure {
    fn run(&mut self) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async {
            let mut calls = 0;
            let run = STEADY.retry(|_| {
                calls += 1;
                std::future::ready(if calls < 3 { Err(Oops(calls)) } else { Ok(()) })
            });
            let run = run.when(|_| true).attempt_timeout(ms(50)).budget(&PURSE);
            assert!(run.deadline(Deadline::after(ms(10_000))).await.is_ok());
        })
    }
}

struct Lent;
impl AsyncRun for Lent {
    fn run(&mut self) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async {
            let mut client = Client::default();
            let run = STEADY.retry_with(&mut client, async |client, _| client.send().await);
            assert!(
                run.attempt_timeout(ms(50))
                    .budget(&PURSE)
                    .run()
                    .await
                    .is_ok()
            );
        })
    }
}

struct Loop;
impl AsyncRun for Loop {
    fn run(&mut self) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async {
            assert!(drive(&mut Client::default(), "x").await.is_ok());
        })
    }
}

#[test]
fn in_a_group_with_a_grace_a_pausing_run_allocates_once() {
    paused(async || {
        let ended = Scope::new()
            .grace(ms(1000))
            .run(async |_: &TaskGroup<Oops>| {
                let mut closure = Closure;
                closure.run().await;
                let mut counted = std::pin::pin!(closure.run());
                let mut allocations = 0;
                std::future::poll_fn(|cx| {
                    let mut polled = std::task::Poll::Pending;
                    let info = allocation_counter::measure(|| polled = counted.as_mut().poll(cx));
                    allocations += info.count_total;
                    polled
                })
                .await;
                assert!(allocations <= 1, "{allocations}");
                Ok(())
            });
        assert!(ended.await.is_ok());
    });
}

#[test]
fn a_loop_that_gave_up_begins_no_attempt() {
    paused(async || {
        // Whoever only logs the error does not loop for ever.
        let told = RefCell::new(Vec::new());
        let budget = RetryBudget::new(0.5).capacity(1).reserve(0);
        let mut tries = STEADY
            .tries()
            .budget(&budget)
            .on_event(|event: &RetryEvent<'_, Oops>| told.borrow_mut().push(format!("{event:?}")));
        let mut begun = 0;
        while tries.begin().is_ok() {
            begun += 1;
            let _logged = tries.failed(Oops(begun), |_| begun < 2).await;
        }
        let error = tries.begin().unwrap_err();
        assert_eq!(
            (begun, error.reason(), error.attempts(), error.last()),
            (2, RetryReason::Permanent, 2, None)
        );
        let error = tries.failed(Oops(9), |_| true).await.unwrap_err();
        assert_eq!(
            (error.reason(), error.into_error()),
            (RetryReason::Permanent, Some(Oops(9)))
        );
        assert_eq!(tries.succeeded(7), 7);
        assert_eq!(budget.available(), 0.0, "and brings nothing");
        assert_eq!(told.into_inner().len(), 2, "a pause, and one end");
    });
}

#[test]
fn a_loop_that_says_nothing_has_no_more_attempts() {
    paused(async || {
        let mut tries = STEADY.tries::<Oops>();
        let mut begun = 0;
        let error = loop {
            match tries.begin() {
                Ok(_) => begun += 1,
                Err(error) => break error,
            }
        };
        assert_eq!((begun, error.reason()), (3, RetryReason::AttemptsExhausted));
    });
}

#[test]
fn an_attempt_that_was_not_begun_counts_as_one_that_was() {
    paused(async || {
        // Three attempts are three, with a token for each but the first, however often `begin` is called.
        for begins in 0..4 {
            let budget = RetryBudget::new(0.0).capacity(9).reserve(0);
            let mut tries = STEADY.tries::<Oops>().budget(&budget);
            let mut said = 0;
            let error = loop {
                if said < begins {
                    tries.begin().unwrap();
                }
                said += 1;
                assert!(said <= 3, "attempt {said} of 3");
                if let Err(error) = tries.failed(Oops(said), |_| true).await {
                    break error;
                }
            };
            assert_eq!(
                (error.reason(), error.attempts(), budget.available()),
                (RetryReason::AttemptsExhausted, 3, 7.0)
            );
        }
        // One that succeeds has used the token up.
        let budget = RetryBudget::new(0.0).capacity(1).reserve(0);
        let mut tries = STEADY.tries::<Oops>().budget(&budget);
        tries.failed(Oops(1), |_| true).await.unwrap();
        assert_eq!((tries.succeeded(7), budget.available()), (7, 0.0));
        // Its deadline holds, and that of the group.
        let mut tries = STEADY.tries().deadline(Deadline::after(ms(50)));
        let error = tries.failed(Oops(1), |_| true).await.unwrap_err();
        assert_eq!(
            (error.reason(), error.attempts()),
            (RetryReason::Deadline, 1)
        );
        let scope = Scope::new().deadline(Deadline::after(ms(50)));
        let ended = scope.run(async |_: &TaskGroup<Oops>| {
            let failed = STEADY.tries().failed(Oops(1), |_| true).await;
            Ok(failed.unwrap_err().reason())
        });
        assert_eq!(ended.await.unwrap(), RetryReason::Deadline);
    });
}

#[test]
fn a_loop_that_says_nothing_pays_for_each_attempt() {
    paused(async || {
        let budget = RetryBudget::new(0.0).capacity(2).reserve(0);
        let mut tries = STEADY.attempts(9).tries::<Oops>().budget(&budget);
        tries.begin().unwrap();
        tries.failed(Oops(1), |_| true).await.unwrap();
        assert_eq!(tries.begin().unwrap().previous_delay, Some(ms(100)));
        assert_eq!(tries.begin().unwrap().previous_delay, Some(ms(0)));
        let error = tries.begin().unwrap_err();
        assert_eq!(
            (error.reason(), error.attempts()),
            (RetryReason::BudgetExhausted, 3)
        );
        // A budget that is given late is asked from then on.
        let mut tries = STEADY.tries::<Oops>();
        tries.begin().unwrap();
        tries.failed(Oops(1), |_| true).await.unwrap();
        let error = tries.budget(&budget).begin().unwrap_err();
        assert_eq!(error.reason(), RetryReason::BudgetExhausted);
    });
}

#[test]
fn a_pause_of_a_loop_that_was_cut_is_told_as_it_was() {
    paused(async || {
        let mut tries = STEADY.tries::<Oops>();
        tries.begin().unwrap();
        let failed = tries.failed(Oops(1), |_| true);
        assert!(timeout(ms(30), failed).await.is_err());
        assert_eq!(tries.begin().unwrap().previous_delay, Some(ms(30)));
    });
}

#[test]
fn what_can_be_awaited_can_be_retried() {
    paused(async || {
        let (flaky, hedge) = (Flaky::new(2), ringfence::Hedge::after(ms(10)).copies(1));
        let hedged = STEADY.retry(|_| hedge.run(|_| flaky.call()));
        assert_eq!(hedged.await.unwrap(), 3);
        let flaky = Flaky::new(2);
        let retried = hedge.run(|_| STEADY.retry(|_| flaky.call()));
        assert_eq!(retried.await.unwrap(), 3);
    });
}

#[test]
fn what_a_loop_is_told_late_holds_from_then_on() {
    paused(async || {
        let flaky = Flaky::new(0);
        let mut tries = STEADY.tries();
        tries.begin().unwrap();
        let mut tries = tries.deadline(Deadline::after(ms(50)));
        let error = tries.failed(Oops(1), |_| true).await.unwrap_err();
        assert_eq!((error.reason(), flaky.now()), (RetryReason::Deadline, 0));
        let mut cancelled = None;
        let other = scope(async |group: &TaskGroup<Oops>| {
            cancelled = Some(group.token());
            group.cancel();
            Ok(())
        });
        assert!(other.await.is_err());
        let mut tries = STEADY.tries();
        tries.begin().unwrap();
        let mut tries = tries.cancel_on(cancelled);
        let error = tries.failed(Oops(1), |_| true).await.unwrap_err();
        assert_eq!(error.reason(), RetryReason::Cancelled);
    });
}

#[test]
fn a_loop_tells_its_time() {
    paused(async || {
        // The policy need not live as long as the loop.
        let mut tries = STEADY.attempts(2).tries();
        tokio::time::sleep(ms(70)).await; // not in it
        for took in [ms(5000), ms(300)] {
            assert!(tries.begin().is_ok());
            tokio::time::sleep(took).await;
            if let Err(error) = tries.failed(Oops(0), |_| true).await {
                assert_eq!((error.elapsed(), tries.elapsed()), (ms(5400), ms(5400)));
            }
        }
        assert_eq!(tries.attempts(), 2);
        // What an attempt computes counts as well: nothing waits here.
        let mut tries = STEADY.tries();
        assert!(tries.begin().is_ok());
        tokio::time::advance(ms(40)).await;
        let error = tries.failed(Oops(0), |_| false).await.unwrap_err();
        assert_eq!(error.elapsed(), ms(40));
        // Nor is anything begun.
        let mut tries = STEADY.without_pauses().tries();
        tries.failed(Oops(0), |_| true).await.unwrap();
        tokio::time::advance(ms(40)).await;
        assert_eq!(tries.elapsed(), ms(40));
    });
}
