//! Wakers that panic, are kept, change, or meddle.

use std::{
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, OnceLock},
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use futures::poll;
use ringfence::{
    BorrowGroup, CancelReason, Outcome, OutcomeHandle, Ready, Slots, Spawner, StartError,
    borrow_scope, move_on_after, root, scope, timeout,
};
use tokio::{runtime::Runtime, sync::oneshot, task::yield_now, time::sleep};

use super::{Done, Group, Notes, ms, observed, scaled};
use crate::support::{
    Count, CountingWaker, Drops, PATIENCE, Parked, Watchdog, current_thread, every_runtime,
    multi_thread, paused, settle, until,
};

/// A waker that panics: when it is woken, or when it is dropped.
struct Bomb {
    on_wake: bool,
}

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        assert!(!self.on_wake, "wake");
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(self.on_wake || thread::panicking(), "drop");
    }
}

#[test]
fn a_waker_that_panics_harms_no_other_waiter() {
    fn poll_with<F: Future>(future: Pin<&mut F>, waker: &Waker) {
        assert!(future.poll(&mut Context::from_waker(waker)).is_pending());
    }
    for on_wake in [true, false] {
        paused(async || {
            let (notes, good) = (Notes::default(), CountingWaker::new());
            let bomb = || Waker::from(Arc::new(Bomb { on_wake }));
            // Those who wait for a token.
            let mut tokens = Vec::new();
            observed(&notes)
                .run(async |group: &Group| -> Done {
                    tokens.extend((0..4).map(|_| Box::pin(group.token().cancelled())));
                    for (place, wait) in tokens.iter_mut().enumerate() {
                        let waker = if place % 2 == 0 { bomb() } else { good.waker() };
                        poll_with(wait.as_mut(), &waker);
                        if !on_wake && place % 2 == 0 {
                            // The clone inside is the last one now.
                            drop(waker);
                        }
                    }
                    group.cancel();
                    Ok(())
                })
                .await
                .unwrap_err();
            assert_eq!(good.wakes(), 2);
            assert_eq!(notes.displaced.entries().len(), 2);
            // The one who waits for the scope, and those who wait for the root.
            let drops = Drops::new();
            let mut waits: Vec<_> = (0..4)
                .map(|_| {
                    let root = root();
                    Box::pin(async move { root.wait(Duration::MAX).await })
                })
                .collect();
            let mut dropped = Box::pin(observed(&notes).run(async |group: &Group| -> Done {
                group.spawn(Parked::new(&Count::new(), &drops));
                group.spawn(async { Err::<(), _>("woke".to_owned()) });
                pending().await
            }));
            poll_with(dropped.as_mut(), &bomb());
            settle().await;
            assert_eq!(
                drops.alive(),
                0,
                "the panic of its waker did not stop the group"
            );
            drop(dropped);
            let mut orphan = Box::pin(scope(async |group: &Group| -> Done {
                group.spawn(Parked::new(&Count::new(), &drops));
                pending().await
            }));
            assert!(poll!(&mut orphan).is_pending());
            settle().await;
            drop(orphan);
            for (place, wait) in waits.iter_mut().enumerate() {
                let waker = if place % 2 == 0 { bomb() } else { good.waker() };
                poll_with(wait.as_mut(), &waker);
            }
            settle().await;
            assert_eq!((drops.alive(), root().orphans()), (0, 0));
            assert_eq!(good.wakes(), 4);
            // Those who wait for children in one task.
            let (notes, mut handles) = (Notes::default(), Vec::new());
            let mut lent = Box::pin(observed(&notes).run_borrow(
                async |group: BorrowGroup<'_, String>| -> Done {
                    for _ in 0..4 {
                        handles.push(Box::pin(group.spawn(yield_now()).detached()));
                    }
                    for (place, handle) in handles.iter_mut().enumerate() {
                        let waker = if place % 2 == 0 { bomb() } else { good.waker() };
                        poll_with(handle.as_mut(), &waker);
                        if !on_wake && place % 2 == 0 {
                            drop(waker);
                        }
                    }
                    Ok(())
                },
            ));
            (&mut lent).await.expect("nobody fails");
            assert_eq!(good.wakes(), 6);
            assert_eq!(notes.displaced.entries().len(), 2);
        });
    }
}

