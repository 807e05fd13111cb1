//! Rate limits, on the paused clock.

use std::{pin::pin, time::Duration};

use ringfence::{Deadline, Rate, RateError, RateLimiter, Scope, TaskGroup};
use tokio::time::{Instant, advance, sleep, sleep_until};

use super::ms;
use crate::support::{Log, caught, paused, settle, spawn};

fn ten() -> RateLimiter {
    RateLimiter::new(Rate::per_second(10))
}

/// The milliseconds at which so many acquires in a row came through.
async fn times(limiter: &RateLimiter, n: usize) -> Vec<u128> {
    let (start, mut times) = (Instant::now(), Vec::new());
    for _ in 0..n {
        limiter.acquire().await.expect("its turn");
        times.push(start.elapsed().as_millis());
    }
    times
}

#[test]
fn a_rate_lets_one_through_in_each_of_its_spans() {
    paused(async || {
        assert_eq!(times(&ten(), 6).await, [0, 100, 200, 300, 400, 500]);
        // A third of a second each: the timer has milliseconds, and what it is late is not made up for by being early.
        let thirds = RateLimiter::new(Rate::per_second(3));
        assert_eq!(
            times(&thirds, 7).await,
            [0, 334, 668, 1002, 1336, 1670, 2004]
        );
    });
}

#[test]
fn a_burst_goes_through_at_once() {
    paused(async || {
        let limiter = RateLimiter::new(Rate::per_second(10).burst(5));
        assert_eq!(times(&limiter, 8).await, [0, 0, 0, 0, 0, 100, 200, 300]);
    });
}

#[test]
fn no_window_lets_more_through_than_the_burst_and_its_share() {
    paused(async || {
        let limiter = RateLimiter::new(Rate::per_second(10).burst(3));
        let (log, start) = (Log::new(), Instant::now());
        for i in 0..60_u64 {
            let (limiter, log) = (limiter.clone(), log.clone());
            spawn(async move {
                sleep(ms(i * i % 997)).await;
                limiter.acquire().await.unwrap();
                log.push(start.elapsed().as_millis());
            });
        }
        sleep(ms(20_000)).await;
        let times = log.entries();
        assert_eq!(times.len(), 60);
        for (i, from) in times.iter().enumerate() {
            for (n, to) in times[i..].iter().enumerate() {
                assert!(
                    (n as u128) < 3 + (to - from) / 100 + 1,
                    "{} in {}",
                    n + 1,
                    to - from
                );
            }
        }
    });
}

#[test]
fn a_late_try_cannot_overtake_and_waiters_are_served_in_order() {
    paused(async || {
        let (limiter, log) = (ten(), Log::new());
        limiter.acquire().await.unwrap();
        for i in 0..3 {
            let (limiter, log) = (limiter.clone(), log.clone());
            spawn(async move {
                limiter.acquire().await.unwrap();
                log.push(i);
            });
        }
        settle().await;
        assert_eq!(limiter.waiting(), 3);
        // The first in line is due, and was not polled yet.
        advance(ms(100)).await;
        let start = Instant::now();
        let late = limiter.try_acquire();
        assert!(matches!(late, Err(RateError::TooLate { at: Some(at) }) if at > start));
        limiter.acquire().await.unwrap();
        assert_eq!(log.entries(), [0, 1, 2]);
    });
}

#[test]
fn a_waiter_that_leaves_costs_the_others_nothing() {
    paused(async || {
        for leaver in [0, 1, 2] {
            let (limiter, log, start) = (ten(), Log::new(), Instant::now());
            limiter.acquire().await.unwrap();
            let tasks: Vec<_> = (0..4)
                .map(|i| {
                    let (limiter, log) = (limiter.clone(), log.clone());
                    spawn(async move {
                        limiter.acquire().await.unwrap();
                        log.push((i, start.elapsed().as_millis()));
                    })
                })
                .collect();
            sleep(ms(50)).await;
            tasks[leaver].abort();
            sleep(ms(1_000)).await;
            let rest: Vec<_> = (0..4)
                .filter(|i| *i != leaver)
                .zip([100, 200, 300])
                .collect();
            assert_eq!(log.entries(), rest);
            assert_eq!(limiter.waiting(), 0);
        }
    });
}

