//! Local scopes: children that are not `Send`, in the task of their scope.

use std::{
    cell::{Cell, RefCell},
    future::{Future, pending, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use ringfence::{
    BoxError, CancelReason, Cause, LocalGroup, LocalSpawner, Outcome, Scope, TaskGroup,
    local_scope, root, scope,
};
use tokio::{
    task::{LocalSet, yield_now},
    time::{Instant, sleep},
};

use crate::support::{Count, Drops, OnDrop, Parked, caught, every_runtime, paused};

type Group<'env> = LocalGroup<'env, String>;
type Done = Result<(), String>;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn children_share_what_is_not_send() {
    every_runtime(async || {
        let (hits, log) = (Cell::new(0), Rc::new(RefCell::new(Vec::new())));
        let value = local_scope(async |group: Group<'_>| {
            let mut handles = Vec::new();
            for k in 0..3 {
                let (hits, log) = (&hits, Rc::clone(&log));
                handles.push(group.spawn(async move {
                    let kept = Rc::new(k);
                    yield_now().await;
                    hits.set(hits.get() + 1);
                    log.borrow_mut().push(*kept);
                    Ok(kept)
                }));
            }
            let mut values = Vec::new();
            for handle in handles {
                values.push(handle.await);
            }
            Ok(values)
        })
        .await
        .unwrap();
        assert_eq!(
            (hits.get(), value),
            (3, vec![Rc::new(0), Rc::new(1), Rc::new(2)])
        );
        log.borrow_mut().sort_unstable();
        assert_eq!(*log.borrow(), [0, 1, 2]);
    });
}

#[test]
fn a_child_spawns_while_others_are_polled() {
    // The program of a peer's front page, which panics there: "already borrowed".
    every_runtime(async || {
        fn visit<'env>(depth: u32, spawner: LocalSpawner<'env, String>, seen: &'env Cell<u32>) {
            let next = spawner.clone();
            spawner.spawn(async move {
                seen.set(seen.get() + 1);
                if depth > 0 {
                    visit(depth - 1, next.clone(), seen);
                    yield_now().await;
                    visit(depth - 1, next, seen);
                }
            });
        }
        let seen = Cell::new(0);
        local_scope(async |group: Group<'_>| {
            visit(6, group.spawner(), &seen);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(seen.get(), 127);
    });
}

#[test]
fn the_first_failure_cancels_the_rest_and_is_listed() {
    every_runtime(async || {
        let drops = Drops::new();
        let error = local_scope(async |group: Group<'_>| -> Done {
            group.spawn(Parked::new(&Count::new(), &drops));
            let name = Rc::new("lost".to_owned());
            group
                .named("failing")
                .spawn(async move { Err::<(), _>(String::clone(&name)) });
            pending().await
        })
        .await
        .unwrap_err();
        assert_eq!(error.cause(), &Cause::Failed);
        let first = error.iter().next().unwrap();
        assert_eq!(first.task().and_then(|task| task.name()), Some("failing"));
        assert_eq!(
            (error.into_first().ok().as_deref(), drops.alive()),
            (Some("lost"), 0)
        );
    });
}

#[test]
fn a_panic_of_a_local_child_goes_on_in_the_caller() {
    every_runtime(async || {
        let drops = Drops::new();
        let text = caught(local_scope(async |group: Group<'_>| -> Done {
            group.spawn(Parked::new(&Count::new(), &drops));
            group.spawn(async { panic!("boom") });
            pending().await
        }))
        .await
        .unwrap_err();
        assert_eq!((text.as_str(), drops.alive()), ("boom", 0));
    });
}

#[test]
fn time_grace_and_deadline_hold_for_local_children_too() {
    paused(async || {
        let start = Instant::now();
        let error = Scope::new()
            .grace(ms(300))
            .deadline(start + ms(200))
            .run_local(async |group: Group<'_>| {
                let kept = Rc::new(());
                group.named("deaf").spawn(async move {
                    let _kept = kept;
                    pending::<()>().await;
                });
                group.spawn(sleep(ms(250)));
                Ok(())
            })
            .await
            .unwrap_err();
        assert!(error.is_deadline_exceeded());
        assert_eq!(start.elapsed(), ms(500));
        assert_eq!(error.forced().len(), 1);
    });
}

