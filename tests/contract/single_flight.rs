//! Single-flight: who shares a call, and what becomes of those who wait for it.

use std::{
    future::{Future, pending},
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, future::join_all};
use ringfence::{
    CancelReason, Displaced, DisplacedWhat, FlightError, Observer, Scope, SingleFlight, TaskGroup,
    root, scope, timeout, token,
};
use tokio::{
    runtime::Builder,
    task::yield_now,
    time::{Instant, sleep},
};

use crate::support::{
    Count, Drops, Log, PanicOnDrop, cut_at_every_await, every_runtime, every_runtime_in_a_task,
    paused, single_thread, spawn, until,
};

type Flights = SingleFlight<u32, u32, String>;
type Landed = Result<u32, FlightError<String>>;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A call that takes 10 ms, counts itself, and returns its number.
fn counted(calls: &Count) -> impl Future<Output = Result<u32, String>> + Send + use<> {
    let calls = calls.clone();
    async move {
        let number = calls.add() as u32 + 1;
        sleep(ms(10)).await;
        Ok(number)
    }
}

#[test]
fn callers_of_one_key_share_one_call() {
    every_runtime(async || {
        let (flights, calls, all_ask) = (Flights::new(), Count::new(), Count::new());
        let mut all = join_all((0..100).map(|_| {
            let (calls, all_ask) = (calls.clone(), all_ask.clone());
            flights.run(7, move || async move {
                calls.add();
                until(|| all_ask.get() > 0).await;
                Ok(7)
            })
        }));
        assert!((&mut all).now_or_never().is_none());
        all_ask.add();
        assert!(all.await.into_iter().all(|landed| landed.ok() == Some(7)));
        assert_eq!((calls.get(), flights.len()), (1, 0));
    });
}

#[test]
fn other_keys_are_other_calls() {
    paused(async || {
        let (flights, calls) = (Flights::new(), Count::new());
        let run = |key| {
            let calls = calls.clone();
            flights.run(key, move || counted(&calls))
        };
        let (a, b, c) = tokio::join!(run(1), run(2), run(1));
        assert_eq!((a.ok(), b.ok(), c.ok()), (Some(1), Some(2), Some(1)));
    });
}

#[test]
fn what_is_asked_for_later_is_called_for_again() {
    paused(async || {
        let (flights, calls) = (Flights::new(), Count::new());
        for number in 1..=3 {
            let calls = calls.clone();
            assert_eq!(
                flights.run(7, move || counted(&calls)).await.ok(),
                Some(number)
            );
        }
    });
}

#[test]
fn an_error_is_shared_as_it_is() {
    paused(async || {
        let flights = Flights::new();
        let fail = || async {
            sleep(ms(1)).await;
            Err("no".to_owned())
        };
        let (a, b) = tokio::join!(flights.run(7, fail), flights.run(7, fail));
        let (a, b) = (a.expect_err("no"), b.expect_err("no"));
        assert_eq!((a.to_string(), a.is_lost()), ("no".to_owned(), false));
        let (Some(a), Some(b)) = (a.error(), b.error()) else {
            panic!("an error");
        };
        assert!(std::ptr::eq(a, b), "one error, though it is no `Clone`");
    });
}

#[test]
fn the_first_caller_may_go_away_and_the_others_get_their_answer() {
    paused(async || {
        let (flights, calls) = (Arc::new(Flights::new()), Count::new());
        let run = || {
            let calls = calls.clone();
            flights.run(7, move || counted(&calls))
        };
        let first = timeout(ms(5), run());
        let (first, second) = tokio::join!(first, run());
        assert!(first.is_err());
        assert_eq!((second.ok(), calls.get()), (Some(1), 1));
    });
}

#[test]
fn a_call_that_nobody_waits_for_is_finished_and_can_be_joined() {
    paused(async || {
        let (flights, calls) = (Flights::new(), Count::new());
        let run = || {
            let calls = calls.clone();
            flights.run(7, move || counted(&calls))
        };
        assert!(timeout(ms(5), run()).await.is_err());
        assert_eq!((flights.len(), flights.is_empty()), (1, false));
        assert_eq!(run().await.ok(), Some(1));
        assert!(timeout(ms(5), run()).await.is_err());
        sleep(ms(6)).await;
        assert_eq!((flights.len(), calls.get()), (0, 2));
    });
}

