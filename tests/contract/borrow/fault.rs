//! What people and the rest of the world do to a borrowing scope.

use std::{
    future::{Future, pending, poll_fn},
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll, Wake, Waker},
    thread,
};

use ringfence::{Outcome, borrow_scope, scope};
use tokio::{sync::oneshot, task::yield_now, time::sleep};

use super::{Done, Group, fail, ms};
use crate::support::{
    Count, CountingWaker, Drops, OnDrop, PATIENCE, PanicOnDrop, Parked, Watchdog, current_thread,
    cut_at_every_await, every_runtime, multi_thread, paused, spawn, until,
};

fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

/// Pending until it was woken through the waker that it leaves in `place`.
async fn rung(place: &Mutex<Option<Waker>>, polls: &Count) {
    poll_fn(|cx| {
        polls.add();
        let before = place.lock().expect("no panic").replace(cx.waker().clone());
        match before {
            Some(_) => Poll::Ready(()),
            None => Poll::Pending,
        }
    })
    .await;
}

#[test]
fn a_leaked_borrowing_scope_runs_no_more() {
    let (polls, drops) = (Count::new(), Drops::new());
    let place = Arc::new(Mutex::new(None));
    let data = Box::new([1_u8; 64]);
    {
        let (place, polls, guard) = (place.clone(), polls.clone(), drops.guard());
        let (seen, mut leaked) = (polls.clone(), {
            let data = &data;
            Box::pin(borrow_scope(async move |group: Group<'_>| -> Done {
                group.spawn(async move {
                    let _guard = guard;
                    rung(&place, &polls).await;
                    assert_eq!(data.iter().sum::<u8>(), 64);
                });
                pending().await
            }))
        });
        assert!(poll_once(leaked.as_mut(), Waker::noop()).is_pending());
        assert_eq!(seen.get(), 1);
        #[expect(clippy::mem_forget, reason = "this is what is tested")]
        mem::forget(leaked);
    }
    drop(data); // what the child had borrowed
    let waker: Waker = place.lock().unwrap().take().unwrap();
    waker.wake_by_ref();
    waker.wake();
    assert_eq!(
        (polls.get(), drops.alive()),
        (1, 1),
        "leaked, and never polled again"
    );
}

#[test]
fn a_borrowing_scope_dropped_at_any_await_leaves_nothing() {
    paused(async || {
        let drops = &Drops::new();
        let cuts = cut_at_every_await(
            || {
                borrow_scope(async |group: Group<'_>| {
                    let spawner = group.spawner();
                    for wait in 0..4 {
                        let (guard, spawner) = (drops.guard(), spawner.clone());
                        group.spawn(async move {
                            sleep(ms(wait)).await;
                            let inner = drops.guard();
                            spawner.spawn(async move {
                                sleep(ms(1)).await;
                                drop(inner);
                            });
                            drop(guard);
                        });
                    }
                    group.spawn_background(Parked::new(&Count::new(), drops));
                    sleep(ms(2)).await;
                    Ok(())
                })
            },
            async |_| assert_eq!(drops.alive(), 0),
        )
        .await;
        assert!(cuts >= 5, "{cuts}");
    });
}

#[test]
fn a_borrowing_scope_moves_between_threads_and_loses_no_wake() {
    let _watchdog = Watchdog::start("moving between threads", PATIENCE);
    let places: Vec<_> = (0..64).map(|_| Mutex::new(None::<Waker>)).collect();
    let (polls, words) = (Count::new(), vec![1_usize; 64]);
    let task = CountingWaker::new();
    let waker = task.waker();
    let mut scope = Box::pin(borrow_scope(async |group: Group<'_>| {
        let mut handles = Vec::new();
        for (place, word) in places.iter().zip(&words) {
            let polls = &polls;
            handles.push(group.spawn(async move {
                rung(place, polls).await;
                Ok(*word)
            }));
        }
        let mut total = 0;
        for handle in handles {
            total += handle.await;
        }
        Ok(total)
    }));
    for place in &places {
        let waker = &waker;
        // Each poll on a thread of its own, and a wake from yet another one.
        let ready = thread::scope(|threads| {
            let scope = scope.as_mut();
            threads
                .spawn(move || poll_once(scope, waker).is_ready())
                .join()
                .unwrap()
        });
        assert!(!ready);
        let before = task.wakes();
        let ring = place.lock().unwrap().clone().unwrap();
        thread::spawn(move || ring.wake()).join().unwrap();
        assert_eq!(task.wakes(), before + 1);
    }
    let Poll::Ready(total) = poll_once(scope.as_mut(), &waker) else {
        panic!("all were rung");
    };
    assert_eq!(total.unwrap(), 64);
}

