//! Cut off half-way: what is no success, what never begins, and what is told.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use ringfence::{
    CancelReason, Cause, FanOut, GroupError, Input, Limiter, Rate, RateLimiter, Scope, TaskGroup,
    fan_out, shield,
};
use tokio::time::{Instant, sleep};

use super::{Fail, bad, good, ms};
use crate::support::{Count, CountingWaker, Log, paused, settle};

const FORMS: usize = 13;

/// Runs items of 100 ms each, in one of the forms.
async fn run<S>(form: usize, fan: FanOut<S, usize>, log: Log<usize>) -> Result<(), GroupError<Fail>>
where
    S: Input<Item = usize> + Send + 'static,
{
    let noted = move |n: usize| {
        log.push(n);
        sleep(ms(100))
    };
    let failing = noted.clone();
    let work = move |n| {
        let item = noted(n);
        async move {
            item.await;
            good(())
        }
    };
    let fail = move |n| {
        let item = failing(n);
        async move {
            item.await;
            bad::<()>("late")
        }
    };
    let drain = async |mut results: ringfence::Results<(), Fail>| {
        while let Some(result) = results.next().await {
            result?;
        }
        Ok(())
    };
    match form {
        0 => fan.for_each(work).await,
        1 => fan.collect(work).await.map(drop),
        2 => fan.collect_unordered(work).await.map(drop),
        3 => fan.fold((), work, |(), ()| ()).await,
        4 => fan.outcomes(work).await.map(drop),
        5 => fan.first_success(fail).await.map(drop),
        6 => drain(fan.results(work)).await,
        7 => drain(fan.results_unordered(work)).await,
        8 => fan.local().for_each(work).await,
        9 => fan.local().collect(work).await.map(drop),
        10 => fan.local().fold((), work, |(), ()| ()).await,
        11 => fan.local().outcomes(work).await.map(drop),
        _ => fan.local().first_success(fail).await.map(drop),
    }
}

#[test]
fn what_was_taken_and_never_ran_is_no_success() {
    paused(async || {
        for waits_for in ["a permit", "the rate", "its key"] {
            for form in 0..FORMS {
                let (log, start) = (Log::new(), Instant::now());
                let cut = Scope::new().grace(ms(1_000));
                let ended = cut.run(async |group: &TaskGroup<Fail>| {
                    // All of the input is taken: one item runs, the other one waits.
                    let fan = fan_out([0, 1]).limit(2);
                    let fan = match waits_for {
                        "a permit" => fan.limiter(&Limiter::new(1)),
                        "the rate" => fan.rate(&RateLimiter::new(Rate::new(1, ms(1_000_000)))),
                        _ => fan.key(|_| "one"),
                    };
                    let log = log.clone();
                    group.spawn(async move {
                        let error = run(form, fan, log).await.unwrap_err();
                        // With the reason that it was told, and what had failed by then.
                        let reason = match error.cause() {
                            Cause::Cancelled(CancelReason::Requested { note, .. }) => {
                                note.as_deref()
                            }
                            cause => panic!("form {form}, {waits_for}: {cause:?}"),
                        };
                        assert_eq!(reason, Some("enough"));
                        let keeps_errors = form == 5 || form == 12;
                        assert_eq!(error.len(), usize::from(keeps_errors), "form {form}");
                    });
                    sleep(ms(50)).await;
                    group.cancel_with("enough");
                    Ok(())
                });
                assert!(ended.await.unwrap_err().is_cancelled());
                assert_eq!((log.entries(), start.elapsed()), (vec![0], ms(100)));
            }
        }
    });
}

#[test]
fn a_permit_that_comes_with_a_failure_starts_nothing_more() {
    paused(async || {
        for is_local in [false, true] {
            let (limiter, started) = (Limiter::new(1), Count::new());
            let fan = fan_out(0..2).limit(2).limiter(&limiter);
            let inner = started.clone();
            // The one that fails gives the permit back to the one that waits for it.
            let work = move |_| {
                inner.add();
                async {
                    sleep(ms(10)).await;
                    bad::<()>("first")
                }
            };
            let error = if is_local {
                fan.local().for_each(work).await
            } else {
                fan.scope(Scope::new().grace(ms(100))).for_each(work).await
            };
            assert_eq!(error.unwrap_err().len(), 1);
            assert_eq!((started.get(), limiter.in_flight()), (1, 0));
        }
    });
}

#[test]
fn nothing_more_starts_once_one_has_won() {
    paused(async || {
        for is_local in [false, true] {
            let (started, inner) = (Count::new(), Count::new());
            let seen = started.clone();
            // The second shields itself for a while, and then there would be a place for the third.
            let race = move |n: u64| {
                seen.add();
                let ended = inner.clone();
                async move {
                    if n == 0 {
                        sleep(ms(5)).await;
                        return good(n);
                    }
                    shield(ms(1_000), sleep(ms(10))).await;
                    ended.add();
                    bad("late")
                }
            };
            let fan = fan_out(0..9).limit(2);
            let won = if is_local {
                fan.local().first_success(race).await
            } else {
                fan.first_success(race).await
            };
            assert_eq!((won.unwrap(), started.get()), (Some(0), 2));
            // One after the other: after the first that succeeds, none is tried.
            let tried = Log::new();
            let inner = tried.clone();
            let next = move |n: u64| {
                inner.push(n);
                async move { if n == 2 { good(n) } else { bad("down") } }
            };
            let fan = fan_out(0..9).limit(1);
            let won = if is_local {
                fan.local().first_success(next).await
            } else {
                fan.first_success(next).await
            };
            assert_eq!((won.unwrap(), tried.entries()), (Some(2), vec![0, 1, 2]));
        }
    });
}