#[test]
fn a_panic_is_an_error_of_all_who_wait() {
    every_runtime(async || {
        let flights = Flights::new();
        let run = || {
            flights.run(7, || async {
                yield_now().await;
                panic!("in the call")
            })
        };
        for landed in join_all([run(), run(), run()]).await {
            let error = landed.expect_err("it panicked");
            assert!(error.is_lost());
            assert_eq!(error.to_string(), "the shared call panicked: in the call");
        }
        let made = flights.run(7, || -> std::future::Ready<Result<u32, String>> {
            panic!("while it was made")
        });
        assert!(matches!(made.await, Err(FlightError::Panicked(_))));
        assert_eq!(
            flights.run(7, async || Ok(1)).await.ok(),
            Some(1),
            "it goes on"
        );
    });
}

#[test]
fn a_call_whose_destructor_panics_has_panicked() {
    paused(async || {
        let flights = Flights::new();
        let landed = flights.run(7, || async {
            let _bad = PanicOnDrop("its destructor");
            Ok(1)
        });
        assert!(matches!(landed.await, Err(FlightError::Panicked(_))));
        let bad = PanicOnDrop("what the future has");
        let landed = flights.run(7, move || {
            async move {
                let _inside = &bad;
                Ok(1)
            }
            .boxed()
        });
        assert!(matches!(landed.await, Err(FlightError::Panicked(_))));
    });
}

#[test]
fn what_a_call_has_is_gone_when_its_answer_is_there() {
    every_runtime(async || {
        let (flights, drops) = (Flights::new(), Drops::new());
        for _ in 0..100 {
            let guard = drops.guard();
            let landed = flights.run(7, move || async move {
                let _guard = guard;
                yield_now().await;
                Ok(1)
            });
            assert!(landed.await.is_ok());
            assert_eq!(drops.alive(), 0);
        }
    });
}

#[test]
fn a_call_that_is_cancelled_is_an_error_of_all_who_wait() {
    every_runtime_in_a_task(|| async {
        for is_shut_down in [true, false] {
            let (flights, drops) = (Flights::new(), Drops::new());
            let guard = drops.guard();
            let first = flights.run(7, move || async move {
                let _guard = guard;
                pending().await
            });
            let (mut first, second) = (Box::pin(first), flights.run(7, async || Ok(1)));
            assert!((&mut first).now_or_never().is_none());
            let end = async move {
                yield_now().await;
                if is_shut_down {
                    assert!(flights.shutdown(Duration::ZERO).await.is_clean());
                } else {
                    drop(flights);
                }
            };
            let (first, second, ()) = tokio::join!(first, second, end);
            for landed in [first, second] {
                let error = landed.expect_err("there is no answer");
                assert!(matches!(error, FlightError::Cancelled(_)), "{error:?}");
            }
            assert_eq!(drops.alive(), 0);
        }
    });
}

#[test]
fn a_shutdown_gives_calls_their_grace() {
    paused(async || {
        let flights = Flights::new();
        let landed = flights.run(7, || async {
            token().cancelled().await;
            sleep(ms(20)).await;
            Ok(1)
        });
        let start = Instant::now();
        let end = async move {
            sleep(ms(5)).await;
            flights.shutdown(ms(100)).await
        };
        let (landed, report) = tokio::join!(landed, end);
        assert_eq!((landed.ok(), report.is_clean()), (Some(1), true));
        assert_eq!(start.elapsed(), ms(25));
    });
}

#[test]
fn a_call_in_a_group_that_closes_is_lost_and_not_waited_for_for_ever() {
    paused(async || {
        let seen = Count::new();
        let ended = scope(async |group: &TaskGroup| {
            let flights = Arc::new(Flights::new());
            let seen = seen.clone();
            group.spawn(async move {
                let wait = flights.run(7, || async { pending::<Result<u32, String>>().await });
                drop(wait.await);
                seen.add();
            });
            sleep(ms(5)).await;
            group.cancel();
            Ok(())
        });
        assert!(ended.await.is_err());
        assert_eq!(seen.get(), 0, "dropped where it waited");
        root().wait(ms(100)).await.expect("the call is gone, too");
    });
}

