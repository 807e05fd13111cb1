//! Who waits for whom, and who is told when.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
};

use futures::poll;
use ringfence::{Ended, GroupError, Observer, Scope, TaskInfo, root, scope};
use tokio::sync::oneshot;

use super::{Done, Group, abandon, nobody_is_left};
use crate::support::{Drops, Log, PATIENCE, every_runtime, until};

type Opened = Pin<Box<dyn Future<Output = Result<(), GroupError<String>>> + Send>>;

/// A scope with a child that is given another scope, and drops it when `go` is given.
fn keeper(
    given: oneshot::Receiver<Opened>,
    go: oneshot::Receiver<()>,
    parks: bool,
    drops: &Drops,
) -> Opened {
    let guard = drops.guard();
    Box::pin(scope(async move |group: &Group| -> Done {
        group.spawn(async move {
            let _guard = guard;
            let other = given.await;
            drop(go.await);
            drop(other);
            if parks {
                pending::<()>().await;
            }
        });
        pending().await
    }))
}

#[test]
fn two_scopes_dropped_by_one_anothers_children_end() {
    every_runtime(async || {
        for (parks, both) in [(true, true), (true, false), (false, true), (false, false)] {
            let drops = Drops::new();
            let ((give_a, a), (give_b, b)) = (oneshot::channel(), oneshot::channel());
            let ((go_a, gate_a), (go_b, gate_b)) = (oneshot::channel(), oneshot::channel());
            let mut of_a = keeper(b, gate_a, parks, &drops);
            let mut of_b = keeper(a, gate_b, parks, &drops);
            assert!(poll!(&mut of_a).is_pending() && poll!(&mut of_b).is_pending());
            assert!(give_a.send(of_a).is_ok() && give_b.send(of_b).is_ok());
            go_a.send(()).unwrap();
            if both {
                // Maybe too late: the other one has been dropped by then.
                go_b.send(()).ok();
            }
            until(|| drops.alive() == 0).await;
            root()
                .wait(PATIENCE)
                .await
                .expect("nobody waits in a circle");
            nobody_is_left().await;
        }
    });
}

/// Writes down whose end it is told.
#[derive(Default)]
struct Ends(Log<Option<String>>);

impl Observer for Ends {
    fn ended(&self, task: &TaskInfo, _: &Ended) {
        self.0.push(task.name().map(str::to_owned));
    }
}

#[test]
fn the_end_of_a_child_is_told_when_the_scopes_that_it_dropped_are_gone() {
    every_runtime(async || {
        let (ends, drops) = (Arc::new(Ends::default()), Drops::new());
        let seen = drops.clone();
        Scope::new()
            .observer(ends.clone())
            .run(async move |group: &Group| -> Done {
                group.named("child").spawn(async move {
                    abandon(3, &seen).await;
                });
                Ok(())
            })
            .await
            .expect("nothing failed");
        let names = ends.0.entries();
        let expected = [None, None, None, Some("child".to_owned())];
        assert_eq!(names, expected, "the grandchildren first");
        assert_eq!(drops.alive(), 0);
    });
}