#[test]
fn a_local_item_that_cancels_its_group_makes_it_no_success() {
    paused(async || {
        let limiter = Limiter::new(1);
        let held = limiter.acquire().await.unwrap();
        let ended = Scope::new()
            .grace(ms(1_000))
            .run(async |group: &TaskGroup<Fail>| {
                // The first weighs nothing, and the second finds itself cancelled when it begins to wait.
                let fan = fan_out([0, 1]).weighted(&limiter, |n| *n);
                let work = async |n| {
                    assert_eq!(n, 0);
                    group.cancel();
                };
                let error = fan.local().for_each(work).await.unwrap_err();
                assert!(error.is_cancelled() && error.is_empty());
                Ok(())
            });
        assert!(ended.await.unwrap_err().is_cancelled());
        drop(held);
        assert_eq!((limiter.in_flight(), limiter.waiting()), (0, 0));
    });
}

#[test]
fn the_signal_reaches_whoever_polls_a_local_one_now() {
    paused(async || {
        let ended = Scope::new()
            .grace(ms(1_000))
            .run(async |group: &TaskGroup<Fail>| {
                let taken = Count::new();
                let work = |_| pending::<()>();
                let mut items = pin!(
                    fan_out(super::counted(&taken))
                        .limit(2)
                        .local()
                        .for_each(work)
                );
                let (before, now) = (CountingWaker::new(), CountingWaker::new());
                for waker in [before.waker(), now.waker()] {
                    assert!(
                        items
                            .as_mut()
                            .poll(&mut Context::from_waker(&waker))
                            .is_pending()
                    );
                }
                assert_eq!(now.wakes(), 0);
                group.cancel();
                settle().await;
                assert_eq!(now.wakes(), 1);
                Ok(())
            });
        assert!(ended.await.unwrap_err().is_cancelled());
    });
}

/// Items that wait until they are let go, and how often each was polled.
struct Gates {
    polls: Vec<Cell<usize>>,
    wakers: Vec<RefCell<Option<Waker>>>,
    open: Vec<Cell<bool>>,
}

impl Gates {
    fn new(n: usize) -> Self {
        Self {
            polls: vec![Cell::new(0); n],
            wakers: (0..n).map(|_| RefCell::default()).collect(),
            open: vec![Cell::new(false); n],
        }
    }

    #[expect(clippy::future_not_send, reason = "items of a local one need not be")]
    async fn pass(&self, n: usize) -> Result<usize, Fail> {
        poll_fn(|cx| {
            self.polls[n].set(self.polls[n].get() + 1);
            if self.open[n].get() {
                return Poll::Ready(good(n));
            }
            *self.wakers[n].borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn wake(&self, n: usize) {
        let waker = self.wakers[n].borrow_mut().take();
        waker.expect("it waits").wake();
    }

    fn open(&self, n: usize) {
        self.open[n].set(true);
        self.wake(n);
    }

    fn polled(&self) -> Vec<usize> {
        self.polls
            .iter()
            .map(Cell::take)
            .enumerate()
            .filter(|(_, polls)| *polls > 0)
            .map(|(n, polls)| {
                assert_eq!(polls, 1, "item {n}");
                n
            })
            .collect()
    }
}

#[test]
fn a_local_one_polls_just_those_that_were_woken() {
    const N: usize = 200;
    paused(async || {
        let gates = Gates::new(N);
        let mut items = pin!(fan_out(0..N).limit(N).local().collect(|n| gates.pass(n)));
        let caller = CountingWaker::new();
        let waker = caller.waker();
        let mut poll = || items.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(poll().is_pending());
        assert!(gates.polled().into_iter().eq(0..N));
        for woken in [
            &[0][..],
            &[63],
            &[64],
            &[65],
            &[127],
            &[128],
            &[199],
            &[3, 70, 140, 199],
        ] {
            let before = caller.wakes();
            for n in woken {
                gates.wake(*n);
            }
            assert_eq!(caller.wakes(), before + 1, "{woken:?}");
            assert!(poll().is_pending());
            assert_eq!(gates.polled(), woken);
        }
        for n in 0..N {
            gates.open(n);
        }
        let all = loop {
            let before = caller.wakes();
            if let Poll::Ready(all) = poll() {
                break all;
            }
            assert!(
                caller.wakes() > before,
                "it lets others run, and comes back"
            );
        };
        assert!(all.unwrap().into_iter().eq(0..N));
        assert!(gates.polled().into_iter().eq(0..N));
    });
}

#[test]
fn items_that_wait_cost_a_local_one_no_turns_of_its_own() {
    const N: usize = 1_000;
    paused(async || {
        let gates = Gates::new(N);
        let mut items = pin!(fan_out(0..N).limit(1).local().collect(|n| gates.pass(n)));
        let caller = CountingWaker::new();
        let waker = caller.waker();
        let mut poll = || items.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(poll().is_pending());
        for n in 0..N {
            gates.open(n);
            assert_eq!(poll().is_ready(), n + 1 == N);
            assert_eq!(caller.wakes(), n + 1, "woken by the items alone");
        }
    });
}
