//! Who is polled, when, and how often.

use std::{
    future::{Future, pending, poll_fn},
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, Waker},
};

use ringfence::{Scope, borrow_scope};
use tokio::{sync::mpsc, task::yield_now};

use super::{Group, ms};
use crate::support::{
    Count, CountingWaker, Log, current_thread, every_runtime, paused, spawn, until,
};

/// Is woken as soon as it was polled, for so many times; counts its polls.
async fn always_ready(times: usize, polls: &Count) {
    let mut left = times;
    poll_fn(|cx| {
        polls.add();
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn ten_thousand_ready_children_starve_nobody() {
    every_runtime(async || {
        let (crowd, sibling, body) = (Count::new(), Count::new(), Count::new());
        let stranger = Count::new();
        let counted = stranger.clone();
        let other = spawn(async move {
            loop {
                counted.add();
                yield_now().await;
            }
        });
        borrow_scope(async |group: Group<'_>| {
            for _ in 0..10_000 {
                group.spawn_background(always_ready(usize::MAX, &crowd));
            }
            let child = group.spawn(always_ready(5, &sibling));
            let before = crowd.get();
            child.await;
            let rounds = (crowd.get() - before) / 10_000;
            assert!((4..=7).contains(&rounds), "{rounds} rounds for six polls");
            // The body takes its turn between turns of the children, not after a whole round.
            let before = crowd.get();
            for _ in 0..100 {
                body.add();
                yield_now().await;
            }
            assert!(crowd.get() - before <= 101 * 128);
            until(|| stranger.get() > 100).await;
            Ok(())
        })
        .await
        .unwrap();
        other.abort();
    });
}

#[test]
fn a_body_that_is_always_ready_starves_no_child() {
    every_runtime(async || {
        let polls = Count::new();
        borrow_scope(async |group: Group<'_>| {
            let child = group.spawn(always_ready(50, &polls));
            let spun = Count::new();
            poll_fn(|cx| {
                spun.add();
                cx.waker().wake_by_ref();
                if child.is_finished() {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            assert!(spun.get() <= 60, "{}", spun.get());
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn one_poll_of_the_scope_is_bounded() {
    let polls = Count::new();
    let mut scope = pin!(borrow_scope(async |group: Group<'_>| {
        for _ in 0..1000 {
            group.spawn(always_ready(1, &polls));
        }
        Ok(())
    }));
    let task = CountingWaker::new();
    let waker = task.waker();
    let mut cx = Context::from_waker(&waker);
    for turn in 1..=15 {
        let before = polls.get();
        assert!(scope.as_mut().poll(&mut cx).is_pending());
        assert!(polls.get() - before <= 128);
        assert_eq!(task.wakes(), turn, "it yields, and asks for another turn");
    }
    assert!(scope.as_mut().poll(&mut cx).is_ready());
    assert_eq!(polls.get(), 2000);
}

#[test]
fn each_child_is_polled_when_it_was_woken_and_not_otherwise() {
    // Reverse order, so that a search from the front would show.
    let wakers: Vec<_> = (0..5_000)
        .map(|_| std::sync::Mutex::new(None::<Waker>))
        .collect();
    let (polls, ended) = (Count::new(), Count::new());
    let mut scope = pin!(borrow_scope(async |group: Group<'_>| {
        for place in &wakers {
            let (polls, ended) = (&polls, &ended);
            group.spawn(async move {
                poll_fn(|cx| {
                    polls.add();
                    match place.lock().unwrap().replace(cx.waker().clone()) {
                        Some(_) => Poll::Ready(()),
                        None => Poll::Pending,
                    }
                })
                .await;
                ended.add();
            });
        }
        let bodies = Count::new();
        poll_fn(|_| {
            assert_eq!(bodies.add(), 0, "the body is not polled for its children");
            if ended.get() == 0 {
                Poll::<()>::Pending
            } else {
                Poll::Pending
            }
        })
        .await;
        Ok(())
    }));
    let task = CountingWaker::new();
    let waker = task.waker();
    let mut cx = Context::from_waker(&waker);
    while polls.get() < wakers.len() {
        assert!(scope.as_mut().poll(&mut cx).is_pending());
    }
    for (done, place) in wakers.iter().rev().enumerate() {
        let before = task.wakes();
        place.lock().unwrap().as_ref().unwrap().wake_by_ref();
        assert_eq!(task.wakes(), before + 1);
        assert!(scope.as_mut().poll(&mut cx).is_pending());
        assert_eq!(
            (ended.get(), polls.get()),
            (done + 1, wakers.len() + done + 1)
        );
    }
}

#[test]
fn a_childs_wake_reaches_a_task_that_sleeps_and_only_then() {
    let stored = std::sync::Mutex::new(None::<Waker>);
    let mut scope = pin!(borrow_scope(async |group: Group<'_>| {
        group.spawn(poll_fn(|cx| {
            *stored.lock().unwrap() = Some(cx.waker().clone());
            Poll::<()>::Pending
        }));
        Ok(())
    }));
    let task = CountingWaker::new();
    let waker = task.waker();
    let mut cx = Context::from_waker(&waker);
    assert!(scope.as_mut().poll(&mut cx).is_pending());
    let child = stored.lock().unwrap().clone().unwrap();
    for _ in 0..3 {
        child.wake_by_ref();
    }
    assert_eq!(task.wakes(), 1, "three wakes before one poll are one");
    assert!(scope.as_mut().poll(&mut cx).is_pending());
    child.wake_by_ref();
    assert_eq!(task.wakes(), 2);
}

#[test]
fn a_spawn_from_outside_reaches_a_task_that_sleeps_and_only_then() {
    let runs = Count::new();
    let kept = std::sync::Mutex::new(None);
    let mut scope = pin!(borrow_scope(async |group: Group<'_>| {
        *kept.lock().unwrap() = Some(group.spawner());
        pending::<Result<(), _>>().await
    }));
    let task = CountingWaker::new();
    let waker = task.waker();
    let mut cx = Context::from_waker(&waker);
    assert!(scope.as_mut().poll(&mut cx).is_pending());
    let spawner = kept.lock().unwrap().take().expect("the body has run");
    for round in 1..=3 {
        for _ in 0..2 {
            spawner.spawn(async {
                runs.add();
            });
        }
        assert_eq!(task.wakes(), round, "two before one poll are one");
        assert!(scope.as_mut().poll(&mut cx).is_pending());
        assert_eq!((runs.get(), task.wakes()), (2 * round, round));
    }
}

#[test]
fn a_child_is_two_allocations_and_uses_the_waker_of_one_before_it() {
    #[derive(Clone, Copy, Debug)]
    enum Child {
        Ready,
        Waits,
        Forgotten,
    }
    // What so many children allocate that come and go one after another.
    let allocations = |how: Child, children: usize| {
        let polls = Count::new();
        let allocated = allocation_counter::measure(|| {
            let scope = borrow_scope(async |group: Group<'_>| {
                for n in 0..children {
                    match how {
                        Child::Ready => group.spawn(async { Ok(()) }).await,
                        Child::Waits => group.spawn(yield_now()).await,
                        // It has waited, and nobody has its handle any more when it ends.
                        Child::Forgotten => {
                            let handle = group.spawn(always_ready(1, &polls));
                            until(|| polls.get() > 2 * n).await;
                            drop(handle);
                            until(|| group.is_empty()).await;
                        }
                    }
                }
                Ok(())
            });
            futures::executor::block_on(scope).unwrap();
        });
        allocated.count_total
    };
    for how in [Child::Ready, Child::Waits, Child::Forgotten] {
        allocations(how, 1); // what is made once for all
        let few = allocations(how, 100);
        assert_eq!(allocations(how, 1100) - few, 2 * 1000, "{how:?}");
    }
}

#[test]
fn a_crowd_that_is_gone_leaves_no_memory_behind() {
    const CROWD: usize = 50_000;
    let ended = Count::new();
    let kept = std::sync::Mutex::new(None);
    let mut scope = pin!(borrow_scope(async |group: Group<'_>| {
        *kept.lock().unwrap() = Some(group.spawner());
        pending::<Result<(), _>>().await
    }));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(scope.as_mut().poll(&mut cx).is_pending());
    let spawner = kept.lock().unwrap().take().expect("the body has run");
    let memory = allocation_counter::measure(|| {
        // All in one round, which has all of them wait; then all of them are woken at once. A few more rounds look after what is
        // empty by then.
        for crowd in [CROWD, 1, 1, 1, 1] {
            let before = ended.get();
            for _ in 0..crowd {
                spawner.spawn(async {
                    yield_now().await;
                    ended.add();
                });
            }
            while ended.get() - before < crowd {
                assert!(scope.as_mut().poll(&mut cx).is_pending());
            }
        }
    });
    let kept = memory.bytes_current;
    assert!(memory.bytes_max > 8_000_000, "{memory:?}");
    assert!(kept < 256_000, "{kept} bytes are kept for nobody");
}

#[test]
fn children_that_spend_the_tasks_budget_let_the_others_go_on() {
    every_runtime(async || {
        let (sender, mut receiver) = mpsc::channel::<usize>(100_000);
        (0..100_000).for_each(|n| sender.try_send(n).unwrap());
        let taken = AtomicUsize::new(0);
        borrow_scope(async |group: Group<'_>| {
            group.spawn_background(async {
                while receiver.recv().await.is_some() {
                    taken.fetch_add(1, Ordering::SeqCst);
                }
                pending::<()>().await;
            });
            let (other, mut others) = mpsc::channel(500);
            (0..500).for_each(|n| other.try_send(n).unwrap());
            group.spawn(async move {
                for _ in 0..500 {
                    others.recv().await.unwrap();
                }
            });
            Ok(())
        })
        .await
        .unwrap();
        let taken = taken.load(Ordering::SeqCst);
        assert!(
            taken < 100_000,
            "half of the turns each, not one after the other: {taken}"
        );
        drop(sender);
    });
}

#[test]
fn joining_many_children_in_the_body_takes_linear_time() {
    // Handles of tokio tasks in one set, polled with no budget left, are asked over and over: this is the same shape.
    let (n, polls) = (50_000, Count::new());
    let sum = current_thread().block_on(borrow_scope(async |group: Group<'_>| {
        let handles: Vec<_> = (0..n)
            .map(|k| {
                let polls = &polls;
                group.spawn(async move {
                    always_ready(1, polls).await;
                    Ok(k)
                })
            })
            .collect();
        Ok(futures::future::join_all(handles)
            .await
            .into_iter()
            .sum::<usize>())
    }));
    assert_eq!((sum.unwrap(), polls.get()), (n * (n - 1) / 2, 2 * n));
}

#[test]
fn timers_of_many_children_fire_in_their_order() {
    paused(async || {
        let log = Log::new();
        Scope::new()
            .run_borrow(async |group: Group<'_>| {
                for wait in (1..=500).rev() {
                    let log = &log;
                    group.spawn(async move {
                        tokio::time::sleep(ms(wait)).await;
                        log.push(wait);
                    });
                }
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(log.entries(), (1..=500).collect::<Vec<_>>());
    });
}
