//! Permits: one at a time, several, for a key; and limits that adapt.

use std::pin::pin;

use futures::FutureExt;
use ringfence::{KeyedLimiter, Limiter, Scope, TaskGroup, timeout};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use super::ms;
use crate::support::{
    Count, CountingWaker, Drops, Log, caught, every_runtime, paused, settle, spawn,
};

/// Starts tasks that wait for a permit of these weights, note that they have it, and keep it for 10 ms.
async fn line(limiter: &Limiter, weights: &[u32]) -> Log<u32> {
    let log = Log::new();
    for weight in weights {
        let (limiter, log, weight) = (limiter.clone(), log.clone(), *weight);
        spawn(async move {
            let _permit = limiter.acquire_many(weight).await.expect("a permit");
            log.push(weight);
            sleep(ms(10)).await;
        });
        settle().await;
    }
    log
}

#[test]
fn permits_are_taken_up_to_the_limit_and_come_back_however_they_end() {
    every_runtime(async || {
        let (limiter, inside) = (Limiter::new(3), Drops::new());
        let tasks: Vec<_> = (0..60)
            .map(|n| {
                let (limiter, inside) = (limiter.clone(), inside.clone());
                spawn(async move {
                    let _permit = limiter.acquire().await.unwrap();
                    let _in = inside.guard();
                    assert!(inside.alive() <= 3);
                    for _ in 0..n % 5 {
                        yield_now().await;
                    }
                    assert!(n % 7 != 6, "some throw");
                })
            })
            .collect();
        for (n, task) in tasks.into_iter().enumerate() {
            if n % 11 == 10 {
                task.abort();
            }
            drop(task.await);
        }
        assert_eq!((limiter.in_flight(), limiter.waiting()), (0, 0));
    });
}

#[test]
fn waiters_are_served_in_order_and_a_try_does_not_overtake() {
    paused(async || {
        let limiter = Limiter::new(2);
        let (a, _b) = (
            limiter.acquire().await.unwrap(),
            limiter.acquire().await.unwrap(),
        );
        let log = line(&limiter, &[2, 1, 1]).await;
        drop(a);
        assert!(
            limiter.try_acquire().is_none(),
            "one is free, but not for who comes last"
        );
        settle().await;
        assert!(log.entries().is_empty(), "the first in line needs two");
        drop(_b);
        sleep(ms(35)).await;
        assert_eq!(log.entries(), [2, 1, 1]);
        // Of what comes back at once, as many are served as fit.
        let limiter = Limiter::new(10);
        let all = limiter.acquire_many(10).await.unwrap();
        let log = line(&limiter, &[2, 7, 2]).await;
        drop(all);
        settle().await;
        assert_eq!((log.entries(), limiter.waiting()), (vec![2, 7], 1));
    });
}

#[test]
fn a_full_limit_refuses_a_try_at_once() {
    let limiter = Limiter::new(2);
    let both = limiter.try_acquire_many(2).unwrap();
    assert!(limiter.try_acquire().is_none());
    drop(both);
    assert!(limiter.try_acquire().is_some());
    let free = limiter.acquire().now_or_never();
    assert!(free.is_some_and(|permit| permit.is_ok()));
}

#[test]
fn who_asks_for_more_than_the_limit_runs_alone() {
    paused(async || {
        let limiter = Limiter::new(3);
        let one = limiter.acquire().await.unwrap();
        let log = line(&limiter, &[9, 1]).await;
        assert_eq!((limiter.waiting(), log.entries()), (2, vec![]));
        drop(one);
        settle().await;
        assert_eq!((log.entries(), limiter.in_flight()), (vec![9], 9));
        sleep(ms(11)).await;
        assert_eq!(log.entries(), [9, 1]);
        sleep(ms(11)).await;
        assert!(limiter.try_acquire_many(100).is_some());
        assert_eq!(limiter.in_flight(), 0);
    });
}