#[test]
fn the_next_takes_over_from_the_head_without_losing_a_tick() {
    paused(async || {
        let (limiter, start) = (ten(), Instant::now());
        limiter.acquire().await.unwrap();
        let mut head = Box::pin(limiter.acquire());
        let mut next = pin!(limiter.acquire());
        assert!(futures::poll!(head.as_mut()).is_pending());
        assert!(futures::poll!(next.as_mut()).is_pending());
        sleep(ms(99)).await;
        drop(head);
        next.await.unwrap();
        assert_eq!(start.elapsed(), ms(100));
    });
}

#[test]
fn however_many_wait_there_is_one_timer() {
    // Only the first in line wakes with the clock: each wait costs two wake-ups at most, its turn at the front and its time.
    paused(async || {
        let limiter = ten();
        limiter.acquire().await.unwrap();
        let polls = crate::support::Count::new();
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let (limiter, polls) = (limiter.clone(), polls.clone());
                spawn(async move {
                    let mut wait = pin!(limiter.acquire());
                    std::future::poll_fn(|cx| {
                        polls.add();
                        wait.as_mut().poll(cx)
                    })
                    .await
                })
            })
            .collect();
        settle().await;
        assert_eq!(polls.get(), 100);
        advance(ms(50)).await;
        settle().await;
        assert_eq!(polls.get(), 100);
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert!(polls.get() <= 300, "{} polls", polls.get());
    });
}

#[test]
fn a_try_that_fails_tells_when_it_would_succeed() {
    paused(async || {
        let (limiter, start) = (ten(), Instant::now());
        limiter.try_acquire().unwrap();
        let Err(RateError::TooLate { at: Some(at) }) = limiter.try_acquire() else {
            panic!("refused with an instant");
        };
        assert_eq!(at - start, ms(100));
        sleep_until(at).await;
        limiter.try_acquire().unwrap();
    });
}

#[test]
fn a_deadline_that_cannot_be_met_fails_at_once_and_costs_nothing() {
    paused(async || {
        let (limiter, start) = (ten(), Instant::now());
        limiter.acquire().await.unwrap();
        let late = limiter
            .acquire_by(1, Deadline::after(ms(99)))
            .await
            .unwrap_err();
        assert_eq!(
            late,
            RateError::TooLate {
                at: Some(start + ms(100))
            }
        );
        assert_eq!(start.elapsed(), ms(0));
        let mut ahead = pin!(limiter.acquire());
        assert!(futures::poll!(ahead.as_mut()).is_pending());
        // Behind another one.
        let late = limiter.acquire_by(1, Deadline::after(ms(199))).await;
        assert!(late.is_err());
        let in_time = limiter.acquire_by(1, Deadline::after(ms(200)));
        let (ahead, in_time) = tokio::join!(ahead, in_time);
        ahead.and(in_time).unwrap();
        assert_eq!(start.elapsed(), ms(200));
    });
}

#[test]
fn more_than_the_burst_fails_at_once_and_as_much_waits_for_all() {
    paused(async || {
        let limiter = RateLimiter::new(Rate::per_second(10).burst(3));
        let start = Instant::now();
        let error = limiter.acquire_many(4).await.unwrap_err();
        assert_eq!(
            error,
            RateError::InsufficientCapacity { asked: 4, burst: 3 }
        );
        assert_eq!(limiter.try_acquire_many(4).unwrap_err(), error);
        limiter.acquire_many(3).await.unwrap();
        limiter.acquire_many(3).await.unwrap();
        assert_eq!(start.elapsed(), ms(300)); // all three together
    });
}

#[test]
fn an_idle_hour_saves_up_no_more_than_the_burst_and_nothing_is_free() {
    paused(async || {
        let limiter = RateLimiter::new(Rate::per_second(10).burst(4));
        times(&limiter, 9).await;
        sleep(Duration::from_secs(3_600)).await;
        assert_eq!(times(&limiter, 6).await, [0, 0, 0, 0, 100, 200]);
        let mut none = pin!(limiter.acquire_many(0));
        assert!(futures::poll!(none.as_mut()).is_ready());
        limiter.try_acquire_many(0).unwrap();
    });
}