#[test]
fn a_waker_kept_from_an_ended_child_is_harmless() {
    let _watchdog = Watchdog::start("a waker kept", PATIENCE);
    for runtime in [current_thread(), multi_thread(2)] {
        let (polls, drops) = (Count::new(), Drops::new());
        let kept = Arc::new(OnceLock::<Waker>::new());
        let value = runtime.block_on(scope(async |group: &Group| {
            let (kept_inside, polls, guard) = (kept.clone(), polls.clone(), drops.guard());
            group.spawn(poll_fn(move |cx| {
                let _guard = &guard;
                polls.add();
                kept_inside.get_or_init(|| cx.waker().clone());
                Poll::Ready(())
            }));
            until(|| group.is_empty()).await;
            assert_eq!(drops.alive(), 0, "the waker does not keep the future");
            let waker = kept.get().unwrap().clone();
            let stranger = thread::spawn(move || {
                (0..scaled(1_000_000, 50_000)).for_each(|_| waker.wake_by_ref());
            });
            let child = group.spawn(async { Ok(7) });
            until(|| stranger.is_finished()).await;
            stranger.join().unwrap();
            Ok(child.await)
        }));
        assert_eq!((value.unwrap(), polls.get()), (7, 1));
        kept.get().unwrap().wake_by_ref();
    }
}

/// Polls a future ten times with a new waker each time; then has it made ready, and polls it to its output.
async fn poll_spuriously<T>(future: impl Future<Output = T>, ready: impl FnOnce()) -> T {
    let mut future = pin!(future);
    let wakers: Vec<_> = (0..10).map(|_| CountingWaker::new()).collect();
    for waker in &wakers {
        let polled = future
            .as_mut()
            .poll(&mut Context::from_waker(&waker.waker()));
        assert!(polled.is_pending());
        settle().await;
    }
    let wakes = || wakers.iter().map(|waker| waker.wakes()).collect::<Vec<_>>();
    assert_eq!(wakes(), [0; 10], "there was no need");
    ready();
    sleep(ms(5)).await;
    assert_eq!(wakes()[..9], [0; 9], "only the last one");
    assert!(wakes()[9] > 0);
    future.await
}