#[test]
fn none_at_all_is_ready_at_once() {
    paused(async || {
        let limiter = Limiter::new(1);
        let _one = limiter.acquire().await.unwrap();
        let mut none = pin!(limiter.acquire_many(0));
        assert!(futures::poll!(none.as_mut()).is_ready());
        assert!(limiter.try_acquire_many(0).is_some());
        assert_eq!(limiter.in_flight(), 1);
    });
}

#[test]
fn a_waiter_that_leaves_hands_on_what_it_was_given() {
    paused(async || {
        let limiter = Limiter::new(1);
        let held = limiter.acquire().await.unwrap();
        let mut given = Box::pin(limiter.acquire());
        let mut next = pin!(limiter.acquire());
        assert!(futures::poll!(given.as_mut()).is_pending());
        assert!(futures::poll!(next.as_mut()).is_pending());
        drop(held);
        assert_eq!(limiter.waiting(), 1); // the first has it, unseen
        drop(given);
        drop(next.await.unwrap());
        assert_eq!((limiter.in_flight(), limiter.waiting()), (0, 0));
    });
}

#[test]
fn when_a_heavy_waiter_leaves_the_lighter_ones_behind_it_go() {
    paused(async || {
        let limiter = Limiter::new(3);
        let _held = limiter.acquire_many(2).await.unwrap();
        let mut heavy = Box::pin(limiter.acquire_many(3));
        assert!(futures::poll!(heavy.as_mut()).is_pending());
        let log = line(&limiter, &[1]).await;
        assert!(log.entries().is_empty());
        drop(heavy);
        settle().await;
        assert_eq!(log.entries(), [1]);
    });
}

#[test]
fn a_wait_leaves_no_trace_and_wakes_the_newest_waker() {
    let limiter = Limiter::new(1);
    let held = limiter.try_acquire().unwrap();
    let (old, new) = (CountingWaker::new(), CountingWaker::new());
    let mut wait = Box::pin(limiter.acquire());
    for waker in [&old, &new] {
        let waker = waker.waker();
        let mut cx = std::task::Context::from_waker(&waker);
        assert!(Future::poll(wait.as_mut(), &mut cx).is_pending());
    }
    assert_eq!(std::sync::Arc::strong_count(&old), 1);
    drop(held);
    assert_eq!((old.wakes(), new.wakes()), (0, 1));
    drop(wait);
    assert_eq!(std::sync::Arc::strong_count(&new), 1);
    assert!(limiter.try_acquire().is_some());
}

#[test]
fn a_waker_that_uses_the_limiter_does_not_deadlock() {
    struct Uses(Limiter, Count);
    impl std::task::Wake for Uses {
        fn wake(self: std::sync::Arc<Self>) {
            drop(self.0.try_acquire());
            self.0.set_limit(2);
            self.1.add();
        }
    }
    impl Drop for Uses {
        fn drop(&mut self) {
            drop(self.0.try_acquire());
        }
    }
    let (limiter, woken) = (Limiter::new(1), Count::new());
    let held = limiter.try_acquire().unwrap();
    let mut wait = Box::pin(limiter.acquire());
    {
        let waker =
            std::task::Waker::from(std::sync::Arc::new(Uses(limiter.clone(), woken.clone())));
        let mut cx = std::task::Context::from_waker(&waker);
        assert!(Future::poll(wait.as_mut(), &mut cx).is_pending());
    }
    drop(held);
    drop(wait);
    assert_eq!((woken.get(), limiter.in_flight()), (1, 0));
}

#[test]
fn a_lowered_limit_takes_nothing_away_and_a_raised_one_wakes_as_many_as_fit() {
    paused(async || {
        let limiter = Limiter::new(5);
        let mut held: Vec<_> = Vec::new();
        for _ in 0..5 {
            held.push(limiter.acquire().await.unwrap());
        }
        limiter.set_limit(2);
        assert_eq!((limiter.limit(), limiter.in_flight()), (2, 5));
        let log = line(&limiter, &[1; 6]).await;
        held.truncate(2);
        settle().await;
        assert!(log.entries().is_empty(), "two are out, the limit is two");
        limiter.set_limit(6);
        settle().await;
        assert_eq!((log.entries().len(), limiter.waiting()), (4, 2));
        held.clear();
        settle().await;
        assert_eq!(log.entries().len(), 6);
    });
}