#[test]
fn clones_share_the_rate() {
    paused(async || {
        let (a, start) = (ten(), Instant::now());
        let b = a.clone();
        a.acquire().await.unwrap();
        b.acquire().await.unwrap();
        assert_eq!(start.elapsed(), ms(100));
    });
}

#[test]
fn rates_of_zero_and_beyond_measure_are_refused_and_the_rest_saturates() {
    paused(async || {
        for (make, word) in [
            ((|| _ = Rate::per_second(0)) as fn(), "not 0"),
            (|| _ = Rate::new(1, Duration::ZERO), "longer than zero"),
            (
                || _ = Rate::new(u32::MAX, Duration::from_nanos(1)),
                "picosecond",
            ),
            (|| _ = Rate::per_second(1).burst(0), "not 0"),
        ] {
            let thrown = caught(async { make() }).await.unwrap_err();
            assert!(thrown.contains(word), "{thrown}");
        }
        // As fast as a u32 can say: a quarter of a nanosecond each.
        let fast = RateLimiter::new(Rate::per_second(u32::MAX).burst(u32::MAX));
        for _ in 0..1_000 {
            fast.acquire_many(u32::MAX / 2_000).await.unwrap();
        }
        // As slow: once, and then never.
        let slow = RateLimiter::new(Rate::new(1, Duration::MAX));
        slow.acquire().await.unwrap();
        assert_eq!(slow.try_acquire(), Err(RateError::TooLate { at: None }));
        let never = slow.acquire_by(1, Deadline::after(Duration::from_secs(1 << 40)));
        assert!(never.await.is_err());
    });
}

#[test]
fn a_change_of_the_rate_times_the_waiters_anew_and_grants_no_more_than_the_burst() {
    paused(async || {
        let (limiter, log, start) = (ten(), Log::new(), Instant::now());
        limiter.acquire().await.unwrap();
        for i in 0..4 {
            let (limiter, log) = (limiter.clone(), log.clone());
            spawn(async move {
                limiter.acquire().await.unwrap();
                log.push((i, start.elapsed().as_millis()));
            });
        }
        sleep(ms(50)).await;
        // Half of a span was waited: half of one is left.
        limiter.set_rate(Rate::per_second(100));
        sleep(ms(500)).await;
        assert_eq!(log.entries(), [(0, 55), (1, 65), (2, 75), (3, 85)]);
        limiter.set_rate(Rate::per_second(10).burst(3));
        assert_eq!(times(&limiter, 5).await, [0, 0, 0, 100, 200]);
    });
}

#[test]
fn a_burst_below_what_a_waiter_asked_for_ends_its_wait() {
    paused(async || {
        let limiter = RateLimiter::new(Rate::per_second(10).burst(5));
        limiter.acquire_many(5).await.unwrap();
        let (big, start) = (limiter.clone(), Instant::now());
        let big = spawn(async move { (big.acquire_many(4).await, start.elapsed()) });
        settle().await;
        let behind = limiter.clone();
        let behind = spawn(async move {
            behind.acquire().await.unwrap();
            start.elapsed()
        });
        sleep(ms(1)).await;
        limiter.set_rate(Rate::per_second(10).burst(2));
        let (told, when) = big.await.unwrap();
        assert_eq!(
            (told, when),
            (
                Err(RateError::InsufficientCapacity { asked: 4, burst: 2 }),
                ms(1)
            )
        );
        // Five are owed, a hundredth of one was paid for: two may be owed at a time.
        assert_eq!((behind.await.unwrap(), limiter.waiting()), (ms(400), 0));
    });
}

#[test]
fn what_is_less_than_a_nanosecond_away_is_granted() {
    paused(async || {
        let limiter = RateLimiter::new(Rate::per_second(4_000_000_000));
        let start = Instant::now();
        for _ in 0..1_000 {
            limiter.acquire().await.unwrap();
            advance(Duration::from_nanos(1)).await;
        }
        assert_eq!(start.elapsed(), Duration::from_nanos(1_000));
    });
}