#[test]
fn spurious_polls_and_changing_wakers_change_nothing() {
    paused(async || {
        let (go, gate) = oneshot::channel::<()>();
        let whole = scope(async |group: &Group| {
            let child = group.spawn(async move {
                drop(gate.await);
                Ok(7)
            });
            Ok(child.await)
        });
        assert_eq!(poll_spuriously(whole, || drop(go)).await.unwrap(), 7);
        let (go, gate) = oneshot::channel::<()>();
        let waiting = scope(async |group: &Group| {
            group.spawn(async move { drop(gate.await) });
            Ok(7)
        });
        assert_eq!(poll_spuriously(waiting, || drop(go)).await.unwrap(), 7);
        let error = scope(async |group: &Group| -> Done {
            let gated = || {
                let (go, gate) = oneshot::channel::<()>();
                let child = async move {
                    drop(gate.await);
                    Ok(7)
                };
                (go, child)
            };
            let (go, child) = gated();
            assert_eq!(poll_spuriously(group.spawn(child), || drop(go)).await, 7);
            let (go, child) = gated();
            let handle = group.spawn(child).detached();
            assert_eq!(
                poll_spuriously(handle, || drop(go)).await,
                Outcome::Completed(7)
            );
            let (go, child) = gated();
            let handle = group.spawn(child);
            let outcome = poll_spuriously(handle.outcome(), || drop(go)).await;
            assert_eq!(outcome, Outcome::Completed(7));
            let starting = group.start(async |_ready: Ready<()>| pending::<()>().await);
            let started = poll_spuriously(starting, || group.cancel_children()).await;
            let children = StartError::Cancelled(CancelReason::ChildrenCancelled);
            assert_eq!(started.map(drop), Err(children));
            let parked = group.spawn(pending::<()>());
            let ended = poll_spuriously(group.token().cancelled(), || group.cancel());
            ended.await;
            drop(parked);
            Ok(())
        })
        .await
        .unwrap_err();
        assert!(error.is_cancelled());
        let (go, gate) = oneshot::channel::<u8>();
        let timed = timeout(ms(100), gate);
        assert_eq!(
            poll_spuriously(timed, || go.send(7).unwrap()).await,
            Ok(Ok(7))
        );
        let late = timeout(ms(5), pending::<()>());
        assert!(poll_spuriously(late, || {}).await.is_err());
        assert!(
            poll_spuriously(move_on_after(ms(5), pending::<()>()), || {})
                .await
                .is_none()
        );
        // The root, with a child whose end is held up by one that it adopted itself.
        let (root, orphan) = (root(), Mutex::new(None));
        let mut dropped = Box::pin(scope(async |group: &Group| -> Done {
            group.spawn(async { pending::<()>().await });
            pending().await
        }));
        assert!(poll!(&mut dropped).is_pending());
        *orphan.lock().unwrap() = Some(dropped);
        drop(orphan.lock().unwrap().take());
        let (mut wait, wakers) = (
            pin!(root.wait(PATIENCE)),
            [(); 10].map(|()| CountingWaker::new()),
        );
        for waker in &wakers {
            let polled = wait.as_mut().poll(&mut Context::from_waker(&waker.waker()));
            assert!(polled.is_pending());
        }
        settle().await;
        let wakes = wakers.each_ref().map(|waker| waker.wakes());
        assert_eq!(wakes, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        wait.await.unwrap();
    });
}

/// A waker that does things to a group when it is woken.
struct Meddler(OnceLock<Spawner<String>>);

impl Wake for Meddler {
    fn wake(self: Arc<Self>) {
        if let Some(spawner) = self.0.get() {
            assert!(!format!("{spawner:?}").is_empty());
            drop(spawner.spawn(async {}));
            drop(spawner.token().reason());
            spawner.cancel_with("from a waker");
        }
    }
}

#[test]
fn a_waker_that_wakes_inside_its_own_poll_does_not_deadlock() {
    every_runtime(async || {
        let wakes_itself = || {
            let mut left = 1_000;
            poll_fn(move |cx| {
                left -= 1;
                cx.waker().wake_by_ref();
                if left == 0 {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
        };
        scope(async |group: &Group| -> Done {
            group.spawn(wakes_itself());
            group.spawn_background(async move {
                loop {
                    wakes_itself().await;
                }
            });
            wakes_itself().await;
            Ok(())
        })
        .await
        .unwrap();
    });
    every_runtime(async || {
        let meddler = Arc::new(Meddler(OnceLock::new()));
        let (go, gate) = oneshot::channel::<()>();
        let mut meddled = Box::pin(scope(async |group: &Group| -> Done {
            meddler.0.set(group.spawner()).expect("once");
            group.spawn(async move { drop(gate.await) });
            group.token().cancelled().await;
            pending().await
        }));
        let waker = Waker::from(meddler.clone());
        let polled = meddled.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        waker.wake_by_ref();
        drop(go);
        let error = meddled.await.unwrap_err();
        assert!(error.to_string().contains("from a waker"), "{error}");
    });
}

/// A waker that does something when it is dropped for the last time.
struct Last<F: Fn() + Send + Sync + 'static>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Last<F> {
    fn wake(self: Arc<Self>) {}
}

impl<F: Fn() + Send + Sync + 'static> Drop for Last<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn last(run: impl Fn() + Send + Sync + 'static) -> Waker {
    Waker::from(Arc::new(Last(run)))
}

fn poll_last<F: Future + ?Sized>(
    future: Pin<&mut F>,
    run: impl Fn() + Send + Sync + 'static,
) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&last(run)))
}

#[test]
fn a_waker_that_re_enters_the_group_when_it_is_dropped_does_not_deadlock() {
    paused(async || {
        let spawner = OnceLock::new();
        let mut open = Box::pin(scope(async |group: &Group| -> Done {
            spawner.set(group.spawner()).expect("once");
            pending().await
        }));
        assert!(poll!(&mut open).is_pending());
        let spawner = spawner.get().expect("the body ran");
        let mut wait = Box::pin(spawner.token().cancelled());
        for _ in 0..3 {
            // Each is the only one to have its waker when the next one comes.
            let asked = spawner.clone();
            let waker = last(move || {
                assert!(asked.token().reason().is_none());
                assert!(!format!("{asked:?}").is_empty());
            });
            let mut cx = Context::from_waker(&waker);
            assert!(open.as_mut().poll(&mut cx).is_pending());
            assert!(wait.as_mut().poll(&mut cx).is_pending());
        }
        drop(wait);
        spawner.spawn(async {});
        settle().await;
        drop(open);
    });
}