#[test]
fn wakes_from_many_threads_at_once_are_all_answered() {
    let _watchdog = Watchdog::start("many threads", PATIENCE);
    for runtime in [current_thread(), multi_thread(2)] {
        let sum =
            runtime.block_on(borrow_scope(async |group: Group<'_>| {
                let mut handles = Vec::new();
                let mut threads = Vec::new();
                for _ in 0..4 {
                    let mut senders = Vec::new();
                    for k in 0..500_usize {
                        let (sender, receiver) = oneshot::channel();
                        senders.push((sender, k));
                        handles.push(group.spawn(async move {
                            receiver.await.map_err(|error| error.to_string())
                        }));
                    }
                    threads.push(thread::spawn(move || {
                        for (sender, k) in senders {
                            sender.send(k).unwrap();
                        }
                    }));
                }
                let mut sum = 0;
                for handle in handles {
                    sum += handle.await;
                }
                threads
                    .into_iter()
                    .for_each(|thread| thread.join().unwrap());
                Ok(sum)
            }));
        assert_eq!(sum.unwrap(), 4 * 500 * 499 / 2);
    }
}

#[test]
fn a_waker_kept_from_an_ended_borrowing_child_wakes_nobody() {
    every_runtime(async || {
        let kept = Mutex::new(Vec::<Waker>::new());
        let (polls, drops) = (Count::new(), Drops::new());
        borrow_scope(async |group: Group<'_>| {
            for _ in 0..10 {
                let (kept, guard) = (&kept, drops.guard());
                let mut first = true;
                group.spawn(poll_fn(move |cx| {
                    let _guard = &guard;
                    kept.lock().unwrap().push(cx.waker().clone());
                    cx.waker().wake_by_ref();
                    if mem::replace(&mut first, false) {
                        Poll::Pending
                    } else {
                        Poll::Ready(())
                    }
                }));
            }
            until(|| group.is_empty()).await;
            assert_eq!(drops.alive(), 0, "a waker keeps nothing of its child");
            let parked = group.spawn(Parked::new(&polls, &drops)); // in a place of theirs
            until(|| polls.get() == 1).await;
            let wakers = mem::take(&mut *kept.lock().unwrap());
            let stranger = thread::spawn(move || {
                for _ in 0..1000 {
                    wakers.iter().for_each(Waker::wake_by_ref);
                }
                wakers
            });
            until(|| stranger.is_finished()).await;
            assert_eq!(polls.get(), 1, "not for those before it");
            parked.cancel();
            kept.lock().unwrap().extend(stranger.join().unwrap());
            Ok(())
        })
        .await
        .unwrap();
        kept.into_inner().unwrap().into_iter().for_each(Waker::wake);
    });
}

#[test]
fn spurious_polls_with_changing_wakers_lose_no_wake() {
    let place = Mutex::new(None);
    let polls = Count::new();
    let mut scope = pin!(borrow_scope(async |group: Group<'_>| {
        Ok(group
            .spawn(async {
                rung(&place, &polls).await;
                Ok(3)
            })
            .await)
    }));
    let wakers: Vec<_> = (0..10).map(|_| CountingWaker::new()).collect();
    for waker in &wakers {
        assert!(poll_once(scope.as_mut(), &waker.waker()).is_pending());
    }
    assert_eq!(polls.get(), 1, "nobody rang");
    let ring = place.lock().unwrap().clone().unwrap();
    ring.wake();
    let wakes: Vec<_> = wakers.iter().map(|waker| waker.wakes()).collect();
    assert_eq!(
        wakes,
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        "the last one is the task"
    );
    assert!(poll_once(scope.as_mut(), Waker::noop()).is_ready());
}

#[test]
fn panics_in_polls_and_destructors_at_once_never_abort() {
    every_runtime(async || {
        let drops = Drops::new();
        let thrown = AssertUnwindSafe(async {
            crate::support::caught(borrow_scope(async |group: Group<'_>| -> Done {
                for _ in 0..3 {
                    let guard = drops.guard();
                    group.spawn(async move {
                        let (_guard, _second) = (guard, PanicOnDropQuiet);
                        yield_now().await;
                        panic!("poll");
                    });
                    let guard = drops.guard();
                    group.spawn(async move {
                        let (_guard, _bomb) = (guard, PanicOnDrop("drop"));
                        pending::<()>().await;
                    });
                }
                let _body = PanicOnDrop("body");
                pending().await
            }))
            .await
        })
        .0
        .await;
        assert_eq!((thrown.unwrap_err().as_str(), drops.alive()), ("poll", 0));
    });
}