#[test]
fn a_runtime_that_goes_away_is_an_error_of_all_who_wait() {
    single_thread(async || {
        let other = Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .expect("a runtime");
        let flights = {
            let _inside = other.enter();
            Flights::new()
        };
        let begun = Count::new();
        let wait = flights.run(7, {
            let begun = begun.clone();
            move || async move {
                begun.add();
                pending().await
            }
        });
        let (landed, ()) = tokio::join!(wait, async {
            until(|| begun.get() == 1).await;
            other.shutdown_background();
        });
        assert!(matches!(
            landed,
            Err(FlightError::Cancelled(CancelReason::RuntimeGone))
        ));
        let refused = flights.run(7, async || Ok(1)).await;
        assert!(matches!(refused, Err(error) if error.is_lost()));
    });
}

#[test]
fn a_key_that_is_forgotten_is_called_for_anew_and_its_waiters_are_served() {
    paused(async || {
        let (flights, calls) = (Flights::new(), Count::new());
        let run = || {
            let calls = calls.clone();
            flights.run(7, move || counted(&calls))
        };
        let second = async {
            sleep(ms(5)).await;
            assert!(flights.forget(&7));
            assert!(!flights.forget(&7));
            run().await
        };
        let third = async {
            sleep(ms(12)).await; // the first has landed, and taken nothing of the second's
            run().await
        };
        let (first, second, third) = tokio::join!(run(), second, third);
        assert_eq!(
            (first.ok(), second.ok(), third.ok()),
            (Some(1), Some(2), Some(2))
        );
    });
}

#[test]
fn a_call_that_wants_itself_is_told_so() {
    paused(async || {
        let flights = Arc::new(Flights::new());
        let inner = flights.clone();
        let landed: Landed = flights
            .run(7, move || async move {
                // In a child of a scope in it, too.
                let nested = scope(async |group| {
                    let inner = inner.clone();
                    Ok(group
                        .spawn(async move { Ok::<_, String>(inner.run(7, async || Ok(1)).await) })
                        .await)
                });
                let nested = nested.await.map_err(|error| error.to_string())?;
                assert!(matches!(nested, Err(FlightError::Circle)));
                Ok(2)
            })
            .await;
        assert_eq!(landed.ok(), Some(2));
    });
}

#[test]
fn a_circle_of_calls_is_refused_to_whoever_would_close_it() {
    paused(async || {
        let flights = Arc::new(Flights::new());
        fn step(flights: Arc<Flights>, key: u32) -> futures::future::BoxFuture<'static, Landed> {
            async move {
                let inner = flights.clone();
                flights
                    .run(key, move || async move {
                        sleep(ms(1)).await;
                        match step(inner, (key + 1) % 3).await {
                            Ok(sum) => Ok(sum + 1),
                            Err(FlightError::Circle) => Ok(100),
                            Err(error) => Err(error.to_string()),
                        }
                    })
                    .await
            }
            .boxed()
        }
        let all = join_all((0..3).map(|key| step(flights.clone(), key))).await;
        let mut sums: Vec<_> = all.into_iter().map(|landed| landed.ok()).collect();
        sums.sort_unstable();
        assert_eq!(
            sums,
            [Some(100), Some(101), Some(102)],
            "one was refused, once"
        );
        // What is no circle is none later either.
        let landed = flights.run(5, {
            let inner = flights.clone();
            move || async move {
                inner
                    .run(0, async || Ok(1))
                    .await
                    .map_err(|e| e.to_string())
            }
        });
        assert_eq!(landed.await.ok(), Some(1));
    });
}