#[test]
fn zero_is_refused_and_the_greatest_number_is_no_limit() {
    paused(async || {
        for make in [
            (|| drop(Limiter::new(0))) as fn(),
            || drop(Limiter::adaptive(0, 3)),
            || drop(KeyedLimiter::<u8>::new(0)),
            || Limiter::new(1).set_limit(0),
        ] {
            let thrown = caught(async { make() }).await.unwrap_err();
            assert!(thrown.contains("at least 1, not 0"), "{thrown}");
        }
        let reversed = caught(async { drop(Limiter::adaptive(3, 2)) })
            .await
            .unwrap_err();
        assert!(reversed.contains("3 and 2"));
        let limiter = Limiter::new(usize::MAX);
        assert_eq!(limiter.limit(), usize::MAX);
        let many: Vec<_> = (0..100)
            .map(|_| limiter.try_acquire_many(u32::MAX).unwrap())
            .collect();
        limiter.set_limit(1);
        assert!(limiter.try_acquire().is_none());
        limiter.set_limit(usize::MAX);
        assert!(limiter.try_acquire().is_some());
        drop(many);
        assert_eq!(limiter.in_flight(), 0);
    });
}

#[test]
fn a_wait_for_a_permit_ends_on_the_signal_and_a_free_one_is_given_all_the_same() {
    paused(async || {
        let (limiter, start) = (Limiter::new(1), Instant::now());
        let held = limiter.acquire().await.unwrap().into_owned();
        let ended = Scope::new()
            .grace(ms(1_000))
            .run(async |group: &TaskGroup| {
                let waiter = limiter.clone();
                group.spawn(async move {
                    let error = waiter.acquire().await.map(drop).unwrap_err();
                    assert!(error.to_string().contains("cancelled"), "{error}");
                    drop(held);
                    assert!(waiter.acquire().await.is_ok());
                });
                sleep(ms(30)).await;
                group.cancel();
                Ok(())
            })
            .await;
        assert!(ended.unwrap_err().forced().is_empty());
        assert_eq!((start.elapsed(), limiter.waiting()), (ms(30), 0));
    });
}

#[test]
fn a_deadline_of_the_group_ends_the_wait() {
    paused(async || {
        let (limiter, start) = (Limiter::new(1), Instant::now());
        let _held = limiter.acquire().await.unwrap();
        let ended = Scope::new()
            .deadline(start + ms(40))
            .grace(ms(1_000))
            .run(async |_: &TaskGroup| {
                assert!(limiter.acquire().await.is_err());
                assert_eq!(start.elapsed(), ms(40));
                Ok(())
            })
            .await;
        assert!(ended.unwrap_err().is_deadline_exceeded());
        assert!(timeout(ms(5), limiter.acquire()).await.is_err());
        assert_eq!(limiter.waiting(), 0);
    });
}

#[test]
fn a_forgotten_wait_costs_one_permit_and_no_more() {
    let limiter = Limiter::new(2);
    let held = limiter.try_acquire_many(2).unwrap();
    let mut wait = Box::pin(limiter.acquire());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(Future::poll(wait.as_mut(), &mut cx).is_pending());
    #[expect(clippy::mem_forget, reason = "what is tested")]
    std::mem::forget(wait);
    drop(held);
    assert_eq!(limiter.in_flight(), 1);
    assert!(limiter.try_acquire().is_some());
}