/// Panics in a destructor, but not while another panic is under way.
struct PanicOnDropQuiet;

impl Drop for PanicOnDropQuiet {
    fn drop(&mut self) {
        assert!(thread::panicking(), "drop");
    }
}

#[test]
fn a_child_whose_destructors_panic_when_the_scope_is_dropped_harms_no_other() {
    let drops = Drops::new();
    let mut dropped = Box::pin(borrow_scope(async |group: Group<'_>| -> Done {
        for _ in 0..3 {
            let guard = drops.guard();
            group.spawn(async move {
                let (_guard, _bomb) = (guard, PanicOnDrop("drop"));
                pending::<()>().await;
            });
        }
        let _body = (drops.guard(), PanicOnDrop("body"));
        pending().await
    }));
    assert!(poll_once(dropped.as_mut(), Waker::noop()).is_pending());
    assert_eq!(drops.alive(), 4);
    assert!(
        catch_unwind(AssertUnwindSafe(|| drop(dropped))).is_ok(),
        "they are observed"
    );
    assert_eq!(drops.alive(), 0);
}

#[test]
fn a_spawner_on_a_scoped_thread_races_with_the_end_and_loses_nothing() {
    let _watchdog = Watchdog::start("a race with the end", PATIENCE);
    let rounds = if cfg!(debug_assertions) { 300 } else { 3_000 };
    let (mut accepted, mut dropped_early) = (0, 0);
    for round in 0..rounds {
        let (drops, runs) = (Drops::new(), Count::new());
        let (give, take) = mpsc::channel();
        let in_time = thread::scope(|threads| {
            let (drops, runs) = (&drops, &runs);
            let stranger = threads.spawn(move || {
                let spawner: ringfence::BorrowSpawner<'_, String> = take.recv().unwrap();
                let mut spawned = 0;
                while spawner.is_open() && spawned < 100 {
                    let guard = drops.guard();
                    let outcome = spawner.try_spawn(async move {
                        let _guard = guard;
                        runs.add();
                    });
                    spawned += usize::from(outcome.is_ok());
                }
                spawned
            });
            let is_dropped = round % 2 == 0;
            let mut scope = Box::pin(borrow_scope(async move |group: Group<'_>| {
                give.send(group.spawner()).unwrap();
                if is_dropped {
                    return pending().await;
                }
                for _ in 0..round % 7 {
                    thread::yield_now();
                    yield_now().await;
                }
                Ok(())
            }));
            if is_dropped {
                // Dropped while the other thread may be in the middle of a spawn.
                assert!(poll_once(scope.as_mut(), Waker::noop()).is_pending());
                for _ in 0..round % 5 {
                    thread::yield_now();
                }
                drop(scope);
            } else {
                futures::executor::block_on(scope).unwrap();
            }
            let spawned = stranger.join().unwrap();
            if !is_dropped {
                assert_eq!(runs.get(), spawned, "who was accepted ran");
            }
            dropped_early += usize::from(is_dropped);
            spawned
        });
        accepted += in_time;
        assert_eq!(drops.alive(), 0, "round {round}");
    }
    assert!(accepted > 0 && dropped_early > 0);
}

#[test]
fn children_that_spawn_without_end_stop_when_one_fails() {
    every_runtime(async || {
        fn breed<'env>(spawner: ringfence::BorrowSpawner<'env, String>, seen: &'env Count) {
            let next = spawner.clone();
            spawner.spawn(async move {
                if seen.add() == 5_000 {
                    return fail("enough").await;
                }
                breed(next.clone(), seen);
                breed(next, seen);
                Ok(())
            });
        }
        let seen = Count::new();
        let error = borrow_scope(async |group: Group<'_>| {
            breed(group.spawner(), &seen);
            Ok(())
        })
        .await
        .unwrap_err();
        assert_eq!((error.len(), seen.get()), (1, 5_001));
    });
}

#[test]
fn a_group_that_is_moved_into_a_child_is_freed_with_the_scope() {
    let drops = Drops::new();
    let ended = futures::executor::block_on(borrow_scope(async |group: Group<'_>| {
        let group = Arc::new(group);
        let (inner, guard) = (group.clone(), drops.guard());
        group.spawn_background(async move {
            let _cycle = (inner, guard);
            pending::<()>().await;
        });
        Ok(())
    }));
    assert_eq!((ended.is_ok(), drops.alive()), (true, 0));
    let mut dropped = Box::pin(borrow_scope(async |group: Group<'_>| -> Done {
        let group = Arc::new(group);
        let (inner, guard) = (group.clone(), drops.guard());
        group.spawn(async move {
            let _cycle = (inner, guard);
            pending::<()>().await;
        });
        pending().await
    }));
    assert!(poll_once(dropped.as_mut(), Waker::noop()).is_pending());
    drop(dropped);
    assert_eq!(drops.alive(), 0);
}

