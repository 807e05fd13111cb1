//! Inputs that block, runtimes that go, items that shield themselves, many items: what holds nobody up, and costs nothing.

use std::future::pending;
use std::sync::mpsc;
use std::time::Duration;

use ringfence::{CancelReason, Cause, Limiter, Progress, TaskGroup, fan_out, root, scope, shield};
use tokio::time::{Instant, sleep};

use super::{Fail, good, ms};
use crate::support::{
    Count, Drops, PATIENCE, Watchdog, caught, current_thread, every_runtime, multi_thread, paused,
    settle, spawn, until,
};

#[test]
fn results_are_taken_while_the_input_blocks() {
    let _watchdog = Watchdog::start("who feeds the input takes the results", PATIENCE);
    multi_thread(2).block_on(async {
        let (tx, rx) = mpsc::channel::<u32>();
        tx.send(0).unwrap();
        let mut tx = Some(tx);
        let mut results = fan_out(rx).limit(4).results(|n| async move { good(n) });
        let mut taken = 0;
        while let Some(result) = results.next().await {
            let n = result.unwrap();
            taken += 1;
            if n < 50 {
                tx.as_ref().unwrap().send(n + 1).unwrap();
            } else {
                tx = None;
            }
        }
        assert_eq!(taken, 51);
    });
}

#[test]
fn cancelled_while_its_input_blocks_it_holds_up_no_other_thread() {
    let _watchdog = Watchdog::start("an input that blocks, and a cancel", PATIENCE);
    let (go, wait) = mpsc::channel::<()>();
    let (asked, drops) = (Count::new(), Drops::new());
    let (seen, mut n) = (asked.clone(), 0);
    let input = std::iter::from_fn(move || {
        n += 1;
        if n > 4 {
            seen.add();
            wait.recv().ok(); // the thread stands still here
            return None;
        }
        Some(n)
    });
    let runtime = multi_thread(2);
    runtime.block_on(async {
        let inner = drops.clone();
        let work = move |_| super::parked(&inner);
        let items = spawn(async move { fan_out(input).limit(8).for_each(work).await });
        until(|| asked.get() == 1 && drops.alive() == 4).await;
        items.abort();
        items.await.unwrap_err();
        // The items are dropped by the other thread, and that has turns left.
        until(|| drops.alive() == 0).await;
        spawn(async move { drop(go) }).await.unwrap();
        root().wait(PATIENCE).await.unwrap();
    });
}

#[test]
fn a_blocking_input_costs_the_other_workers_no_polls() {
    let _watchdog = Watchdog::start("an input that blocks", PATIENCE);
    let runtime = multi_thread(2);
    let metrics = runtime.metrics();
    let (go, wait) = mpsc::channel::<()>();
    let (asked, ended) = (Count::new(), Count::new());
    let (seen, mut n) = (asked.clone(), 0);
    let input = std::iter::from_fn(move || {
        n += 1;
        if n == 20 {
            seen.add();
            wait.recv().ok();
        }
        (n < 40).then_some(n)
    });
    runtime.block_on(async {
        let (inner, meeting) = (ended.clone(), Count::new());
        let work = move |n| {
            inner.add();
            let meeting = meeting.clone();
            async move {
                if n >= 20 {
                    // None of them has left meanwhile: eight at a time run again.
                    meeting.add();
                    until(|| meeting.get() >= 8).await;
                }
            }
        };
        let items = spawn(fan_out(input).limit(8).for_each(work));
        until(|| asked.get() == 1 && ended.get() == 19).await;
        // The other thread goes to sleep: an odd number of parks and unparks. Who is busy looking never does.
        let sleeps = || (0..2).any(|worker| metrics.worker_park_unpark_count(worker) % 2 == 1);
        until(sleeps).await;
        drop(go);
        items.await.unwrap().unwrap();
        assert_eq!(ended.get(), 39);
    });
}

#[test]
fn items_that_shield_themselves_do_not_outlast_a_force_one_after_the_other() {
    paused(async || {
        for is_local in [false, true] {
            let (started, start) = (Count::new(), Instant::now());
            let seen = started.clone();
            let ended = scope(async |group: &TaskGroup<Fail>| {
                let inner = seen.clone();
                group.spawn(async move {
                    let work = move |_: u64| {
                        inner.add();
                        shield(ms(1_000), sleep(ms(10)))
                    };
                    let fan = fan_out(0..).limit(2);
                    let ended = if is_local {
                        fan.local().for_each(work).await
                    } else {
                        fan.for_each(work).await
                    };
                    ended.map_err(Fail::other)
                });
                sleep(ms(5)).await;
                group.cancel();
                Ok(())
            });
            let limit = Duration::from_secs(100);
            let ended = ringfence::timeout(limit, ended).await;
            assert!(ended.expect("in time").unwrap_err().is_cancelled());
            assert_eq!((start.elapsed(), started.get()), (ms(10), 2));
        }
    });
}

