//! Destructors and wakers that throw.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use ringfence::{
    Deadline, Displaced, DisplacedWhat, Limiter, Observer, Scope, TaskGroup, fan_out, scope,
};
use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};

use super::{Fail, bad, good, ms};
use crate::support::{Count, Drops, PanicOnDrop, caught, paused, settle};

/// A value that throws when it is dropped, at one place.
fn bomb(is_here: bool) -> Option<PanicOnDrop> {
    is_here.then(|| PanicOnDrop("value"))
}

/// Is ready at once, and throws when it is dropped.
struct Thrower<T>(
    Option<T>,
    #[expect(dead_code, reason = "it is dropped")] PanicOnDrop,
);

impl<T: Unpin> Future for Thrower<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<T> {
        Poll::Ready(self.0.take().expect("it is ready once"))
    }
}

#[test]
fn destructors_that_throw_while_a_panic_goes_on_never_abort() {
    paused(async || {
        let fan = || fan_out(0..4_usize).limit(1);
        // The future of an item, and then its value.
        let work = |n| Thrower(Some(good(bomb(n == 0))), PanicOnDrop("future"));
        assert_eq!(caught(fan().collect(work)).await.unwrap_err(), "future");
        let local = fan().local().collect(work);
        assert_eq!(caught(local).await.unwrap_err(), "future");
        // An item, and then a value that was there, or an item that waits for its key, or for a permit.
        let work = async |n| {
            yield_now().await;
            assert!(n != 2, "item");
            good(bomb(n == 1))
        };
        assert_eq!(caught(fan().collect(work)).await.unwrap_err(), "item");
        let local = fan().local().collect(work);
        assert_eq!(caught(local).await.unwrap_err(), "item");
        for limiter in [Limiter::new(1), Limiter::new(9)] {
            let items = (0..3).map(|n| (n, bomb(n == 1)));
            let fan = fan_out(items).limit(2).limiter(&limiter).key(|_| "one");
            let work = async |(n, _): (usize, _)| {
                yield_now().await;
                assert!(n != 0, "item");
            };
            assert_eq!(
                caught(fan.local().for_each(work)).await.unwrap_err(),
                "item"
            );
            assert_eq!(limiter.in_flight(), 0);
        }
        // What makes values into one, and then those that it has not come to.
        let combine = |(), value: Option<PanicOnDrop>| assert!(value.is_some(), "fold");
        let work = async |n| good(bomb(n == 1));
        assert_eq!(
            caught(fan().fold((), work, combine)).await.unwrap_err(),
            "fold"
        );
    });
}

#[test]
fn a_value_that_throws_costs_no_error_and_no_winner() {
    paused(async || {
        let fan = || fan_out(0..4_usize).limit(1);
        let work = async |n| match n {
            0 => good(bomb(true)),
            1 => bad("one"),
            _ => {
                sleep(ms(20)).await;
                good(None)
            }
        };
        let error = fan().local().collect(work).await.unwrap_err();
        assert_eq!(error.into_first().unwrap().to_string(), "one");
        let by = Scope::new().deadline(Deadline::after(ms(10)));
        let error = fan().scope(by).outcomes(work).await.unwrap_err();
        assert_eq!(error.into_first().unwrap().to_string(), "one");
        let by = Scope::new().deadline(Deadline::after(ms(10))).grace(ms(50));
        let scope = by.run(async |group: &TaskGroup| {
            group.spawn(async move {
                let error = fan().local().outcomes(work).await.unwrap_err();
                assert_eq!(error.into_first().unwrap().to_string(), "one");
            });
            Ok(())
        });
        assert!(scope.await.unwrap_err().is_deadline_exceeded());
        let work = async |n| {
            if n == 1 {
                Ok(n)
            } else {
                Err(PanicOnDrop("error"))
            }
        };
        assert_eq!(fan().first_success(work).await.unwrap(), Some(1));
        assert_eq!(fan().local().first_success(work).await.unwrap(), Some(1));
        // Two at the same time: the later one is nobody's.
        let ended = Count::new();
        let race = move |_| {
            let ended = ended.clone();
            async move {
                sleep(ms(1)).await;
                good(bomb(ended.add() > 0))
            }
        };
        let won = fan_out(0..2).first_success(race).await;
        assert!(won.unwrap().unwrap().is_none());
    });
}