#[test]
fn outcomes_and_cancels_are_those_of_any_group() {
    every_runtime(async || {
        local_scope(async |group: Group<'_>| {
            let parked = group.spawn(async {
                let _kept = Rc::new(());
                pending::<()>().await;
            });
            yield_now().await;
            let outcome = parked.cancel_and_wait().await;
            assert_eq!(outcome, Outcome::Cancelled(CancelReason::Handle));
            let (one, two) = (group.spawn(pending::<()>()), group.spawn(async { Ok(2) }));
            assert_eq!(two.await, 2);
            group.cancel_children();
            assert!(one.outcome().await.is_cancelled());
            Ok(())
        })
        .await
        .unwrap();
    });
}

#[test]
fn a_dropped_local_scope_has_dropped_everything() {
    let drops = Drops::new();
    let (polls, order) = (Count::new(), Rc::new(Cell::new(0)));
    {
        let mut dropped = pin!(local_scope(async |group: Group<'_>| -> Done {
            for _ in 0..3 {
                let (parked, order) = (Parked::new(&polls, &drops), Rc::clone(&order));
                group.spawn(async move {
                    let _last = OnDrop::new(move || order.set(order.get() + 1));
                    parked.await;
                });
            }
            pending().await
        }));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(dropped.as_mut().poll(&mut cx).is_pending());
        assert_eq!(drops.alive(), 3);
    }
    assert_eq!(
        (drops.alive(), order.get(), Rc::strong_count(&order)),
        (0, 3, 1)
    );
}

#[test]
fn a_thousand_local_children_that_are_always_ready_take_turns() {
    every_runtime(async || {
        let (polls, rounds) = (Rc::new(Cell::new(0_usize)), Cell::new(0));
        local_scope(async |group: Group<'_>| {
            for _ in 0..1_000 {
                let polls = Rc::clone(&polls);
                group.spawn_background(poll_fn(move |cx| {
                    polls.set(polls.get() + 1);
                    cx.waker().wake_by_ref();
                    Poll::<()>::Pending
                }));
            }
            let rounds = &rounds;
            group.spawn(async move {
                for _ in 0..10 {
                    rounds.set(rounds.get() + 1);
                    let mut first = true;
                    poll_fn(|cx| {
                        cx.waker().wake_by_ref();
                        if std::mem::replace(&mut first, false) {
                            Poll::Pending
                        } else {
                            Poll::Ready(())
                        }
                    })
                    .await;
                }
            });
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!((rounds.get(), polls.get() / 1_000), (10, 11));
    });
}

#[test]
fn a_local_scope_works_inside_a_local_set() {
    paused(async || {
        let set = LocalSet::new();
        let value = set
            .run_until(local_scope(async |group: Group<'_>| {
                let (shared, counted) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
                let from_set = join({
                    let shared = Rc::clone(&shared);
                    async move { shared.set(5) }
                });
                let child = Rc::clone(&counted);
                group.spawn(async move {
                    from_set.await;
                    child.set(shared.get());
                });
                yield_now().await;
                Ok(counted)
            }))
            .await
            .unwrap();
        assert_eq!(value.get(), 5);
    });
}

/// A plain local task: a stranger that belongs to no group.
async fn join<T: 'static>(future: impl Future<Output = T> + 'static) -> T {
    tokio::task::spawn_local(future).await.expect("no panic")
}

#[test]
fn a_parallel_scope_dropped_in_a_local_child_is_adopted_by_it() {
    paused(async || {
        let drops = Drops::new();
        local_scope(async |group: Group<'_>| {
            let child = group.spawn(async {
                let kept = Rc::new(());
                let mut inner =
                    Box::pin(scope(async |group: &TaskGroup| -> Result<(), BoxError> {
                        let guard = drops.guard();
                        group.spawn(async move {
                            let _guard = guard;
                            pending::<()>().await;
                        });
                        pending().await
                    }));
                assert!(futures::poll!(&mut inner).is_pending());
                drop((inner, kept));
                assert_eq!(drops.alive(), 1, "its task has not come to its end");
                Ok(())
            });
            child.await;
            assert_eq!(
                (drops.alive(), root().orphans()),
                (0, 0),
                "the child waited for it"
            );
            Ok(())
        })
        .await
        .unwrap();
    });
}
