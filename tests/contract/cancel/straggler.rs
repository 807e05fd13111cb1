//! Who outlasted a grace: named in the report of the group that gave it, once, and nobody else.

use std::{future::pending, sync::Arc};

use futures::poll;
use ringfence::{GroupError, Observer, Scope, Straggler, TaskInfo, root, scope, timeout, token};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use super::{Group, LONG, Lost, ms, parked, requested};
use crate::support::{Log, paused, settle};

/// Names of those who had to be forced; that of the body is empty.
fn forced(error: &GroupError<Lost>) -> Vec<&str> {
    let mut names: Vec<_> = error
        .forced()
        .iter()
        .map(|straggler| match &straggler.task {
            None => "",
            Some(task) => TaskInfo::name(task).unwrap_or("no name"),
        })
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn a_body_that_outlasts_the_grace_is_named() {
    paused(async || {
        let start = Instant::now();
        let ended = Scope::new().grace(ms(100)).run(async |group: &Group| {
            group.cancel();
            parked::<()>().await
        });
        let error = ended.await.unwrap_err();
        assert_eq!((start.elapsed(), forced(&error)), (ms(100), vec![""]));
        let [body] = error.forced() else {
            panic!("the body alone, not {error:?}")
        };
        assert_eq!(body.reason, requested(None, None));
        assert!(body.to_string().starts_with("the body had to be forced"));
    });
}

#[test]
fn children_of_inner_scopes_that_outlast_a_grace_are_named_in_its_report() {
    // The inner scope has no options, or a longer grace of its own, or has been asked to end before.
    for (grace, cancelled) in [(None, false), (Some(LONG), false), (Some(LONG), true)] {
        paused(async || {
            let start = Instant::now();
            let ended = Scope::new().grace(ms(100)).run(async |outer: &Group| {
                outer.cancel();
                let options = grace.map_or(Scope::new(), |grace| Scope::new().grace(grace));
                let inner = options.run(async |group: &Group| {
                    group.named("deaf").spawn(parked::<()>());
                    let through = scope(async |deeper: &Group| {
                        deeper.named("deeper").spawn(parked::<()>());
                        parked::<()>().await
                    });
                    if cancelled {
                        yield_now().await;
                        group.cancel();
                    }
                    through.await.map_err(|_| Lost(1))
                });
                inner.await.map_err(|_| Lost(0))
            });
            let error = ended.await.unwrap_err();
            let expected = vec!["", "deaf", "deeper"];
            assert_eq!((start.elapsed(), forced(&error)), (ms(100), expected));
        });
    }
    // In a child that had a grace of its own, as it was cancelled alone.
    paused(async || {
        let mut alone = None;
        let ended = Scope::new().grace(ms(100)).run(async |group: &Group| {
            let child = group.named("child").spawn(async {
                let inner = scope(async |inner: &Group| {
                    inner.named("deaf").spawn(async {
                        let deeper = scope(async |deeper: &Group| {
                            deeper.named("deeper").spawn(parked::<()>());
                            parked::<()>().await
                        });
                        deeper.await.map_err(|_| Lost(0))
                    });
                    parked::<()>().await
                });
                inner.await.map_err(|_| Lost(0))
            });
            settle().await;
            alone = Some(child.cancel_and_wait().await);
            Err::<(), _>(Lost(7))
        });
        let error = ended.await.unwrap_err();
        assert_eq!(forced(&error), ["child", "deaf", "deeper"]);
        assert!(alone.is_some_and(|outcome| outcome.is_cancelled()));
    });
}

#[derive(Default)]
struct Told(Log<String>);

impl Observer for Told {
    fn forced(&self, straggler: &Straggler) {
        self.0.push(straggler.to_string());
    }
}

#[test]
fn nobody_who_is_forced_before_the_grace_is_over_is_named() {
    paused(async || {
        let told = Arc::new(Told::default());
        // The scope is dropped within its grace.
        let options = Scope::new().grace(LONG).observer(told.clone());
        let mut dropped = Box::pin(options.run(async |group: &Group| {
            group.spawn(parked::<()>());
            yield_now().await;
            group.cancel();
            parked::<()>().await
        }));
        assert!(poll!(&mut dropped).is_pending());
        sleep(ms(1)).await;
        assert!(poll!(&mut dropped).is_pending());
        drop(dropped);
        root().wait(ms(1)).await.expect("all are gone");
        // An inner scope is left by a select, while the group around is closing, within the grace.
        let options = Scope::new().grace(LONG).observer(told.clone());
        let ended = options.run(async |group: &Group| {
            group.cancel();
            tokio::select! {
                _ = scope(async |inner: &Group| {
                    inner.spawn(parked::<()>());
                    pending::<Result<(), Lost>>().await
                }) => unreachable!("it is endless"),
                () = sleep(ms(5)) => Ok(()),
            }
        });
        let error = ended.await.unwrap_err();
        assert!(error.is_cancelled() && error.forced().is_empty());
        // The grace of all children is over, and not that of the body, which drops a scope.
        let options = Scope::new().grace(ms(10)).observer(told.clone());
        let ended = options.run(async |group: &Group| {
            group.spawn(async { token().cancelled().await });
            yield_now().await;
            group.cancel_children();
            sleep(ms(20)).await;
            let inner = scope(async |inner: &Group| {
                inner.spawn(parked::<()>());
                parked::<()>().await
            });
            assert!(timeout(ms(5), inner).await.is_err());
            Ok(())
        });
        ended.await.expect("its children were cancelled alone");
        // There was no grace at all.
        let ended = Scope::new()
            .observer(told.clone())
            .run(async |group: &Group| {
                group.spawn(parked::<()>());
                group.cancel();
                parked::<()>().await
            });
        let error = ended.await.unwrap_err();
        assert!(error.forced().is_empty());
        assert_eq!(told.0.entries(), Vec::<String>::new());
    });
}