#[test]
fn handles_of_a_dropped_borrowing_scope_say_cancelled() {
    every_runtime(async || {
        let (give, take) = oneshot::channel();
        let mut give = Some(give);
        let mut dropped = Box::pin(borrow_scope(async |group: Group<'_>| -> Done {
            let child = group.spawn(pending::<()>()).detached();
            assert!(give.take().unwrap().send(child).is_ok());
            pending().await
        }));
        assert!(futures::poll!(&mut dropped).is_pending());
        let child = take.await.unwrap();
        let waits = spawn(child);
        yield_now().await;
        drop(dropped);
        assert!(matches!(waits.await.unwrap(), Outcome::Cancelled(_)));
    });
}

#[test]
fn a_handle_that_is_dropped_while_it_waits_leaves_no_waker() {
    let waits = CountingWaker::new();
    let (give, take) = mpsc::channel();
    let mut scope = Box::pin(borrow_scope(async |group: Group<'_>| -> Done {
        give.send(group.spawn(pending::<()>()).detached()).unwrap();
        pending().await
    }));
    assert!(poll_once(scope.as_mut(), Waker::noop()).is_pending());
    let mut handle = take.recv().unwrap();
    assert!(poll_once(Pin::new(&mut handle), &waits.waker()).is_pending());
    assert_eq!(Arc::strong_count(&waits), 2);
    drop(handle);
    assert_eq!(Arc::strong_count(&waits), 1, "while the child is there");
    drop(scope);
    assert_eq!(waits.wakes(), 0);
}

/// A waker that panics when it is woken.
struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("wake");
    }
}

#[test]
fn a_task_whose_waker_panics_can_be_polled_on() {
    let place = Mutex::new(None);
    let polls = Count::new();
    let mut scope = pin!(borrow_scope(async |group: Group<'_>| {
        Ok(group
            .spawn(async {
                rung(&place, &polls).await;
                Ok(3)
            })
            .await)
    }));
    assert!(poll_once(scope.as_mut(), &Waker::from(Arc::new(Bomb))).is_pending());
    let ring = place.lock().unwrap().clone().unwrap();
    let thrown = catch_unwind(AssertUnwindSafe(|| ring.wake_by_ref()));
    assert!(
        thrown.is_err(),
        "whoever wakes it gets the panic of the task's own waker"
    );
    assert!(
        poll_once(scope.as_mut(), Waker::noop()).is_ready(),
        "and the wake was noted"
    );
}

/// A worker's default, or where nothing is optimized (some 10 KiB a level) twice that of a main thread.
const STACK: usize = if cfg!(debug_assertions) { 16 } else { 2 } << 20;

#[test]
fn a_thousand_borrowing_scopes_fit_inside_one_another() {
    type Inner<'a> = Pin<Box<dyn Future<Output = usize> + Send + 'a>>;
    fn nest(depth: usize) -> Inner<'static> {
        Box::pin(async move {
            if depth == 0 {
                return 0;
            }
            let inner = borrow_scope(async |group: Group<'_>| {
                Ok(group.spawn(async { Ok(nest(depth - 1).await) }).await)
            });
            1 + inner.await.unwrap()
        })
    }
    let stack = thread::Builder::new().stack_size(STACK);
    let depth = stack
        .spawn(|| futures::executor::block_on(nest(1_000)))
        .unwrap()
        .join();
    assert_eq!(depth.unwrap(), 1_000);
}

#[test]
fn a_borrowing_scope_in_a_cancelled_parallel_child_is_gone_before_its_owner() {
    every_runtime(async || {
        let drops = Drops::new();
        scope(async |group: &ringfence::TaskGroup<String>| {
            let (polls, counted, inside) = (Count::new(), drops.clone(), Count::new());
            let seen = polls.clone();
            let child = group.spawn(async move {
                let _after = OnDrop::new(move || {
                    inside.add();
                });
                borrow_scope(async |inner: Group<'_>| -> Done {
                    inner.spawn(Parked::new(&polls, &counted));
                    pending().await
                })
                .await
                .map_err(|error| error.to_string())
            });
            until(|| seen.get() == 1).await;
            assert!(child.cancel_and_wait().await.is_cancelled());
            assert_eq!(drops.alive(), 0);
            Ok(())
        })
        .await
        .unwrap();
    });
}
