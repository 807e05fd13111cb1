//! Bad input: refused where it is given, never a hang or a wrap-around.

use std::{
    cell::RefCell,
    future::{Future, pending, poll_fn},
    panic::{self, AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Once,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{FutureExt, executor::block_on};
use ringfence::{
    CancelReason, Cause, Deadline, FailureKind, Outcome, Ready, Scope, TaskGroup, move_on_after,
    root, scope, timeout, timeout_at, token,
};
use tokio::{
    runtime::Builder,
    sync::oneshot,
    task::yield_now,
    time::{Instant, sleep},
};

use crate::support::{
    Drops, Log, PATIENCE, Watchdog, message, multi_thread, paused, settle, single_thread,
};

thread_local! {
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Sees `run` panic with this message, in this file.
#[track_caller]
fn assert_panics_here<T>(expected: &str, run: impl FnOnce() -> T) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let file = info.location().map_or("", |location| location.file());
            PLACE.set(file.to_owned());
            before(info);
        }));
    });
    let payload = catch_unwind(AssertUnwindSafe(|| drop(run()))).expect_err("it should panic");
    assert_eq!(message(&*payload), expected);
    assert_eq!(PLACE.take(), file!(), "the place of the panic");
}

#[test]
fn spawn_outside_a_runtime_panics_at_the_caller() {
    let message = "ringfence: cannot spawn a child outside a tokio runtime";
    let drops = Drops::new();
    assert_panics_here(message, || {
        let guard = drops.guard();
        block_on(scope(async move |group: &TaskGroup| {
            group.spawn(async move { drop(guard) });
            Ok(())
        }))
    });
    assert_eq!(drops.alive(), 0);
    assert_panics_here(message, || {
        block_on(scope(async |group: &TaskGroup| {
            group.named("child").spawn_background(async {});
            Ok(())
        }))
    });
    assert_panics_here(message, || {
        block_on(scope(async |group: &TaskGroup| {
            group.spawner().spawn(async {});
            Ok(())
        }))
    });
}

async fn ready_then_waits(it: Ready<()>) {
    it.set(());
    yield_now().await;
}

#[test]
fn outside_a_runtime_whoever_waits_before_it_spawns_is_told_the_place() {
    let begin = line!();
    for which in 0..4 {
        let run = AssertUnwindSafe(|| {
            block_on(scope(async |group: &TaskGroup| {
                match which {
                    0 => drop(group.limit(1).spawn(async {}).await),
                    1 => drop(group.limit(1).spawn_blocking(|| {}).await),
                    2 => drop(group.start(ready_then_waits).await),
                    _ => drop(group.first([async {}]).await),
                }
                Ok(())
            }))
        });
        let payload = catch_unwind(run).expect_err("it should panic");
        let place = format!("runtime, at {}:{}:", file!(), begin + 5 + which);
        assert!(
            message(&*payload).contains(&place),
            "{}",
            message(&*payload)
        );
    }
    let eager = || {
        block_on(scope(async |group: &TaskGroup| {
            drop(group.spawn_eager(yield_now()));
            Ok(())
        }))
    };
    assert_panics_here(
        "ringfence: cannot spawn a child outside a tokio runtime",
        eager,
    );
}

