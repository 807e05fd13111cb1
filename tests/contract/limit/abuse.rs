//! What users' code may do to a limit.

use std::{
    cell::Cell,
    future::Future,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    task::{Context, Wake, Waker},
};

use ringfence::{AcquireRate, KeyedLimiter, Limiter, Rate, RateLimiter, TaskGroup, fan_out, scope};

use super::ms;
use crate::support::{CountingWaker, message, paused, settle, single_thread, spawn};

#[test]
fn a_loop_of_waits_that_are_ready_lets_others_run() {
    single_thread(async || {
        let ended = scope(async |group: &TaskGroup| {
            group.spawn(async {
                let limiter = Limiter::new(1);
                loop {
                    drop(limiter.acquire().await);
                }
            });
            group.spawn(async {
                let limiter = KeyedLimiter::new(1);
                loop {
                    drop(limiter.acquire("key").await);
                }
            });
            group.spawn(async {
                let limiter = RateLimiter::new(Rate::per_second(1).burst(u32::MAX));
                while limiter.acquire().await.is_ok() {}
            });
            tokio::task::yield_now().await;
            group.cancel();
            Ok(())
        });
        assert!(ended.await.unwrap_err().is_cancelled());
    });
}

struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("waker");
    }
}

#[test]
fn a_waker_that_throws_costs_nobody_a_turn() {
    let limiter = Limiter::new(2);
    let both = limiter.try_acquire_many(2).expect("they are free");
    let (mut first, mut second) = (pin!(limiter.acquire()), pin!(limiter.acquire()));
    let (bomb, flag) = (Waker::from(Arc::new(Bomb)), CountingWaker::new());
    let pending = first.as_mut().poll(&mut Context::from_waker(&bomb));
    assert!(pending.is_pending());
    let waker = flag.waker();
    let pending = second.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(pending.is_pending());
    drop(both);
    assert_eq!(flag.wakes(), 1, "the second one is free to go");
}

#[test]
fn a_waker_that_throws_harms_nobody_at_a_rate() {
    paused(async || {
        let limiter = RateLimiter::new(Rate::per_second(10));
        limiter.try_acquire().unwrap();
        let waits = || Box::pin(limiter.acquire());
        let (mut first, mut second, mut third) = (waits(), waits(), waits());
        let bomb = Waker::from(Arc::new(Bomb));
        let poll = |wait: &mut Pin<Box<AcquireRate<'_>>>| {
            wait.as_mut().poll(&mut Context::from_waker(&bomb))
        };
        assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        assert!(poll(&mut third).is_pending());
        limiter.set_rate(Rate::per_second(5));
        assert!(poll(&mut second).is_pending());
        drop(first); // calls the second
        tokio::time::advance(ms(200)).await;
        assert!(poll(&mut third).is_pending());
        assert!(poll(&mut second).is_ready(), "it calls the third");
        assert_eq!(limiter.waiting(), 1);
    });
}

/// Polls a wait once in a group, whose end it survives, and then gives it to a task of its own.
async fn moved<F: Future + Send + 'static>(wait: F) -> tokio::task::JoinHandle<F::Output>
where
    F::Output: Send,
{
    let mut wait = Box::pin(wait);
    scope(async |_: &TaskGroup| {
        assert!(futures::poll!(&mut wait).is_pending());
        Ok(())
    })
    .await
    .expect("nobody fails");
    spawn(wait)
}

#[test]
fn a_wait_that_goes_to_another_task_ends_on_the_signal_of_that_alone() {
    paused(async || {
        let limiter: &Limiter = Box::leak(Box::new(Limiter::new(1)));
        let rate: &RateLimiter = Box::leak(Box::new(RateLimiter::new(Rate::per_second(10))));
        rate.try_acquire().unwrap();
        let permit = limiter.try_acquire();
        let one = moved(limiter.acquire()).await;
        let two = moved(rate.acquire()).await;
        let items = fan_out([30, 20]).local();
        let three = moved(items.for_each(|n| tokio::time::sleep(ms(n)))).await;
        settle().await;
        drop(permit);
        assert!(one.await.unwrap().is_ok());
        assert!(two.await.unwrap().is_ok());
        assert!(three.await.unwrap().is_ok());
    });
}

static LIMITER: OnceLock<KeyedLimiter<Key>> = OnceLock::new();

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key(u8);

impl Drop for Key {
    fn drop(&mut self) {
        LIMITER.get().map(KeyedLimiter::keys);
    }
}

#[test]
fn a_key_may_use_its_limiter_when_it_is_dropped() {
    let limiter = LIMITER.get_or_init(|| KeyedLimiter::new(2));
    let permits = (limiter.try_acquire(Key(1)), limiter.try_acquire(Key(1)));
    assert_eq!(limiter.in_flight(&Key(1)), 2);
    drop(permits);
    assert_eq!(limiter.keys(), 0);
}

thread_local! {
    static THROWS: Cell<bool> = const { Cell::new(false) };
}

#[derive(Clone, PartialEq, Eq)]
struct Throwing;

impl std::hash::Hash for Throwing {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {
        assert!(!THROWS.get(), "hash");
    }
}

#[test]
fn a_key_whose_hash_throws_keeps_no_permit_and_ends_no_process() {
    let limiter = KeyedLimiter::new(2);
    let permits = [(); 2].map(|()| limiter.try_acquire(Throwing));
    assert!(limiter.try_acquire(Throwing).is_none());
    THROWS.set(true);
    let thrown = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let _permits = permits;
        panic!("while it holds them");
    }));
    THROWS.set(false);
    assert_eq!(message(&*thrown.unwrap_err()), "while it holds them");
    assert_eq!(limiter.in_flight(&Throwing), 0);
    assert!(limiter.try_acquire(Throwing).is_some());
}
