//! The end of a long-lived group.

use std::future::Ready;

use loom::thread;

use super::{Error, Gone, Pinned, child, explore, group, run, turn};
use crate::group::TaskGroup;
use crate::group::driver::Driver;
use crate::group::error::GroupError;
use crate::state::Core;
use crate::sync::Arc;

/// What drives the rest of a group that its owner has given up.
fn rest(core: &Arc<Core>) -> Pinned<Result<(), GroupError<Error>>> {
    let group = TaskGroup::new(core.clone(), None);
    Box::pin(async move {
        Driver::<Ready<Result<(), Error>>, (), Error>::without_body(&group, None).await
    })
}

fn end_x_spawn_x_exit(end: impl Fn(&Core) + Send + Sync + 'static) {
    explore(&["accepted", "refused"], move |seen| {
        let (core, gone) = (group(), Gone::new());
        let (present, late) = (gone.clone(), Gone::new());
        let guard = present.guard();
        let (_, member) = child(&core, async move {
            let _guard = guard;
            turn().await;
        })
        .unwrap();
        let exit = thread::spawn(move || drop(run(member).0));
        let spawner = thread::spawn({
            let (core, guard) = (core.clone(), late.guard());
            move || match child(&core, async move { drop(guard) }) {
                Ok((_, member)) => {
                    drop(run(member).0);
                    true
                }
                Err(_) => false,
            }
        });
        end(&core);
        drop(run(rest(&core)).0);
        let (was_gone, was_late_gone) = (gone.is(), late.is());
        exit.join().unwrap();
        let accepted = spawner.join().unwrap();
        assert!(was_gone, "a child outlived the end");
        assert!(was_late_gone || !accepted, "a child outlived the end");
        assert_eq!(core.children(false), 0);
        seen.note(if accepted { "accepted" } else { "refused" });
    });
}

#[test]
fn close_x_spawn_x_exit() {
    end_x_spawn_x_exit(|core| {
        core.word().shut();
    });
}

#[test]
fn shutdown_x_spawn_x_exit() {
    end_x_spawn_x_exit(|core| core.shut_down(false));
}