#[test]
fn keys_do_not_wait_for_one_another_and_are_forgotten_when_idle() {
    paused(async || {
        let (limiter, log, start) = (KeyedLimiter::new(1), Log::new(), Instant::now());
        for (i, key) in ["a", "a", "b", "a"].into_iter().enumerate() {
            let (limiter, log) = (limiter.clone(), log.clone());
            spawn(async move {
                let _permit = limiter.acquire(key).await.unwrap();
                log.push((i, start.elapsed().as_millis()));
                sleep(ms(10)).await;
            });
        }
        sleep(ms(5)).await;
        assert_eq!((limiter.keys(), limiter.in_flight(&"a")), (2, 1));
        assert!(limiter.try_acquire("a").is_none() && limiter.try_acquire("c").is_some());
        assert!(timeout(ms(1), limiter.acquire("a")).await.is_err());
        assert_eq!(limiter.waiting(&"a"), 2, "it has left the line");
        sleep(ms(100)).await;
        assert_eq!(log.entries(), [(0, 0), (2, 0), (1, 10), (3, 20)]);
        assert_eq!(limiter.keys(), 0);
    });
}

#[test]
fn the_limit_of_all_keys_is_changed_while_they_are_in_use() {
    paused(async || {
        let limiter = KeyedLimiter::new(1);
        let held = [limiter.try_acquire("a"), limiter.try_acquire("b")];
        let waits = ["a", "a", "b"].map(|key| {
            let limiter = limiter.clone();
            spawn(async move { limiter.acquire(key).await.unwrap() })
        });
        sleep(ms(1)).await;
        assert_eq!((limiter.waiting(&"a"), limiter.waiting(&"b")), (2, 1));
        limiter.set_limit(2);
        sleep(ms(1)).await;
        assert_eq!((limiter.waiting(&"a"), limiter.waiting(&"b")), (1, 0));
        limiter.set_limit(1);
        drop(held);
        sleep(ms(1)).await;
        assert_eq!((limiter.waiting(&"a"), limiter.in_flight(&"a")), (1, 1));
        let new = limiter.try_acquire("c");
        assert!(new.is_some() && limiter.try_acquire("c").is_none());
        for wait in waits {
            drop(wait.await.unwrap());
        }
        drop(new);
        assert_eq!(limiter.keys(), 0);
    });
}

#[test]
fn several_permits_of_a_key_are_taken_at_once() {
    paused(async || {
        let limiter = KeyedLimiter::new(3);
        let two = limiter.acquire_many("a", 2).await.unwrap();
        let (wide, later) = (limiter.clone(), limiter.clone());
        let wide = spawn(async move { wide.acquire_many("a", 2).await.unwrap() });
        sleep(ms(1)).await;
        // There is one, and it is not for who came later.
        let later = spawn(async move { later.acquire("a").await.unwrap() });
        sleep(ms(1)).await;
        assert_eq!((limiter.in_flight(&"a"), limiter.waiting(&"a")), (2, 2));
        drop(two);
        let both = (wide.await.unwrap(), later.await.unwrap());
        assert_eq!(limiter.in_flight(&"a"), 3);
        drop(both);
        assert_eq!((limiter.in_flight(&"a"), limiter.keys()), (0, 0));
        drop(limiter.acquire_many("a", 0).await.unwrap());
        assert_eq!(limiter.keys(), 0);
    });
}

#[test]
fn an_adaptive_limit_stays_between_its_bounds() {
    let limiter = Limiter::adaptive(2, 5);
    assert_eq!(limiter.limit(), 2);
    for _ in 0..50 {
        let all = limiter.try_acquire_many(limiter.limit() as u32).unwrap();
        all.succeeded();
    }
    assert_eq!(limiter.limit(), 5);
    for _ in 0..9 {
        limiter.try_acquire().unwrap().overloaded();
    }
    assert_eq!((limiter.limit(), limiter.in_flight()), (2, 0));
    limiter.set_limit(100);
    assert_eq!(limiter.limit(), 5);
}