#[test]
fn a_wait_for_a_rate_ends_on_the_signal() {
    paused(async || {
        let (limiter, start) = (RateLimiter::new(Rate::new(1, ms(100_000))), Instant::now());
        limiter.acquire().await.unwrap();
        let ended = Scope::new()
            .grace(ms(1_000))
            .run(async |group: &TaskGroup| {
                for _ in 0..3 {
                    let limiter = limiter.clone();
                    group.spawn(async move {
                        let mut wait = pin!(limiter.acquire());
                        let ended = wait.as_mut().await;
                        assert!(matches!(ended, Err(RateError::Cancelled(_))));
                        sleep(ms(1)).await;
                        assert_eq!(limiter.waiting(), 0, "they have left the line");
                    });
                }
                sleep(ms(30)).await;
                group.cancel();
                Ok(())
            })
            .await;
        assert!(ended.unwrap_err().forced().is_empty());
        assert_eq!((start.elapsed(), limiter.waiting()), (ms(31), 0));
    });
}

#[test]
fn a_thousand_waiters_half_of_them_cancelled_stay_on_the_line() {
    paused(async || {
        let limiter = RateLimiter::new(Rate::per_second(10).burst(5));
        let (log, start) = (Log::new(), Instant::now());
        let tasks: Vec<_> = (0..1_000)
            .map(|i| {
                let (limiter, log) = (limiter.clone(), log.clone());
                spawn(async move {
                    limiter.acquire().await.unwrap();
                    log.push((i, start.elapsed().as_millis()));
                })
            })
            .collect();
        sleep(ms(1_001)).await;
        for task in tasks.iter().skip(1).step_by(2) {
            task.abort();
        }
        sleep(ms(1_000)).await;
        limiter.set_rate(Rate::per_second(100).burst(5));
        sleep(ms(60_000)).await;
        let seen = log.entries();
        // Fifteen before the first half left; then every other one, in order.
        let order: Vec<_> = seen.iter().map(|(i, _)| *i).collect();
        let expected: Vec<_> = (0..15).chain((16..1_000).step_by(2)).collect();
        assert_eq!(order, expected);
        let times: Vec<_> = seen.iter().map(|(_, at)| *at).collect();
        assert_eq!(
            times[..15],
            [
                0, 0, 0, 0, 0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1_000
            ]
        );
        assert_eq!(
            times[15..25],
            [
                1_100, 1_200, 1_300, 1_400, 1_500, 1_600, 1_700, 1_800, 1_900, 2_000
            ]
        );
        assert!(times[26..].windows(2).all(|pair| pair[1] - pair[0] == 10));
    });
}

#[test]
fn waiters_need_no_runtime_until_they_have_to_wait() {
    let limiter = RateLimiter::new(Rate::per_second(1));
    limiter.try_acquire().unwrap();
    assert!(limiter.try_acquire().is_err());
}

#[test]
fn a_lowered_rate_tells_those_who_will_be_late_at_once() {
    paused(async || {
        let limiter = ten();
        limiter.try_acquire().unwrap();
        let (start, late) = (Instant::now(), Log::new());
        let waits = [None, Some(300), Some(2_000), Some(3_000), None];
        for (place, until) in waits.into_iter().enumerate() {
            let (limiter, late) = (limiter.clone(), late.clone());
            let deadline = until.map_or(Deadline::NEVER, |until| Deadline::at(start + ms(until)));
            spawn(async move {
                if limiter.acquire_by(1, deadline).await.is_err() {
                    late.push((place, start.elapsed().as_millis()));
                }
            });
        }
        sleep(ms(50)).await;
        assert_eq!(limiter.waiting(), 5);
        limiter.set_rate(Rate::per_second(1)); // half a second is left of what is owed
        settle().await;
        // The others come at 550, 1550, 2550, 3550 as long as nobody leaves; who may be on time then stays.
        assert!(late.entries().contains(&(1, 50)));
        sleep(ms(10_000)).await;
        assert!(late.entries().iter().all(|(_, at)| *at == 50));
        assert_eq!(limiter.waiting(), 0);
        // Told, it has left the line, also where its future stays.
        limiter.try_acquire().unwrap();
        let mut told = pin!(limiter.acquire_by(1, Deadline::after(ms(1_500))));
        assert!(futures::poll!(told.as_mut()).is_pending());
        limiter.set_rate(Rate::new(1, ms(100_000)));
        let error = told.as_mut().await.unwrap_err();
        assert!(matches!(error, RateError::TooLate { .. }));
        assert_eq!(limiter.waiting(), 0);
    });
}