#[test]
fn a_waker_that_meddles_when_it_is_dropped_does_not_deadlock() {
    let _watchdog = Watchdog::start("wakers that meddle when they are dropped", PATIENCE);
    // It looks at the handle that it waited for, while that one is being looked at.
    every_runtime(async || {
        let (go, gate) = oneshot::channel::<()>();
        let looked = Count::new();
        let place = Arc::new(OnceLock::<OutcomeHandle<u8>>::new());
        scope(async |group: &Group| -> Done {
            let child = async move {
                drop(gate.await);
                Ok(7)
            };
            let mut handle = group.spawn(child).detached();
            let (inside, count) = (place.clone(), looked.clone());
            let polled = poll_last(Pin::new(&mut handle), move || {
                assert!(format!("{:?}", inside.get()).contains("completed"));
                count.add();
            });
            assert!(polled.is_pending());
            drop(go);
            until(|| handle.is_finished()).await;
            place.set(handle).expect("once");
            assert!(format!("{:?}", place.get()).contains("completed"));
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(looked.get(), 1);
    });
    // It polls the scope in whose task the child is, while the handle takes another waker.
    type Whole = Pin<Box<dyn Future<Output = ()> + Send>>;
    let (give, take) = std::sync::mpsc::channel();
    let (go, gate) = oneshot::channel::<()>();
    let whole: Whole = Box::pin(async move {
        let ended = borrow_scope(async move |group: BorrowGroup<'_, String>| -> Done {
            let child = async move {
                drop(gate.await);
                Ok(7)
            };
            give.send(group.spawn(child).detached()).unwrap();
            Ok(())
        });
        ended.await.unwrap();
    });
    let whole = Arc::new(Mutex::new(Some(whole)));
    let poll_whole = |place: &Mutex<Option<Whole>>| {
        let mut whole = place.lock().unwrap().take().expect("nobody else has it");
        let polled = whole.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        polled.is_ready()
    };
    let mut first = whole.lock().unwrap().take().expect("it is there");
    let polled = first.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
    *whole.lock().unwrap() = Some(first);
    let mut handle: OutcomeHandle<u8> = take.recv().unwrap();
    let inside = whole.clone();
    let polled = poll_last(Pin::new(&mut handle), move || assert!(poll_whole(&inside)));
    assert!(polled.is_pending());
    drop(go);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut handle).poll(&mut cx).is_pending());
    assert!(whole.lock().unwrap().is_none(), "it was polled to its end");
    let polled = Pin::new(&mut handle).poll(&mut cx);
    assert_eq!(polled, Poll::Ready(Outcome::Completed(7)));
    // It looks at the budget in whose line it was.
    let (slots, looked) = (Slots::new(1), Count::new());
    current_thread().block_on(async {
        scope(async |group: &Group| -> Done {
            let limited = group.limit(&slots);
            let held = limited.spawn(pending::<()>()).await;
            let mut waits = pin!(limited.spawn(async {}));
            let (inside, count) = (slots.clone(), looked.clone());
            let polled = poll_last(waits.as_mut(), move || {
                assert_eq!(inside.free(), 0);
                count.add();
            });
            assert!(polled.is_pending());
            assert!(poll!(waits.as_mut()).is_pending());
            held.cancel();
            Ok(())
        })
        .await
        .unwrap();
    });
    assert_eq!(looked.get(), 1);
    // It lets the child run that is waited for.
    let runtime = Arc::new(current_thread());
    let _here = runtime.enter();
    let (go, gate) = oneshot::channel::<()>();
    let mut go = Some(go);
    let mut whole = pin!(scope(async |group: &Group| -> Done {
        let mut left = group.as_completed([async move {
            drop(gate.await);
            7
        }]);
        let run = |runtime: &Runtime| runtime.block_on(settle());
        let inside = runtime.clone();
        assert!(poll_last(pin!(left.next()), move || run(&inside)).is_pending());
        go.take();
        assert!(poll_last(pin!(left.next()), || {}).is_pending());
        assert_eq!(left.next().await, Some((0, Outcome::Completed(7))));
        Ok(())
    }));
    assert!(whole.as_mut().poll(&mut cx).is_ready());
}