#[test]
fn a_scope_that_spawns_nothing_needs_no_runtime() {
    let value = block_on(scope(async |_: &TaskGroup| {
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            if polls < 3 {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
        let inner = scope(async |_: &TaskGroup| Ok(polls)).await?;
        Ok(inner)
    }));
    assert_eq!(value.ok(), Some(3));
}

#[test]
fn a_timeout_that_must_wait_outside_a_runtime_panics_at_the_caller() {
    let message = "ringfence: cannot wait for time outside a tokio runtime";
    let soon = Duration::from_millis(1);
    assert_panics_here(message, || {
        block_on(async { timeout(soon, pending::<()>()).await })
    });
    assert_panics_here(message, || {
        block_on(async { timeout_at(Deadline::after(soon), pending::<()>()).await })
    });
    assert_panics_here(message, || {
        block_on(async { move_on_after(soon, pending::<()>()).await })
    });
    let ready = block_on(timeout(soon, async { 1 }));
    assert_eq!(ready, Ok(1), "one that does not wait needs none");
}

#[test]
fn the_root_outside_a_runtime_panics_at_the_caller() {
    let message = "ringfence: a root belongs to a tokio runtime, and there is none here";
    assert_panics_here(message, || root().orphans());
}

#[test]
fn a_grace_of_any_length_is_accepted() {
    paused(async || {
        // Zero is none: the child is dropped where it is parked.
        let log = Log::new();
        let none = Scope::new().grace(Duration::ZERO);
        let parked = none.run(async |group: &TaskGroup| {
            let log = log.clone();
            group.spawn(async move {
                token().cancelled().await;
                log.push("was told");
            });
            sleep(Duration::from_millis(1)).await;
            group.cancel();
            Ok(())
        });
        assert!(parked.await.is_err());
        assert!(log.entries().is_empty());

        let start = Instant::now();
        let years = Duration::from_secs(2 * 60 * 60 * 24 * 365);
        let endless = Scope::new().grace(Duration::MAX);
        let slow = endless.run(async |group: &TaskGroup| {
            group.spawn(async move {
                token().cancelled().await;
                sleep(years).await;
            });
            group.cancel();
            Ok(())
        });
        let error = slow.await.expect_err("it was cancelled");
        assert!(error.forced().is_empty(), "nobody was forced");
        assert_eq!(start.elapsed(), years);
    });
}

#[test]
fn a_deadline_of_any_distance_is_accepted() {
    paused(async || {
        sleep(Duration::from_secs(10)).await;
        let start = Instant::now();
        let wait = async |deadline: Deadline| {
            Scope::new()
                .deadline(deadline)
                .run(async |group: &TaskGroup| {
                    group.spawn(sleep(Duration::from_secs(3600))).await;
                    Ok(())
                })
                .await
                .map_err(|error| error.cause().clone())
        };
        for past in [start - Duration::from_secs(5), start] {
            let result = wait(Deadline::at(past)).await;
            assert_eq!(result, Err(Cause::DeadlineExceeded));
            assert_eq!(start.elapsed(), Duration::ZERO, "at once");
        }
        let far = Deadline::at(start + Duration::from_secs(10_000_000_000));
        assert_eq!(wait(far).await, Ok(()));
        assert_eq!(Deadline::after(Duration::MAX), Deadline::NEVER);
        assert_eq!(wait(Deadline::after(Duration::MAX)).await, Ok(()));
        assert_eq!(start.elapsed(), Duration::from_secs(7200));
    });
}

#[test]
fn a_token_outside_any_group_never_fires() {
    single_thread(async || {
        let token = token();
        let mut fired = pin!(token.cancelled());
        let cancelled = scope(async |group: &TaskGroup| {
            group.cancel();
            Ok(())
        });
        assert!(cancelled.await.is_err(), "a group beside it is");
        settle().await;
        assert!(futures::poll!(&mut fired).is_pending());
        assert!(!token.is_cancelled());
        assert_eq!(token.reason(), None);
    });
    assert!(!token().is_cancelled(), "nor outside a runtime");
    assert!(token().cancelled().now_or_never().is_none());
}

#[test]
fn spawn_on_a_runtime_that_is_gone_is_refused() {
    let drops = Drops::new();
    let runtime = multi_thread(1);
    let (send, receive) = oneshot::channel();
    let mut spawners = Vec::new();
    let mut work = pin!(scope(async |group: &TaskGroup| {
        spawners.push(group.spawner());
        send.send(group.spawner()).expect("somebody listens");
        pending::<()>().await;
        Ok(())
    }));
    let mut cx = Context::from_waker(Waker::noop());
    {
        let _inside = runtime.enter();
        assert!(work.as_mut().poll(&mut cx).is_pending());
    }
    let spawner = block_on(receive).expect("the body ran");
    drop(runtime);
    let guard = drops.guard();
    let handle = spawner.spawn(async move { drop(guard) });
    assert_eq!((drops.made(), drops.dropped()), (1, 1));
    assert_eq!(block_on(handle), Outcome::RuntimeGone);
    let refused = spawner
        .try_spawn(async {})
        .expect_err("and so are all that come after");
    assert_eq!(refused.reason(), &CancelReason::RuntimeGone);
    let Poll::Ready(Err(error)) = work.as_mut().poll(&mut cx) else {
        panic!("the count is right, so the scope ends");
    };
    assert_eq!(error.cause(), &Cause::Cancelled(CancelReason::RuntimeGone));
}

#[test]
fn a_scope_that_needs_time_without_a_time_driver_panics_when_its_children_are_gone() {
    let _watchdog = Watchdog::start("no time driver", PATIENCE);
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let long = Duration::from_secs(3600);
    let scopes = [
        Scope::new().deadline(Deadline::after(long)),
        Scope::new().grace(long),
    ];
    for options in scopes {
        for panics_as_errors in [false, true] {
            let drops = Drops::new();
            let mut options = options.clone();
            if panics_as_errors {
                options = options.panics_as_errors();
            }
            let ended = AssertUnwindSafe(options.run(async |group: &TaskGroup| {
                let guard = drops.guard();
                group.spawn(async move {
                    let _guard = guard;
                    pending::<()>().await;
                });
                yield_now().await;
                group.cancel();
                pending::<Result<(), _>>().await
            }));
            let ended = runtime.block_on(ended.catch_unwind());
            assert_eq!((drops.made(), drops.dropped()), (1, 1));
            match ended {
                Ok(ended) => {
                    let error = ended.unwrap_err();
                    assert!(
                        panics_as_errors
                            && error
                                .iter()
                                .any(|failure| matches!(failure.kind(), FailureKind::Panic(_)))
                    );
                }
                Err(payload) => {
                    assert!(!panics_as_errors);
                    assert!(
                        message(&*payload).contains("time"),
                        "{}",
                        message(&*payload)
                    );
                }
            }
        }
    }
}