#[test]
fn workers_whose_runtime_is_shut_down_are_no_success() {
    let _watchdog = Watchdog::start("a runtime that is shut down", PATIENCE);
    // With items that were not taken; or all were: they run, or wait for a permit, or for their key.
    for (n, running, permits) in [(9, 2, 2), (2, 2, 2), (2, 1, 1), (1, 0, 0), (3, 1, 9)] {
        let (there, here) = (current_thread(), current_thread());
        let (started, limiter) = (Count::new(), Limiter::new(2));
        let held = (permits < 2).then(|| limiter.try_acquire_many(2 - permits));
        let inner = started.clone();
        let work = move |_| {
            inner.add();
            pending::<()>()
        };
        let fan = fan_out(0..n).limit(2).limiter(&limiter);
        let fan = fan.key_if(move |_| (permits == 9).then_some("one"));
        let mut items = Box::pin(fan.for_each(work));
        there.block_on(async {
            assert!(futures::poll!(items.as_mut()).is_pending());
            settle().await;
            assert_eq!(started.get(), running);
        });
        drop(there);
        let error = here.block_on(items).unwrap_err();
        let gone = CancelReason::RuntimeGone;
        assert!(
            matches!(error.cause(), Cause::Cancelled(reason) if *reason == gone),
            "{error:?}"
        );
        drop(held);
    }
}

#[test]
fn one_progress_for_several_fan_outs_shows_their_sum() {
    every_runtime(async || {
        let progress = Progress::new();
        let fans: Vec<_> = (0..8)
            .map(|_| spawn(fan_out(0..100).progress(&progress).for_each(async |_| {})))
            .collect();
        for fan in fans {
            fan.await.unwrap().unwrap();
        }
        assert_eq!((progress.total(), progress.done()), (Some(800), 800));
        let endless = fan_out(counted_to(5)).progress(&progress);
        endless.for_each(async |_| {}).await.unwrap();
        assert_eq!((progress.total(), progress.done()), (Some(800), 805));
    });
}

/// Does not know how many there are.
fn counted_to(n: usize) -> impl Iterator<Item = usize> + Send {
    let mut left = n;
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        Some(left)
    })
}

#[test]
fn the_local_form_refuses_what_only_a_group_has() {
    paused(async || {
        let scoped = caught(async { drop(fan_out(0..3).scope(ringfence::Scope::new()).local()) });
        assert!(scoped.await.unwrap_err().contains("`scope`"));
        let buffered = caught(async { drop(fan_out(0..3).buffer(7).local()) });
        assert!(buffered.await.unwrap_err().contains("`buffer`"));
    });
}

/// What a run on one thread allocates: how often, and how much at most at a time.
fn allocations(run: impl AsyncFnOnce()) -> (u64, u64) {
    let runtime = current_thread();
    let info = allocation_counter::measure(|| runtime.block_on(run()));
    (info.count_total, info.bytes_max)
}

#[test]
fn collect_makes_room_for_all_at_once_where_the_input_knows_how_many() {
    let bytes = |is_local: bool, is_known: bool, n: usize| {
        let runtime = current_thread();
        let run = async || {
            let input = (0..n).filter(|_| true);
            let work = async |n: usize| good(n);
            let all = match (is_local, is_known) {
                (false, true) => fan_out(0..n).limit(2).collect(work).await,
                (false, false) => fan_out(input).limit(2).collect(work).await,
                (true, true) => fan_out(0..n).limit(2).local().collect(work).await,
                (true, false) => fan_out(input).limit(2).local().collect(work).await,
            };
            assert_eq!(all.unwrap().len(), n);
        };
        allocation_counter::measure(|| runtime.block_on(run())).bytes_total
    };
    for is_local in [false, true] {
        let more = 48_000 * size_of::<usize>() as u64;
        let known = bytes(is_local, true, 50_000) - bytes(is_local, true, 2_000);
        assert!(known < more + 4_096, "{known}");
        let unknown = bytes(is_local, false, 50_000) - bytes(is_local, false, 2_000);
        assert!(unknown > more + 4_096, "{unknown}");
    }
}

#[test]
fn an_item_allocates_nothing_however_many_there_are() {
    let limiter = Limiter::new(3);
    let each = |n: u64| {
        allocations(async move || {
            let work = |n: u64| async move {
                if n % 8 == 0 {
                    tokio::task::yield_now().await;
                }
            };
            fan_out(0..n).limit(8).for_each(work).await.unwrap();
        })
    };
    let fold = |n: u64| {
        allocations(async move || {
            let fan = fan_out(0..n).limit(8);
            let sum = fan
                .fold(0, |n| async move { good(n) }, |sum, n| sum + n)
                .await;
            assert_eq!(sum.unwrap(), n * (n - 1) / 2);
        })
    };
    let local = |n: u64| {
        allocations(async move || {
            let fan = fan_out(0..n).limit(8).local();
            let work = async |n: u64| {
                if n % 8 == 0 {
                    tokio::task::yield_now().await;
                }
            };
            fan.for_each(work).await.unwrap();
        })
    };
    let limited = |n: u64| {
        let limiter = limiter.clone();
        allocations(async move || {
            let fan = fan_out(0..n)
                .limit(8)
                .weighted(&limiter, |n| (n % 3) as u32);
            let work = |_| async { tokio::task::yield_now().await };
            fan.for_each(work).await.unwrap();
        })
    };
    let runs: [&dyn Fn(u64) -> (u64, u64); 4] = [&each, &fold, &local, &limited];
    for (form, run) in runs.iter().enumerate() {
        let (few, many) = (run(2_000), run(50_000));
        // A list that grows once more, late, is no cost of an item.
        assert!(many.0 <= few.0 + 4, "form {form}: {few:?}, {many:?}");
        assert!(many.1 <= few.1 + 4_096, "form {form}: {few:?}, {many:?}");
    }
}