#[test]
fn a_wait_that_was_given_up_closes_no_circle() {
    paused(async || {
        let flights = Arc::new(Flights::new());
        let (one, two) = (flights.clone(), flights.clone());
        let wanted = flights.run(2, move || async move {
            sleep(ms(8)).await;
            let other = two.run(1, async || Ok(0)).await;
            other.map(|one| one + 10).map_err(|error| error.to_string())
        });
        let impatient = flights.run(1, move || async move {
            let other = timeout(ms(5), one.run(2, async || Ok(0))).await;
            assert!(other.is_err(), "it takes longer");
            sleep(ms(10)).await;
            Ok(1)
        });
        let (two, one) = tokio::join!(wanted, impatient);
        assert_eq!((one.ok(), two.ok()), (Some(1), Some(11)));
    });
}

#[test]
fn a_circle_that_leads_through_another_value_is_refused_alike() {
    paused(async || {
        let users = Arc::new(SingleFlight::<u32, u32, String>::new());
        let rooms = Arc::new(SingleFlight::<&str, u32, String>::new());
        let (again, inner) = (users.clone(), rooms.clone());
        let landed = users.run(1, move || async move {
            let room = inner.run("hall", move || async move {
                match again.run(1, async || Ok(1)).await {
                    Err(FlightError::Circle) => Ok(7),
                    other => Err(format!("{other:?}")),
                }
            });
            room.await.map_err(|error| error.to_string())
        });
        assert_eq!(landed.await.ok(), Some(7));
    });
}

#[test]
fn a_thousand_races_of_landing_and_asking_lose_nobody() {
    every_runtime_in_a_task(|| async {
        let flights = Arc::new(SingleFlight::<u32, u32, String>::new());
        for round in 0..1000 {
            let turns = round % 4;
            let asks: Vec<_> = (0..4)
                .map(|caller| {
                    let flights = flights.clone();
                    spawn(async move {
                        for _ in 0..caller % 3 {
                            yield_now().await;
                        }
                        flights
                            .run(round, move || async move {
                                for _ in 0..turns {
                                    yield_now().await;
                                }
                                Ok(round)
                            })
                            .await
                    })
                })
                .collect();
            for ask in asks {
                assert_eq!(ask.await.expect("no panic").ok(), Some(round));
            }
        }
        assert!(flights.is_empty());
    });
}

#[test]
fn dropped_at_any_await_a_caller_leaves_nothing_behind() {
    paused(async || {
        let flights = Arc::new(Flights::new());
        let cuts = cut_at_every_await(
            || {
                let flights = flights.clone();
                async move {
                    drop(flights.run(7, || counted(&Count::new())).await);
                }
            },
            |_| async {
                sleep(ms(20)).await;
                assert!(flights.is_empty());
            },
        )
        .await;
        assert!(cuts >= 1, "{cuts}");
    });
}

#[derive(Clone)]
struct Bad;

impl Drop for Bad {
    fn drop(&mut self) {
        panic!("in the destructor of an answer");
    }
}

#[test]
fn an_answer_whose_destructor_panics_is_no_other_calls_business() {
    paused(async || {
        let flights = SingleFlight::<u32, Option<Bad>, String>::new();
        let bad = flights.run(1, || async {
            yield_now().await;
            Ok(Some(Bad))
        });
        let good = flights.run(2, || async {
            sleep(ms(10)).await;
            Ok(None)
        });
        assert!(
            bad.now_or_never().is_none(),
            "it goes on, and nobody waits for it"
        );
        assert!(good.await.is_ok());
    });
}

/// A value that asks the flights something while it is dropped.
struct Asks(Arc<SingleFlight<Arc<str>, u32, String>>);

impl Drop for Asks {
    fn drop(&mut self) {
        assert_eq!(self.0.len(), self.0.len());
    }
}

#[test]
fn results_are_dropped_outside_the_locks() {
    paused(async || {
        let flights = Arc::new(SingleFlight::<Arc<str>, u32, String>::new());
        let others = Arc::new(SingleFlight::<u32, Arc<Asks>, String>::new());
        let landed = others.run(1, {
            let flights = flights.clone();
            move || async move { Ok(Arc::new(Asks(flights))) }
        });
        drop(landed.await);
        others.forget(&1);
        assert!(flights.is_empty());
    });
}