#[test]
fn it_does_not_grow_while_less_than_half_is_in_use() {
    let limiter = Limiter::adaptive(4, 9);
    for _ in 0..100 {
        limiter.try_acquire().unwrap().succeeded();
    }
    assert_eq!(limiter.limit(), 4);
    for _ in 0..4 {
        let other = limiter.try_acquire().unwrap();
        limiter.try_acquire().unwrap().succeeded();
        drop(other);
    }
    assert_eq!(limiter.limit(), 5);
}

#[test]
fn ten_overloads_of_one_round_shrink_it_once() {
    let limiter = Limiter::adaptive(1, 100);
    limiter.set_limit(40);
    let round: Vec<_> = (0..10).map(|_| limiter.try_acquire().unwrap()).collect();
    let other = limiter.try_acquire().unwrap();
    for permit in round {
        permit.overloaded();
    }
    assert_eq!(limiter.limit(), 20);
    limiter.try_acquire().unwrap().overloaded();
    assert_eq!(limiter.limit(), 10);
    other.overloaded(); // of a round before
    assert_eq!(limiter.limit(), 10);
}

#[test]
fn a_permit_that_is_only_dropped_teaches_nothing() {
    let limiter = Limiter::adaptive(1, 100);
    limiter.set_limit(40);
    for _ in 0..1_000 {
        drop(limiter.try_acquire_many(40));
    }
    assert_eq!((limiter.limit(), limiter.in_flight()), (40, 0));
}

#[test]
fn shrunk_below_what_is_out_it_admits_nobody_and_aborts_nobody() {
    paused(async || {
        let limiter = Limiter::adaptive(1, 100);
        limiter.set_limit(4);
        let mut out: Vec<_> = (0..4).map(|_| limiter.try_acquire().unwrap()).collect();
        out.pop().unwrap().overloaded();
        assert_eq!((limiter.limit(), limiter.in_flight()), (2, 3));
        let log = line(&limiter, &[1]).await;
        out.pop();
        settle().await;
        assert!(log.entries().is_empty());
        out.pop();
        settle().await;
        assert_eq!(log.entries(), [1]);
    });
}

#[test]
fn growth_serves_waiters_in_order_and_only_as_many_as_fit() {
    paused(async || {
        let limiter = Limiter::adaptive(2, 100);
        let out: Vec<_> = (0..2).map(|_| limiter.try_acquire().unwrap()).collect();
        let log = line(&limiter, &[1; 5]).await;
        let mut out = out.into_iter();
        out.next().unwrap().succeeded();
        settle().await;
        assert_eq!(log.entries().len(), 1);
        out.next().unwrap().succeeded(); // two of two: one more
        settle().await;
        assert_eq!(
            (limiter.limit(), log.entries().len(), limiter.waiting()),
            (3, 3, 2)
        );
    });
}

#[test]
fn it_looks_at_no_clock() {
    // Nothing takes any time here, and no ratio of times is made.
    paused(async || {
        let limiter = Limiter::adaptive(1, 50);
        for _ in 0..10_000 {
            let permit = limiter.acquire_many(limiter.limit() as u32).await.unwrap();
            permit.succeeded();
        }
        assert_eq!(limiter.limit(), 50);
    });
}

#[test]
fn a_timeout_is_an_overload_and_a_callers_cancel_is_not() {
    paused(async || {
        let limiter = Limiter::adaptive(1, 100);
        limiter.set_limit(16);
        let attempt = async |limiter: &Limiter| {
            let permit = limiter.acquire().await.unwrap();
            match timeout(ms(10), std::future::pending::<()>()).await {
                Ok(()) => permit.succeeded(),
                Err(_) => permit.overloaded(),
            }
        };
        assert!(timeout(ms(5), attempt(&limiter)).await.is_err());
        assert_eq!((limiter.limit(), limiter.in_flight()), (16, 0));
        attempt(&limiter).await;
        assert_eq!(limiter.limit(), 8);
    });
}
