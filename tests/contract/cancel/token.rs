//! Tokens that leave their task: they tell for ever, and wake whoever waits.

use std::{future::pending, sync::Arc, task::Context};

use futures::FutureExt;
use ringfence::{CancelReason, Cause, Outcome, Scope, Token, scope, token};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, yield_now},
};

use super::{Group, LONG, ms};
use crate::support::{CountingWaker, Log, every_runtime, paused, spawn};

/// What a child does once it has given its token away.
#[derive(Clone, Copy)]
enum Then {
    Returns,
    Listens,
    IsParked,
}

/// A child that gives its token away.
fn lender(
    then: Then,
) -> (
    oneshot::Receiver<Token>,
    impl Future<Output = ()> + Send + 'static,
) {
    let (give, given) = oneshot::channel();
    let child = async move {
        give.send(token()).expect("somebody wants it");
        match then {
            Then::Returns => {}
            Then::Listens => token().cancelled().await,
            Then::IsParked => pending().await,
        }
    };
    (given, child)
}

/// A task of nobody's that waits for a token.
fn stranger(token: &Token) -> JoinHandle<Option<CancelReason>> {
    let token = token.clone();
    spawn(async move {
        token.cancelled().await;
        token.reason()
    })
}

#[test]
fn a_token_tells_for_ever_that_its_child_was_cancelled() {
    every_runtime(async || {
        for then in [Then::IsParked, Then::Listens] {
            let listens = matches!(then, Then::Listens);
            let options = Scope::new().grace(if listens { LONG } else { ms(0) });
            let kept = options.run(async |group: &Group| {
                let mut kept = Vec::new();
                for all in [false, true] {
                    let (given, child) = lender(then);
                    let child = group.spawn(child);
                    kept.push(given.await.expect("a token"));
                    if all {
                        group.cancel_children();
                    } else {
                        child.cancel();
                    }
                    let is_kept = matches!(child.outcome().await, Outcome::Completed(()));
                    assert_eq!(is_kept, listens);
                }
                assert!(kept.iter().all(Token::is_cancelled), "gone, and cancelled");
                Ok(kept)
            });
            let kept = kept
                .await
                .expect("two children were cancelled, not the group");
            let reasons = kept.iter().map(Token::reason).collect::<Vec<_>>();
            let expected = [CancelReason::Handle, CancelReason::ChildrenCancelled];
            assert_eq!(reasons, expected.map(Some), "also when the group is gone");
        }
    });
}

#[test]
fn whoever_waits_for_the_token_of_a_child_is_woken_by_a_cancel_of_it() {
    every_runtime(async || {
        for all in [false, true] {
            scope(async |group: &Group| {
                let (given, child) = lender(Then::IsParked);
                let child = group.spawn(child);
                let waits = stranger(&given.await.expect("a token"));
                yield_now().await;
                let expected = if all {
                    group.cancel_children();
                    CancelReason::ChildrenCancelled
                } else {
                    child.cancel();
                    CancelReason::Handle
                };
                // It waits beside: neither the group nor anything else would end it.
                assert_eq!(waits.await.expect("no panic"), Some(expected));
                Ok(())
            })
            .await
            .expect("the group goes on");
        }
    });
}

#[test]
fn whoever_waits_for_a_token_is_woken_when_its_group_has_ended() {
    every_runtime(async || {
        let (tokens, waiting) = scope(async |group: &Group| {
            let (given, child) = lender(Then::Returns);
            group.spawn(child);
            let tokens = [given.await.expect("a token"), group.token()];
            let waiting = tokens.each_ref().map(stranger);
            yield_now().await;
            assert_eq!(tokens.each_ref().map(Token::is_cancelled), [false, false]);
            Ok((tokens, waiting))
        })
        .await
        .expect("nothing failed");
        for waits in waiting {
            assert_eq!(waits.await.expect("no panic"), Some(CancelReason::Closed));
        }
        for token in tokens {
            assert!(token.cancelled().now_or_never().is_some());
            assert_eq!(token.reason(), Some(CancelReason::Closed));
        }
    });
}

#[test]
fn a_scope_opened_after_the_signal_begins_with_it() {
    every_runtime(async || {
        let seen = Log::new();
        let outer = Scope::new().grace(LONG).run(async |group: &Group| {
            group.cancel_with("no more");
            let inner = scope(async |inner: &Group| {
                let child = inner.spawn(async {
                    token().cancelled().await;
                    Ok(token().reason())
                });
                seen.push(child.await);
                seen.push(token().reason());
                inner.token().cancelled().await;
                Ok(inner.is_cancelled())
            });
            assert!(!inner.await.expect("it was told, and goes on"));
            Ok(())
        });
        let error = outer.await.expect_err("cancelled");
        let Cause::Cancelled(reason) = error.cause() else {
            panic!("{error:?}");
        };
        assert_eq!(seen.entries(), vec![Some(reason.clone()); 2]);
    });
}

#[test]
fn a_wait_for_a_token_that_is_dropped_leaves_no_waker() {
    paused(async || {
        let outer = Scope::new().grace(LONG).run(async |group: &Group| {
            let inner = scope(async |inner: &Group| {
                let (old, new) = (CountingWaker::new(), CountingWaker::new());
                for token in [group.token(), inner.token()] {
                    for _ in 0..100 {
                        let mut waits = Box::pin(token.cancelled());
                        for waker in [old.waker(), new.waker()] {
                            let polled = waits.as_mut().poll(&mut Context::from_waker(&waker));
                            assert!(polled.is_pending());
                        }
                        assert_eq!(Arc::strong_count(&old), 1);
                        assert!(Arc::strong_count(&new) > 1, "each group around holds it");
                    }
                }
                group.cancel();
                assert_eq!((old.wakes(), new.wakes()), (0, 0));
                Ok([Arc::strong_count(&old), Arc::strong_count(&new)])
            });
            assert_eq!(inner.await.expect("it goes on"), [1, 1]);
            Ok(())
        });
        assert!(outer.await.is_err());
    });
}