#[test]
fn values_are_dropped_although_what_made_them_throws_when_it_goes() {
    paused(async || {
        let drops = Drops::new();
        let fan = || fan_out(0..8).limit(2);
        let work = |held: Option<PanicOnDrop>| {
            let drops = drops.clone();
            move |_: i32| {
                let (_held, value) = (&held, drops.guard());
                async { good(value) }
            }
        };
        let bomb = || Some(PanicOnDrop("function"));
        let ends = [
            caught(fan().collect(work(bomb()))).await.map(drop),
            caught(fan().collect_unordered(work(bomb())))
                .await
                .map(drop),
            caught(fan().outcomes(work(bomb()))).await.map(drop),
            caught(fan().first_success(work(bomb()))).await.map(drop),
        ];
        assert!(
            ends.iter()
                .all(|end| end.as_ref().is_err_and(|text| text == "function")),
            "{ends:?}"
        );
        let push = |held: Option<PanicOnDrop>| {
            move |mut all: Vec<_>, value| {
                let _held = &held;
                all.push(value);
                all
            }
        };
        for (throws, also) in [(bomb(), None), (None, bomb())] {
            let fold = fan().fold(Vec::new(), work(throws), push(also));
            assert_eq!(caught(fold).await.map(drop).unwrap_err(), "function");
        }
        assert_eq!((drops.alive(), drops.made() >= 41), (0, true));
        // They may throw, too.
        let held = PanicOnDrop("function");
        let all = fan().collect(move |_: i32| {
            let _held = &held;
            async { good(bomb_at("a value", "a value")) }
        });
        assert_eq!(caught(all).await.map(drop).unwrap_err(), "function");
        let held = PanicOnDrop("combine");
        let keeps = move |made, _| {
            let _held = &held;
            made
        };
        let made = bomb_at("what was made", "what was made");
        let fold = fan().fold(made, async |n: i32| good(n), keeps);
        assert_eq!(caught(fold).await.map(drop).unwrap_err(), "combine");
        // Nor are errors lost, which nobody is given: they go to the observer.
        let lost = Count::new();
        let scope = Scope::new().observer(Arc::new(Errors(lost.clone())));
        let held = PanicOnDrop("function");
        let fails = move |n: i32| {
            let _held = &held;
            async move { if n == 3 { bad("three") } else { good(()) } }
        };
        let ended = caught(fan().scope(scope).outcomes(fails)).await;
        assert_eq!(ended.map(drop).unwrap_err(), "function");
        assert_eq!(lost.get(), 1);
    });
}

#[test]
fn a_callers_waker_that_throws_harms_no_item() {
    struct Bomb;
    impl Wake for Bomb {
        fn wake(self: Arc<Self>) {
            panic!("waker");
        }
    }
    paused(async || {
        let work = async |n: usize| {
            sleep(ms(10)).await;
            good(n)
        };
        let fan = || fan_out(0..3).limit(2);
        let mut fold = pin!(fan().fold(0, work, |sum, n| sum + n));
        let mut collect = pin!(fan().collect(work));
        let mut first = pin!(fan().first_success(work));
        let bomb = Waker::from(Arc::new(Bomb));
        for _ in 0..2 {
            let cx = &mut Context::from_waker(&bomb);
            assert!(fold.as_mut().poll(cx).is_pending());
            assert!(collect.as_mut().poll(cx).is_pending());
            assert!(first.as_mut().poll(cx).is_pending());
            settle().await;
        }
        sleep(ms(50)).await;
        assert_eq!(fold.await.unwrap(), 3);
        assert_eq!(collect.await.unwrap(), [0, 1, 2]);
        assert_eq!(first.await.unwrap(), Some(0));
    });
}

/// A waker that polls at once, wherever it is woken.
struct AtOnce {
    future: Mutex<super::Boxed<()>>,
    is_woken: AtomicBool,
}

impl AtOnce {
    fn start(future: impl Future<Output = ()> + Send + 'static) {
        let this = Arc::new(Self {
            future: Mutex::new(Box::pin(future)),
            is_woken: AtomicBool::new(false),
        });
        this.wake();
    }
}

impl Wake for AtOnce {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::SeqCst);
        // Woken in its own poll, it is polled again after that.
        while let Ok(mut future) = self.future.try_lock() {
            if !self.is_woken.swap(false, Ordering::SeqCst) {
                return;
            }
            let waker = Waker::from(self.clone());
            if future
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready()
            {
                *future = Box::pin(std::future::pending());
            }
        }
    }
}

