//! Other words for ours: a spawner as an object, the token of tokio-util.

use std::{future::pending, sync::Arc, time::Duration};

use ringfence::{Cause, Outcome, OutcomeHandle, OwnedGroup, Scope, Spawn, TaskGroup, scope};
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use crate::support::{Count, Drops, every_runtime, paused, settle};

#[test]
fn a_group_is_spawned_into_as_an_object() {
    every_runtime(async || {
        let ran = Count::new();
        let inside = ran.clone();
        let ended = Scope::new()
            .panics_as_errors()
            .run(async move |group: &TaskGroup<String>| {
                let tasks: Arc<dyn Spawn> = Arc::new(group.spawner());
                let counted = inside.clone();
                let done = tasks.spawn(async move {
                    counted.add();
                });
                assert_eq!(done.await, Outcome::Completed(()));
                // A failure is that of the group.
                tasks.spawn(async { panic!("in a library") });
                pending::<Result<(), String>>().await
            })
            .await;
        let error = ended.expect_err("a panic");
        assert_eq!((ran.get(), error.len()), (1, 1));
    });
}

/// A library that is lent any group.
fn warm_up(tasks: &dyn Spawn, ran: &Count) -> [OutcomeHandle<()>; 2] {
    let [a, b] = [ran.clone(), ran.clone()];
    let plain = tasks.spawn(async move {
        a.add();
    });
    let boxed = tasks.try_spawn_boxed(Box::pin(async move {
        b.add();
    }));
    [plain, boxed.expect("it is open")]
}

#[test]
fn every_kind_of_group_is_one_to_spawn_into() {
    paused(async || {
        let ran = Count::new();
        let ended = scope(async |group: &TaskGroup<String>| {
            for handle in warm_up(group, &ran) {
                assert_eq!(handle.await, Outcome::Completed(()));
            }
            warm_up(&group.spawner(), &ran);
            Ok(())
        });
        ended.await.expect("no failure");
        let owned = OwnedGroup::<String>::new();
        warm_up(&owned, &ran);
        assert!(owned.wait().await.is_clean());
        assert_eq!(ran.get(), 6);
    });
}

#[test]
fn what_an_object_refuses_comes_back() {
    paused(async || {
        let spawner = scope(async |group: &TaskGroup<String>| Ok(group.spawner())).await;
        let tasks: Box<dyn Spawn> = Box::new(spawner.expect("no failure"));
        let drops = Drops::new();
        let held = drops.guard();
        let refused = tasks.try_spawn_boxed(Box::pin(async move { drop(held) }));
        let task = refused.expect_err("the group is closed").into_inner();
        assert_eq!(drops.alive(), 1);
        task.await;
        assert_eq!(drops.alive(), 0);
        assert!(matches!(tasks.spawn(async {}).await, Outcome::Cancelled(_)));
    });
}

#[test]
fn a_token_of_tokio_util_follows_the_group() {
    paused(async || {
        for grace in [Duration::ZERO, Duration::from_secs(1)] {
            let told = scope(async |outer: &TaskGroup<String>| {
                let ended = Scope::new()
                    .grace(grace)
                    .run(async |group: &TaskGroup<String>| {
                        let theirs = group.spawner().cancellation_token();
                        let outside = theirs.clone();
                        let told = outer.spawn(async move { outside.cancelled().await });
                        yield_now().await;
                        assert!(!theirs.is_cancelled());
                        group.cancel();
                        // With no grace the body ends here.
                        told.await;
                        Ok(group.spawner())
                    })
                    .await;
                assert!(ended.is_err());
                Ok(())
            });
            told.await.expect("the token was cancelled");
        }
        // The end of a group is enough, and of one that has ended it is cancelled from the start.
        let (theirs, spawner) = scope(async |group: &TaskGroup<String>| {
            Ok((group.spawner().cancellation_token(), group.spawner()))
        })
        .await
        .expect("no failure");
        assert!(theirs.is_cancelled() && spawner.cancellation_token().is_cancelled());
    });
}

#[test]
fn a_group_follows_a_token_of_tokio_util() {
    every_runtime(async || {
        let theirs = CancellationToken::new();
        let error = scope(async |group: &TaskGroup<String>| {
            group.spawner().cancel_on(&theirs.child_token());
            group.spawn(pending::<()>());
            theirs.cancel();
            pending::<Result<(), String>>().await
        })
        .await
        .expect_err("it was cancelled");
        let Cause::Cancelled(reason) = error.cause() else {
            panic!("{error:?}");
        };
        assert!(reason.to_string().contains("CancellationToken"), "{reason}");
        // A token that is never cancelled keeps no group from its end.
        let quiet = CancellationToken::new();
        let ended = scope(async |group: &TaskGroup<String>| {
            group.spawner().cancel_on(&quiet);
            settle().await;
            Ok(())
        });
        assert!(ended.await.is_ok());
    });
}