#[test]
fn it_goes_by_the_group_that_it_was_made_in() {
    paused(async || {
        let start = Instant::now();
        let ended = Scope::new().grace(ms(50)).run(async |group: &TaskGroup| {
            let flights = Flights::new();
            let told = flights.run(7, || async {
                token().cancelled().await;
                Err("told".to_owned())
            });
            let stop = async {
                sleep(ms(5)).await;
                group.cancel();
            };
            let (landed, ()) = tokio::join!(told, stop);
            assert_eq!(landed.expect_err("told").to_string(), "told");
            Ok(())
        });
        assert!(ended.await.is_err());
        assert_eq!(start.elapsed(), ms(5));
    });
}

struct Hears(Log<String>);

impl Observer for Hears {
    fn displaced(&self, what: &Displaced) {
        self.0.push(match &what.what {
            DisplacedWhat::Error(error) => match error.downcast_ref::<String>() {
                Some(error) => error.clone(),
                None => "an error of another type".to_owned(),
            },
            what => format!("{what:?}"),
        });
    }
}

/// Runs a body that an observer hears of, and returns what it heard.
async fn heard(body: impl AsyncFnOnce(&Flights)) -> Vec<String> {
    let log = Log::new();
    let scope = Scope::new().observer(Arc::new(Hears(log.clone())));
    let ended = scope.run(async |_: &TaskGroup| {
        body(&Flights::new()).await;
        Ok(())
    });
    ended.await.expect("nobody in the group fails");
    log.entries()
}

#[test]
fn a_failure_that_nobody_waits_for_any_more_is_observed() {
    paused(async || {
        for throws in [false, true] {
            let call = move || async move {
                yield_now().await;
                assert!(!throws, "thrown");
                Err("no".to_owned())
            };
            let told = heard(async |flights| {
                assert!(flights.run(1, call).now_or_never().is_none());
                sleep(ms(1)).await;
                // One who asked, and goes away when it is there.
                let mut late = Box::pin(flights.run(2, call));
                assert!((&mut late).now_or_never().is_none());
                sleep(ms(1)).await;
                drop(late);
            });
            let told = told.await;
            assert_eq!(told.len(), 2);
            let text = if throws { "thrown" } else { "no" };
            assert!(told.iter().all(|it| it.contains(text)), "{told:?}");
            // Who hears of it is told once.
            let told = heard(async |flights| {
                let all = join_all([flights.run(1, call), flights.run(1, call)]).await;
                assert!(all.iter().all(Result::is_err));
            });
            assert_eq!(told.await, [""; 0]);
        }
    });
}

/// Fails at once, and throws when it is dropped.
struct FailsAndThrows;

impl Future for FailsAndThrows {
    type Output = Result<u32, String>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Err("no".to_owned()))
    }
}

impl Drop for FailsAndThrows {
    fn drop(&mut self) {
        panic!("bang");
    }
}

#[test]
fn the_error_of_a_call_whose_destructor_panics_is_observed() {
    paused(async || {
        let told = heard(async |flights| {
            let landed = flights.run(1, || FailsAndThrows).await;
            assert!(matches!(landed, Err(FlightError::Panicked(_))));
        });
        assert_eq!(told.await, ["no"]);
    });
}

#[test]
fn a_call_that_is_not_needed_is_dropped_before_the_wait() {
    paused(async || {
        let told = heard(async |flights| {
            let fails = async || {
                sleep(ms(1)).await;
                Err("no".to_owned())
            };
            let mut first = Box::pin(flights.run(1, fails));
            assert!((&mut first).now_or_never().is_none());
            let bad = PanicOnDrop("not needed");
            let second = flights.run(1, move || {
                let _bad = &bad;
                async { Ok(1) }
            });
            let thrown = AssertUnwindSafe(second).catch_unwind().now_or_never();
            assert!(matches!(thrown, Some(Err(_))), "it is its caller's");
            drop(first);
            sleep(ms(2)).await;
        });
        assert_eq!(told.await, ["no"], "nobody has taken it");
    });
}