#[test]
fn a_callers_waker_may_poll_at_once() {
    paused(async || {
        let work = async |n: usize| {
            sleep(ms(10)).await;
            good(n)
        };
        let (ended, fan) = (Count::new(), || fan_out(0..3).limit(2));
        let done = || {
            let ended = ended.clone();
            move || ended.add()
        };
        let (a, b, c, d) = (done(), done(), done(), done());
        AtOnce::start(async move {
            assert_eq!(fan().first_success(work).await.unwrap(), Some(0));
            a();
        });
        AtOnce::start(async move {
            assert_eq!(fan().collect(work).await.unwrap(), [0, 1, 2]);
            b();
        });
        AtOnce::start(async move {
            let sum = fan().fold(0, work, |sum, n| sum + n);
            assert_eq!(sum.await.unwrap(), 3);
            c();
        });
        AtOnce::start(async move {
            let mut results = fan().results(work);
            for n in 0..3 {
                assert_eq!(results.next().await.unwrap().unwrap(), n);
            }
            assert!(results.next().await.is_none());
            d();
        });
        sleep(ms(50)).await;
        assert_eq!(ended.get(), 4);
    });
}

#[test]
fn a_function_without_end_is_one_for_for_each() {
    paused(async || {
        let serve = async |n: u64| loop {
            sleep(ms(n)).await;
        };
        let ended = scope(async |group: &TaskGroup| {
            group.spawn_background(async move {
                drop(fan_out(1..4).for_each(serve).await);
            });
            drop(timeout(ms(10), fan_out(1..4).local().for_each(serve)).await);
            Ok(())
        });
        ended.await.unwrap();
    });
}

/// Counts the panics that are displaced.
struct Panics(Count);

impl Observer for Panics {
    fn displaced(&self, displaced: &Displaced) {
        if matches!(displaced.what, DisplacedWhat::Panic(_)) {
            self.0.add();
        }
    }
}

#[test]
fn results_that_nobody_takes_are_dropped_one_by_one() {
    paused(async || {
        let panics = Count::new();
        let observed = || Scope::new().observer(Arc::new(Panics(panics.clone())));
        let work = async |n| {
            sleep(ms(1)).await;
            if n == 3 {
                bad("three")
            } else {
                good(bomb(true))
            }
        };
        let body = async |_: &TaskGroup<Fail>| {
            let fan = || fan_out(0..4).limit(4);
            assert!(fan().collect(work).await.is_err());
            assert!(fan().collect_unordered(work).await.is_err());
            assert!(fan().local().collect(work).await.is_err());
            assert!(fan().local().collect_unordered(work).await.is_err());
            assert_eq!(panics.get(), 4 * 3);
            // Items that wait for their key.
            let fail = async |(_, _): (usize, _)| {
                sleep(ms(1)).await;
                bad::<()>("first")
            };
            let fan = || {
                fan_out((0..3).map(|n| (n, bomb(n > 0))))
                    .limit(4)
                    .key(|_| "one")
            };
            assert!(fan().for_each(fail).await.is_err());
            assert!(fan().local().for_each(fail).await.is_err());
            assert_eq!(panics.get(), 4 * 3 + 2 * 2);
            Ok(())
        };
        observed().run(body).await.unwrap();
        // The first is taken; the others are left in order, or wait for one that is missing.
        for missing in [9, 1] {
            let work = move |n| async move {
                sleep(ms(if n == missing { 9 } else { 1 })).await;
                good(bomb(n > 0 && n != missing))
            };
            let mut results = fan_out(0..4).limit(4).scope(observed()).results(work);
            assert!(results.next().await.unwrap().unwrap().is_none());
            sleep(ms(1)).await;
            drop(results);
        }
        assert_eq!(panics.get(), 4 * 3 + 2 * 2 + 3 + 2);
    });
}

#[test]
fn a_function_that_throws_when_it_goes_costs_no_error_of_results() {
    paused(async || {
        let panics = Count::new();
        let observed = Scope::new().observer(Arc::new(Panics(panics.clone())));
        let ended = observed.run(async |_: &TaskGroup<Fail>| {
            let held = PanicOnDrop("function");
            let mut results = fan_out(0..2).results(move |_: usize| {
                let _held = &held;
                async { bad::<()>("no") }
            });
            assert!(results.next().await.unwrap().is_err());
            assert_eq!(panics.get(), 1, "it goes when they have ended");
            assert!(results.next().await.is_none());
            // Nor does it go on in whoever drops results that nobody took.
            let held = PanicOnDrop("function");
            let mut results = fan_out(0..2).results(move |n: usize| {
                let _held = &held;
                async move { good(n) }
            });
            assert_eq!(results.next().await.unwrap().unwrap(), 0);
            settle().await;
            drop(results);
            assert_eq!(panics.get(), 2);
            Ok(())
        });
        ended.await.unwrap();
    });
}

#[test]
fn results_that_are_dropped_by_a_panic_of_their_own_do_not_end_the_process() {
    paused(async || {
        let panics = Count::new();
        let observed = Scope::new().observer(Arc::new(Panics(panics.clone())));
        let ended = observed.run(async |_: &TaskGroup<Fail>| {
            let held = PanicOnDrop("function");
            let mut results = fan_out(0..2).results(move |n: usize| {
                let _held = &held;
                async move {
                    assert!(n != 0, "item");
                    bad::<()>("no")
                }
            });
            drop(results.next().await);
            Ok(())
        });
        assert_eq!(caught(ended).await.unwrap_err(), "item");
        assert_eq!(panics.get(), 1);
    });
}

