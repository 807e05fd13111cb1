//! Time: timeouts and deadlines, on the paused clock.

mod budget;
mod moved;

use std::{
    future::{Future, pending, poll_fn, ready},
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::poll;
use ringfence::{
    CancelReason, Cause, Deadline, Elapsed, Limit, Scope, TaskGroup, move_on_after, root, scope,
    timeout, timeout_at, token,
};
use tokio::{
    task::{coop::poll_proceed, yield_now},
    time::{Instant, advance, sleep, sleep_until},
};

use crate::support::{Count, CountingWaker, Drops, Log, Parked, paused, until};

type Group = TaskGroup<String>;
type Done = Result<(), String>;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_slow_future_elapses_at_its_limit() {
    paused(async || {
        let start = Instant::now();
        let error = timeout(ms(20), sleep(ms(21))).await.unwrap_err();
        assert_eq!(start.elapsed(), ms(20));
        assert_eq!(error.limit(), Limit::After(ms(20)));
        let at = Deadline::at(start + ms(50));
        let error = timeout_at(at, pending::<()>()).await.unwrap_err();
        assert_eq!(start.elapsed(), ms(50));
        assert_eq!(error.limit(), Limit::At(at));
    });
}

#[test]
fn a_fast_future_gives_its_output() {
    paused(async || {
        let start = Instant::now();
        let value = async {
            sleep(ms(19)).await;
            Ok::<_, String>(7)
        };
        assert_eq!(timeout(ms(20), value).await.unwrap(), Ok(7));
        let error = async {
            sleep(ms(1)).await;
            Err::<u8, _>("its own".to_owned())
        };
        assert_eq!(
            timeout(ms(20), error).await.unwrap().unwrap_err(),
            "its own"
        );
        assert_eq!(start.elapsed(), ms(20));
        // A timer that was left behind would wake us, or make the clock stop at it.
        sleep(ms(100)).await;
        assert_eq!(start.elapsed(), ms(120));
        assert_eq!(
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks(),
            0
        );
    });
}

#[test]
fn a_ready_future_wins_at_zero() {
    paused(async || {
        assert_eq!(timeout(Duration::ZERO, ready(7)).await, Ok(7));
        assert_eq!(timeout_at(Instant::now(), ready(7)).await, Ok(7));
        assert_eq!(move_on_after(Duration::ZERO, ready(7)).await, Some(7));
        let past = Deadline::at(Instant::now());
        advance(ms(5)).await;
        assert_eq!(timeout_at(past, ready(7)).await, Ok(7));
    });
}

#[test]
fn a_pending_future_elapses_at_zero() {
    paused(async || {
        let start = Instant::now();
        for limit in [Duration::ZERO, Duration::from_nanos(1)] {
            let polls = Count::new();
            let counted = Parked::new(&polls, &Drops::new());
            assert!(timeout(limit, counted).await.is_err());
            assert!((1..=2).contains(&polls.get()), "polled first, then told");
        }
        assert!(timeout(Duration::ZERO, yield_now()).await.is_err());
        assert_eq!(
            start.elapsed(),
            ms(1),
            "one tick for the nanosecond, none for zero"
        );
    });
}

#[test]
fn a_ready_future_wins_at_the_same_tick() {
    paused(async || {
        assert_eq!(timeout(ms(20), sleep(ms(20))).await, Ok(()));
        let at = Instant::now() + ms(20);
        assert_eq!(timeout_at(at, sleep_until(at)).await, Ok(()));
        let mut late = pin!(timeout(ms(20), sleep(ms(20))));
        assert!(poll!(late.as_mut()).is_pending());
        advance(ms(500)).await;
        assert_eq!(late.await, Ok(()), "both were over when it was looked at");
    });
}

#[test]
fn no_timer_is_made_for_a_future_that_is_ready() {
    fn outside_every_runtime<F: Future>(future: F) -> Poll<F::Output> {
        let waker = CountingWaker::new().waker();
        pin!(future).poll(&mut Context::from_waker(&waker))
    }
    assert!(tokio::runtime::Handle::try_current().is_err());
    assert_eq!(
        outside_every_runtime(timeout(ms(1), ready(7))),
        Poll::Ready(Ok(7))
    );
    assert_eq!(
        outside_every_runtime(move_on_after(ms(1), ready(7))),
        Poll::Ready(Some(7))
    );
    let longest = timeout(Duration::MAX, pending::<()>());
    assert!(outside_every_runtime(longest).is_pending());
}

#[test]
fn a_timeout_counts_from_its_first_poll() {
    paused(async || {
        let early = timeout(ms(20), pending::<()>());
        advance(ms(100)).await;
        let start = Instant::now();
        assert!(early.await.is_err());
        assert_eq!(start.elapsed(), ms(20));
    });
}

#[test]
fn the_longest_duration_never_fires() {
    paused(async || {
        assert_eq!(Deadline::after(Duration::MAX), Deadline::NEVER);
        assert_eq!(Deadline::after(Duration::MAX).remaining(), Duration::MAX);
        let mut longest = pin!(timeout(Duration::MAX, pending::<()>()));
        let mut move_on = pin!(move_on_after(Duration::MAX, pending::<()>()));
        let mut never = pin!(timeout_at(Deadline::NEVER, pending::<()>()));
        for _ in 0..3 {
            assert!(poll!(longest.as_mut()).is_pending());
            assert!(poll!(move_on.as_mut()).is_pending());
            assert!(poll!(never.as_mut()).is_pending());
            advance(Duration::from_secs(60 * 60 * 24 * 365)).await;
        }
        let in_time = Scope::new().deadline(Deadline::after(Duration::MAX)).run(
            async |group: &Group| -> Done {
                group.spawn(sleep(ms(7)));
                Ok(())
            },
        );
        timeout(Duration::MAX, in_time).await.unwrap().unwrap();
    });
}

#[test]
fn the_error_says_the_limit() {
    paused(async || {
        let after = timeout(ms(1_500), pending::<()>()).await.unwrap_err();
        assert_eq!(after.to_string(), "not ready within 1.5s");
        assert_eq!(after.limit(), Limit::After(ms(1_500)));
        let deadline = Deadline::after(ms(3));
        let at = timeout_at(deadline, pending::<()>()).await.unwrap_err();
        assert_eq!(at.to_string(), "not ready by the deadline");
        assert_eq!(at.limit(), Limit::At(deadline));
        assert_eq!(
            std::io::Error::from(at).kind(),
            std::io::ErrorKind::TimedOut
        );
    });
}

#[test]
fn move_on_after_gives_none_instead_of_an_error() {
    paused(async || {
        let start = Instant::now();
        assert_eq!(move_on_after(ms(20), pending::<()>()).await, None);
        assert_eq!(start.elapsed(), ms(20));
        assert_eq!(move_on_after(ms(20), sleep(ms(19))).await, Some(()));
        let inner = move_on_after(ms(20), timeout(ms(5), pending::<()>())).await;
        assert_eq!(inner.unwrap().unwrap_err().limit(), Limit::After(ms(5)));
        let both = move_on_after(ms(5), move_on_after(ms(20), pending::<()>())).await;
        assert_eq!(both, None);
    });
}

#[test]
fn nested_timeouts_of_one_instant_report_once() {
    paused(async || {
        let (start, drops) = (Instant::now(), Drops::new());
        let at = Deadline::at(start + ms(20));
        let innermost = Parked::new(&Count::new(), &drops);
        let nested = timeout_at(at, timeout_at(at, timeout_at(at, innermost)));
        // The innermost one is polled first: its error is an output that the others have in time.
        let left = nested.await;
        assert_eq!(start.elapsed(), ms(20));
        assert_eq!(left.unwrap().unwrap().unwrap_err().limit(), Limit::At(at));
        assert_eq!(drops.alive(), 0);
    });
}

#[test]
fn of_nested_timeouts_the_shorter_fires() {
    paused(async || {
        let start = Instant::now();
        let outer = timeout(ms(10), timeout(ms(20), pending::<()>())).await;
        assert_eq!(outer.unwrap_err().limit(), Limit::After(ms(10)));
        assert_eq!(start.elapsed(), ms(10));
        let inner = timeout(ms(20), timeout(ms(10), pending::<()>())).await;
        assert_eq!(inner.unwrap().unwrap_err().limit(), Limit::After(ms(10)));
        assert_eq!(start.elapsed(), ms(20));
        let both = timeout(ms(20), async {
            let inner = timeout(ms(10), pending::<()>()).await;
            assert_eq!((inner.is_err(), start.elapsed()), (true, ms(30)));
            pending::<()>().await;
        });
        assert_eq!(both.await.unwrap_err().limit(), Limit::After(ms(20)));
        assert_eq!(start.elapsed(), ms(40));
    });
}

#[test]
fn limits_that_the_clock_has_jumped_over_fire_each_in_its_place() {
    paused(async || {
        for (outer_limit, inner_limit) in [(100, 10), (100, 100), (2, 100)] {
            let (start, steps) = (Instant::now(), Log::new());
            let outer = timeout(ms(outer_limit), async {
                let inner = timeout(ms(inner_limit), async {
                    yield_now().await; // both clocks run
                    advance(ms(if outer_limit == 2 { 10 } else { 100 })).await;
                    pending::<()>().await;
                });
                steps.push(inner.await.unwrap_err().limit());
                pending::<()>().await;
            });
            let outer = outer.await.unwrap_err().limit();
            assert_eq!(outer, Limit::After(ms(outer_limit)));
            if outer_limit == 2 {
                assert_eq!((steps.entries().len(), start.elapsed()), (0, ms(10)));
            } else {
                assert_eq!(steps.entries(), [Limit::After(ms(inner_limit))]);
                assert_eq!(start.elapsed(), ms(100));
            }
        }
    });
}

#[test]
fn a_timeout_does_not_mark_the_task_around_it() {
    paused(async || {
        scope(async |group: &Group| -> Done {
            let child = group.spawn(async {
                for _ in 0..3 {
                    assert!(timeout(ms(10), pending::<()>()).await.is_err());
                    assert!(!token().is_cancelled());
                    sleep(ms(1)).await;
                }
                Ok(7)
            });
            assert_eq!(child.await, 7);
            assert!(timeout(ms(10), pending::<()>()).await.is_err());
            assert!(!group.is_cancelled());
            assert_eq!(group.spawn(async { Ok(8) }).await, 8);
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn a_timeout_works_in_the_cleanup_after_a_signal() {
    paused(async || {
        let (start, log) = (Instant::now(), Log::new());
        let ended = Scope::new()
            .grace(ms(50))
            .run(async |group: &Group| -> Done {
                let inside = log.clone();
                group.spawn(async move {
                    token().cancelled().await;
                    assert!(timeout(ms(10), pending::<()>()).await.is_err());
                    inside.push("elapsed");
                    timeout(ms(100), pending::<()>()).await.unwrap_err();
                    inside.push("the force is no elapsed");
                });
                group.cancel();
                Ok(())
            });
        let error = ended.await.unwrap_err();
        assert!(error.is_cancelled() && error.forced().len() == 1);
        assert_eq!((log.entries(), start.elapsed()), (vec!["elapsed"], ms(50)));
    });
}

#[test]
fn dropping_a_timeout_drops_what_it_ran() {
    paused(async || {
        let (polls, drops) = (Count::new(), Drops::new());
        scope(async |group: &Group| -> Done {
            let child = {
                let parked = Parked::new(&polls, &drops);
                group.spawn(async move { Ok(timeout(ms(10), parked).await) })
            };
            until(|| polls.get() == 1).await;
            let outcome = child.cancel_and_wait().await;
            assert!(outcome.is_cancelled(), "no elapsed: {outcome:?}");
            assert_eq!((drops.made(), drops.dropped()), (1, 1));
            Ok(())
        })
        .await
        .unwrap();
        drop(timeout(ms(10), Parked::new(&polls, &drops)));
        assert_eq!((polls.get(), drops.alive()), (1, 0));
    });
}

#[test]
fn a_loop_of_yields_stops_under_a_timeout() {
    paused(async || {
        let (turns, greedy_turns, drops) = (Count::new(), Count::new(), Drops::new());
        let stopped = scope(async |group: &Group| {
            let (inside, guard) = (turns.clone(), drops.guard());
            let busy = async move {
                let _guard = guard;
                loop {
                    inside.add();
                    yield_now().await;
                }
            };
            let busy = group.spawn(async { Ok(timeout(ms(5), busy).await.is_err()) });
            // Spends the whole budget of its task in each poll, which must not hide the clock.
            let inside = greedy_turns.clone();
            let greedy = poll_fn(move |cx| {
                while let Poll::Ready(spent) = poll_proceed(cx) {
                    spent.made_progress();
                }
                inside.add();
                Poll::<()>::Pending
            });
            let greedy = group.spawn(async { Ok(timeout(ms(5), greedy).await.is_err()) });
            until(|| turns.get().min(greedy_turns.get()) > 1).await;
            advance(ms(4)).await;
            let now = turns.get();
            until(|| turns.get() > now + 100).await;
            assert!(!busy.is_finished() && !greedy.is_finished());
            advance(ms(1)).await;
            Ok((busy.await, greedy.await))
        });
        assert_eq!(stopped.await.unwrap(), (true, true));
        assert_eq!(drops.alive(), 0);
    });
}

#[test]
fn a_timeout_around_a_scope_reports_elapsed() {
    paused(async || {
        let (start, drops) = (Instant::now(), Drops::new());
        let slow = scope(async |group: &Group| -> Done {
            for _ in 0..3 {
                group.spawn(Parked::new(&Count::new(), &drops));
            }
            pending().await
        });
        let late: Result<_, Elapsed> = timeout(ms(20), slow).await;
        assert_eq!(late.unwrap_err().limit(), Limit::After(ms(20)));
        assert_eq!(start.elapsed(), ms(20));
        assert_eq!(root().orphans(), 1);
        root().wait(ms(1)).await.unwrap();
        assert_eq!((drops.made(), drops.dropped()), (3, 3));
    });
}

#[test]
fn a_group_deadline_cancels_and_awaits() {
    paused(async || {
        let start = Instant::now();
        // Before the spawns (it is past), in the midst of them, and after the body is done.
        for (at, took) in [(ms(0), ms(0)), (ms(20), ms(20)), (ms(50), ms(50))] {
            let (begin, drops) = (Instant::now(), Drops::new());
            let deadline = Deadline::at(begin + at);
            let error = Scope::new()
                .deadline(deadline)
                .run(async |group: &Group| -> Done {
                    for _ in 0..3 {
                        group.spawn(Parked::new(&Count::new(), &drops));
                        sleep(ms(15)).await;
                    }
                    Ok(())
                })
                .await
                .unwrap_err();
            assert_eq!(error.cause(), &Cause::DeadlineExceeded);
            assert!(error.is_deadline_exceeded() && error.is_empty());
            assert_eq!(begin.elapsed(), took);
            assert!(
                drops.made() > 0 && drops.alive() == 0,
                "{drops:?} at {at:?}"
            );
        }
        assert_eq!(start.elapsed(), ms(70));
    });
}

#[test]
fn a_group_deadline_reports_deadline_exceeded_with_all_errors() {
    paused(async || {
        let start = Instant::now();
        let error = Scope::new()
            .grace(ms(100))
            .deadline(Deadline::at(start + ms(20)))
            .run(async |group: &Group| -> Done {
                for (name, cleanup) in [("slow", 30), ("fast", 10)] {
                    group.spawn(async move {
                        token().cancelled().await;
                        assert_eq!(token().reason(), Some(CancelReason::Deadline));
                        sleep(ms(cleanup)).await;
                        Err::<(), _>(name.to_owned())
                    });
                }
                group.token().cancelled().await;
                Err("body".to_owned())
            })
            .await
            .unwrap_err();
        assert_eq!(start.elapsed(), ms(50));
        assert_eq!(error.cause(), &Cause::DeadlineExceeded);
        let errors: Vec<_> = error.iter().filter_map(|failure| failure.error()).collect();
        assert_eq!(errors, ["body", "fast", "slow"]);
    });
}

#[test]
fn children_that_are_in_time_leave_no_deadline_behind() {
    paused(async || {
        let start = Instant::now();
        let spawner = Scope::new()
            .deadline(Deadline::at(start + ms(20)))
            .run(async |group: &Group| {
                group.spawn(sleep(ms(19)));
                group.spawn_background(pending::<()>());
                Ok(group.spawner())
            })
            .await
            .unwrap();
        assert_eq!(start.elapsed(), ms(19));
        let reason = spawner.token().reason();
        sleep(ms(100)).await;
        assert_eq!(start.elapsed(), ms(119));
        assert_eq!(spawner.token().reason(), reason, "nothing fired later");
        assert_eq!(Deadline::current(), Deadline::NEVER);
    });
}

#[test]
fn a_group_cancelled_before_its_deadline_reports_the_cancel() {
    paused(async || {
        let start = Instant::now();
        let error = Scope::new()
            .grace(ms(100))
            .deadline(Deadline::at(start + ms(20)))
            .run(async |group: &Group| -> Done {
                group.spawn(sleep(ms(50)));
                sleep(ms(10)).await;
                group.cancel_with("enough");
                Ok(())
            })
            .await
            .unwrap_err();
        assert_eq!(
            start.elapsed(),
            ms(50),
            "the deadline passed while it closed"
        );
        let note = Some(Arc::from("enough"));
        let reason = CancelReason::Requested { note, by: None };
        assert_eq!(error.cause(), &Cause::Cancelled(reason));
        assert!(!error.is_deadline_exceeded());
    });
}

#[test]
fn an_inner_deadline_can_only_be_earlier() {
    paused(async || {
        let start = Instant::now();
        let at = |millis| Deadline::at(start + ms(millis));
        let error = Scope::new()
            .deadline(at(40))
            .run(async |_: &Group| -> Done {
                let earlier = Scope::new()
                    .deadline(at(20))
                    .run(async |_: &Group| -> Done {
                        assert_eq!(Deadline::current(), at(20));
                        pending().await
                    });
                assert!(earlier.await.unwrap_err().is_deadline_exceeded());
                assert_eq!((start.elapsed(), Deadline::current()), (ms(20), at(40)));
                let later = Scope::new()
                    .deadline(at(90))
                    .run(async |_: &Group| -> Done {
                        assert_eq!(Deadline::current(), at(40));
                        pending().await
                    });
                later
                    .await
                    .map_err(|_| unreachable!("the outer one is first"))
            })
            .await
            .unwrap_err();
        assert!(error.is_deadline_exceeded());
        assert_eq!(start.elapsed(), ms(40));
    });
}

#[test]
fn children_and_nested_scopes_inherit_the_deadline() {
    paused(async || {
        let deadline = Deadline::after(ms(40));
        Scope::new()
            .deadline(deadline)
            .run(async |group: &Group| -> Done {
                group.spawn(async move {
                    assert_eq!(Deadline::current(), deadline);
                    let nested = scope(async |group: &Group| -> Done {
                        assert_eq!(Deadline::current(), deadline);
                        let grandchild = group.spawn(async { Ok(Deadline::current()) });
                        assert_eq!(grandchild.await, deadline);
                        Ok(())
                    });
                    nested.await.unwrap();
                });
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(Deadline::current(), Deadline::NEVER);
    });
}

#[test]
fn a_deadline_is_a_value() {
    paused(async || {
        let now = Instant::now();
        let (soon, late) = (Deadline::at(now + ms(10)), Deadline::from(now + ms(20)));
        assert!(soon < late && late < Deadline::NEVER);
        assert_eq!(
            Deadline::NEVER.cmp(&Deadline::NEVER),
            std::cmp::Ordering::Equal
        );
        assert_eq!((late.min(soon), soon.min(Deadline::NEVER)), (soon, soon));
        assert_eq!(Deadline::NEVER.min(Deadline::NEVER).instant(), None);
        assert_eq!(soon.instant(), Some(now + ms(10)));
        for (moved, remaining, is_past) in
            [(0, 10, false), (9, 1, false), (1, 0, true), (5, 0, true)]
        {
            advance(ms(moved)).await;
            assert_eq!((soon.remaining(), soon.is_past()), (ms(remaining), is_past));
        }
        assert_eq!(
            (Deadline::NEVER.remaining(), Deadline::NEVER.is_past()),
            (Duration::MAX, false)
        );
        assert_eq!(Deadline::after(Duration::ZERO).remaining(), Duration::ZERO);
    });
}

#[test]
fn a_duration_is_a_deadline_from_now() {
    paused(async || {
        let late = Scope::new().deadline(ms(30)); // counts from here
        advance(ms(10)).await;
        let start = Instant::now();
        assert_eq!(Deadline::from(ms(5)), Deadline::after(ms(5)));
        assert_eq!(Deadline::from(Duration::MAX), Deadline::NEVER);
        let ended = late.run(async |_: &Group| pending::<Done>().await).await;
        assert!(ended.unwrap_err().is_deadline_exceeded());
        assert_eq!(start.elapsed(), ms(20));
        assert!(timeout_at(ms(5), pending::<()>()).await.is_err());
        assert_eq!(start.elapsed(), ms(25));
    });
}

#[test]
fn time_is_that_of_the_runtimes_clock() {
    paused(async || {
        let (fired, day) = (Count::new(), Duration::from_secs(24 * 60 * 60));
        let jumped = Scope::new()
            .grace(day * 2)
            .deadline(Deadline::after(day / 2))
            .run(async |group: &Group| -> Done {
                for hour in 1..=12 {
                    let fired = fired.clone();
                    group.spawn(async move {
                        let limit = Duration::from_secs(hour * 60 * 60);
                        assert!(timeout(limit, pending::<()>()).await.is_err());
                        fired.add();
                    });
                }
                for _ in 0..100 {
                    yield_now().await;
                }
                assert_eq!(
                    (fired.get(), group.is_cancelled()),
                    (0, false),
                    "nothing by itself"
                );
                advance(day).await;
                until(|| fired.get() == 12).await;
                for _ in 0..100 {
                    yield_now().await;
                }
                assert_eq!((fired.get(), group.is_cancelled()), (12, true), "each once");
                let start = Instant::now();
                assert!(timeout(ms(20), pending::<()>()).await.is_err());
                assert_eq!(start.elapsed(), ms(20), "and later waits are whole");
                Ok(())
            });
        assert!(jumped.await.unwrap_err().is_deadline_exceeded());
    });
}

#[test]
fn after_its_deadline_a_group_refuses_newcomers() {
    paused(async || {
        let made = Scope::new().deadline(Deadline::after(ms(20)));
        let (mut kept, polls) = (None, Count::new());
        let ended = made.grace(ms(50)).run(async |group: &Group| -> Done {
            group.token().cancelled().await;
            let late = group.try_spawn(Parked::new(&polls, &Drops::new()));
            let late = late.expect_err("its time is over");
            assert_eq!(late.reason(), &CancelReason::Deadline);
            kept = Some(group.spawner());
            Ok(())
        });
        assert!(ended.await.unwrap_err().is_deadline_exceeded());
        let late = kept.expect("the body went on").try_spawn(async {});
        assert_eq!(late.unwrap_err().reason(), &CancelReason::Deadline);
        assert_eq!(polls.get(), 0);
    });
}
