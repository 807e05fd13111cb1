//! What users' code may do to a limit.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, OnceLock},
    task::{Context, Wake, Waker},
};

use ringfence::{KeyedLimiter, Limiter, Rate, RateLimiter, TaskGroup, scope};

use crate::support::{CountingWaker, single_thread};

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

#[test]
fn a_waker_that_throws_costs_nobody_a_turn() {
    struct Bomb;
    impl Wake for Bomb {
        fn wake(self: Arc<Self>) {
            panic!("waker");
        }
    }
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