/// A value that throws when it is dropped, if it is here.
fn bomb_at(place: &str, here: &str) -> Option<PanicOnDrop> {
    bomb(place == here)
}

#[test]
fn what_is_left_behind_by_a_panic_may_throw_too() {
    paused(async || {
        for is_local in [false, true] {
            for place in ["in flight", "for a permit", "the input", "the function"] {
                let panics = Count::new();
                let observed = Scope::new().observer(Arc::new(Panics(panics.clone())));
                let ended = observed.run(async |_: &TaskGroup<Fail>| {
                    let held = bomb_at(place, "the input");
                    let input = (0..2).map(move |n| {
                        let _held = &held;
                        let item = if n == 1 { place } else { "none" };
                        (n, bomb_at(item, "for a permit"))
                    });
                    let held = bomb_at(place, "the function");
                    let work = move |(n, waiting): (usize, Option<PanicOnDrop>)| {
                        let _held = &held;
                        let item = if n == 1 { place } else { "none" };
                        let flying = (bomb_at(item, "in flight"), waiting);
                        async move {
                            yield_now().await;
                            assert!(n != 0, "item");
                            std::future::pending::<()>().await;
                            drop(flying);
                        }
                    };
                    let limiter = Limiter::new(if place == "for a permit" { 1 } else { 2 });
                    let fan = fan_out(input).limiter(&limiter);
                    let thrown = if is_local {
                        caught(fan.local().for_each(work)).await
                    } else {
                        caught(fan.for_each(work)).await
                    };
                    assert_eq!(thrown.unwrap_err(), "item");
                    assert_eq!(limiter.in_flight(), 0);
                    Ok(())
                });
                ended.await.unwrap();
                assert_eq!(panics.get(), 1, "{place}, {is_local}");
            }
        }
    });
}

#[test]
fn values_of_one_that_is_cut_off_are_dropped_one_by_one() {
    paused(async || {
        for is_local in [false, true] {
            let panics = Count::new();
            let cut = Scope::new().grace(ms(1_000));
            let cut = cut.observer(Arc::new(Panics(panics.clone())));
            let ended = cut.run(async |group: &TaskGroup<Fail>| {
                group.spawn(async move {
                    let work = async |_| {
                        sleep(ms(10)).await;
                        good(bomb(true))
                    };
                    let fan = fan_out(0..9).limit(2);
                    let ended = if is_local {
                        fan.local().collect(work).await
                    } else {
                        fan.collect(work).await
                    };
                    assert!(ended.unwrap_err().is_cancelled());
                });
                sleep(ms(15)).await;
                group.cancel();
                Ok(())
            });
            let error = ended.await.unwrap_err();
            assert!(error.is_cancelled() && error.is_empty(), "{error:?}");
            assert_eq!(panics.get(), 4);
        }
    });
}

/// Counts the errors that are displaced.
struct Errors(Count);

impl Observer for Errors {
    fn displaced(&self, displaced: &Displaced) {
        if matches!(displaced.what, DisplacedWhat::Error(_)) {
            self.0.add();
        }
    }
}

#[test]
fn a_function_or_an_input_that_throws_when_it_goes_costs_no_error() {
    paused(async || {
        for place in ["the input", "the function"] {
            for case in 0..4 {
                let (is_local, fails) = (case & 1 > 0, case & 2 > 0);
                let held = bomb_at(place, "the input");
                let input = (0..2).inspect(move |_| {
                    let _held = &held;
                });
                let held = bomb_at(place, "the function");
                let work = move |n: usize| {
                    let _held = &held;
                    async move { if fails { bad("no") } else { good(n) } }
                };
                let (errors, fan) = (Count::new(), fan_out(input).limit(1));
                let ended = if is_local {
                    caught(fan.local().collect(work)).await
                } else {
                    let observed = Scope::new().observer(Arc::new(Errors(errors.clone())));
                    caught(fan.scope(observed).collect(work)).await
                };
                // It is thrown at the caller, unless that would be all that he hears.
                match ended {
                    Ok(ended) => {
                        assert!(is_local && fails, "{place}, {case}");
                        assert_eq!(ended.unwrap_err().into_first().unwrap().to_string(), "no");
                    }
                    Err(thrown) => assert!(thrown == "value" && !(is_local && fails)),
                }
                assert_eq!(errors.get(), usize::from(fails && !is_local), "{place}");
            }
        }
    });
}
