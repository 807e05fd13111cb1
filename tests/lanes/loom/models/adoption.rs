//! Scopes that are dropped, and who waits for what they leave behind.

use std::future::{Future, pending};

use loom::thread;
use tokio::runtime::{Builder, Handle};

use super::{
    Gone, Parker, child, endless, explore, group, group_in, is_cancelled, opened, ready, run,
    scope, turn,
};
use crate::group::handle::Settled;
use crate::root::Root;
use crate::state::Core;
use crate::state::owner::Owner;
use crate::state::word::Kind;
use crate::sync::{Arc, PlainArc};

/// A runtime that runs nothing: it tells the roots of models apart, which run side by side.
pub(super) struct Runtime(tokio::runtime::Runtime);

impl Runtime {
    pub(super) fn new() -> Self {
        Self(Builder::new_current_thread().build().unwrap())
    }

    pub(super) fn handle(&self) -> Handle {
        self.0.handle().clone()
    }

    pub(super) fn root(&self) -> Root {
        let _inside = self.0.enter();
        crate::root::root()
    }
}

/// What is left when a scope with a body that waits is polled once and dropped, here.
pub(super) fn open_and_drop(core: Arc<Core>) -> impl Future<Output = ()> + Send + 'static {
    // With a waker of its own, as under `join_all`: the child's own would be woken by the cancel, and hide what is lost.
    let dropped = opened(&core, None, endless());
    async move { drop(dropped) }
}

/// A child that waits for ever, in a thread.
fn waiting(core: &Arc<Core>, gone: &Gone) -> thread::JoinHandle<bool> {
    let guard = gone.guard();
    let (_, member) = child(core, async move {
        let _guard = guard;
        pending::<()>().await;
    })
    .unwrap();
    thread::spawn(move || is_cancelled(&run(member).0))
}

#[test]
fn drop_x_child_exit() {
    explore(&["waited for", "gone before"], |seen| {
        let (outer, gone) = (group(), Gone::new());
        let inner = group_in(&outer);
        let guard = gone.guard();
        let (_, grandchild) = child(&inner, async move {
            let _guard = guard;
            turn().await;
        })
        .unwrap();
        let grandchild = thread::spawn(move || run(grandchild).0);
        let (_, member) = child(&outer, open_and_drop(inner)).unwrap();
        let member = thread::spawn(move || run(member).1);
        let (result, _) = run(scope(&outer, None, ready()));
        assert!(gone.is(), "a grandchild outlived the scope");
        assert!(result.is_ok());
        drop(grandchild.join().unwrap());
        let waited = member.join().unwrap() > 1;
        seen.note(if waited { "waited for" } else { "gone before" });
    });
}

#[test]
fn drop_x_child_spawn() {
    explore(&["accepted", "refused"], |seen| {
        let (outer, gone) = (group(), Gone::new());
        let inner = group_in(&outer);
        let spawner = thread::spawn({
            let (inner, guard) = (inner.clone(), gone.guard());
            move || {
                let forever = async move {
                    let _guard = guard;
                    pending::<()>().await;
                };
                child(&inner, forever)
                    .map(|(_, member)| run(member))
                    .is_ok()
            }
        });
        let (_, member) = child(&outer, open_and_drop(inner)).unwrap();
        let member = thread::spawn(move || run(member).1);
        let (result, _) = run(scope(&outer, None, ready()));
        let was_gone = gone.is();
        assert!(result.is_ok());
        member.join().unwrap();
        let accepted = spawner.join().unwrap();
        assert!(was_gone || !accepted, "a grandchild outlived the scope");
        seen.note(if accepted { "accepted" } else { "refused" });
    });
}

#[test]
fn drop_in_a_stranger_x_parent_close() {
    let runtime = Runtime::new();
    explore(
        &["the parent waited", "the root", "gone before"],
        move |seen| {
            let (outer, gone) = (group(), Gone::new());
            let inner = group_in(&outer);
            let root = runtime.root();
            let grandchild = waiting(&inner, &gone);
            let dropped = opened(&inner, Some(&runtime.handle()), endless());
            let stranger = thread::spawn({
                let root = root.clone();
                move || {
                    drop(dropped);
                    root.orphans()
                }
            });
            let (result, polls) = run(scope(&outer, None, ready()));
            let was_gone = gone.is();
            assert!(result.is_ok());
            let orphans = stranger.join().unwrap();
            assert!(grandchild.join().unwrap());
            assert_eq!(root.orphans(), 0);
            assert!(was_gone || polls == 1, "the parent came back too early");
            seen.note(match (orphans, polls) {
                (1, _) => "the root",
                (_, 1) => "gone before",
                _ => "the parent waited",
            });
        },
    );
}

#[test]
fn count_on_the_nearest_x_close_x_refused_spawn() {
    let runtime = Runtime::new();
    explore(&["the group", "the root"], move |seen| {
        let core = group();
        let given_up = Gone::new();
        let root_state = crate::root::of(Some(runtime.handle().id()));
        let owner = thread::spawn({
            let (core, guard) = (core.clone(), given_up.guard());
            move || {
                let owner = Owner::nearest(Some(&core), || root_state);
                let is_group = matches!(owner, Owner::Group(..));
                drop(guard);
                owner.settle();
                is_group
            }
        });
        let spawner = thread::spawn({
            let core = core.clone();
            move || {
                if core.enter(Kind::Normal).is_ok() {
                    core.leave(Kind::Normal);
                }
            }
        });
        let (result, _) = run(scope(&core, None, ready()));
        let was_given_up = given_up.is();
        assert!(result.is_ok());
        spawner.join().unwrap();
        let is_group = owner.join().unwrap();
        assert!(was_given_up || !is_group, "a closed group was counted on");
        seen.note(if is_group { "the group" } else { "the root" });
    });
}

#[test]
fn count_on_the_nearest_x_drop_of_its_scope() {
    let runtime = Runtime::new();
    explore(&["the group", "the root"], move |seen| {
        let core = group();
        let root = runtime.root();
        let root_state = crate::root::of(Some(runtime.handle().id()));
        let owner = thread::spawn({
            let core = core.clone();
            move || Owner::nearest(Some(&core), || root_state)
        });
        drop(opened(&core, Some(&runtime.handle()), endless()));
        let owner = owner.join().unwrap();
        assert_eq!(root.orphans(), 1, "whoever is counted on is itself held");
        let is_group = matches!(owner, Owner::Group(..));
        owner.settle();
        assert_eq!(root.orphans(), 0);
        seen.note(if is_group { "the group" } else { "the root" });
    });
}

#[test]
fn two_levels_at_once() {
    explore(&["waited for", "gone before"], |seen| {
        let (outer, gone) = (group(), Gone::new());
        let middle = group_in(&outer);
        let inner = group_in(&middle);
        // Two scopes, one in the other, fall in one go; the innermost child hears of it last.
        let grandchild = waiting(&inner, &gone);
        let mut nested = opened(&inner, None, endless());
        let (_, holder) = child(&middle, async move {
            nested.as_mut().await.ok();
        })
        .unwrap();
        let holder = thread::spawn(move || run(holder).1);
        let (_, member) = child(&outer, open_and_drop(middle)).unwrap();
        let (_, polls) = run(member);
        assert!(gone.is(), "a grandchild outlived the child around it");
        assert!(grandchild.join().unwrap());
        holder.join().unwrap();
        seen.note(if polls > 1 {
            "waited for"
        } else {
            "gone before"
        });
    });
}

#[test]
fn settle_x_settle_x_settling_child() {
    explore(&["waited for", "gone before"], |seen| {
        let outer = group();
        let inners = [group_in(&outer), group_in(&outer)];
        let gone = [Gone::new(), Gone::new()];
        let [a, b] = inners.clone();
        let grandchildren = [waiting(&a, &gone[0]), waiting(&b, &gone[1])];
        let (_, member) = child(&outer, async move {
            open_and_drop(a).await;
            open_and_drop(b).await;
        })
        .unwrap();
        let (outcome, polls) = run(member);
        assert!(
            gone.iter().all(Gone::is),
            "the child ended before its scopes"
        );
        assert!(matches!(outcome, Settled::Completed(_)));
        for grandchild in grandchildren {
            assert!(grandchild.join().unwrap());
        }
        drop(inners);
        seen.note(if polls > 1 {
            "waited for"
        } else {
            "gone before"
        });
    });
}

#[test]
fn heir_x_settle() {
    explore(&["inherited", "gone before"], |seen| {
        let (outer, gone) = (group(), Gone::new());
        let inner = group_in(&outer);
        let grandchild = waiting(&inner, &gone);
        let (_, member) = child(&outer, open_and_drop(inner)).unwrap();
        // The runtime drops the wrapper while the child waits for the scope it dropped.
        let shutdown = thread::spawn(move || {
            let mut member = Box::pin(member);
            let parker = Parker::new();
            let is_ready = parker.poll(&mut member).is_ready();
            drop(member);
            is_ready
        });
        let (result, _) = run(scope(&outer, None, ready()));
        assert!(gone.is(), "a grandchild outlived the scope");
        assert!(result.is_ok(), "the child itself had ended before");
        assert!(grandchild.join().unwrap());
        let is_ready = shutdown.join().unwrap();
        seen.note(if is_ready { "gone before" } else { "inherited" });
    });
}

#[test]
fn orphan_of_a_body_x_child_exit() {
    explore(&["waited for", "gone before"], |seen| {
        let (outer, gone) = (group(), Gone::new());
        let inner = group_in(&outer);
        let grandchild = waiting(&inner, &gone);
        let body = async move {
            open_and_drop(inner).await;
            Ok(())
        };
        let (result, polls) = run(scope(&outer, None, body));
        assert!(gone.is(), "a grandchild outlived the scope");
        assert!(result.is_ok());
        assert!(grandchild.join().unwrap());
        seen.note(if polls > 1 {
            "waited for"
        } else {
            "gone before"
        });
    });
}

#[test]
fn wait_for_the_root_x_last_settle() {
    let runtime = Runtime::new();
    explore(&["woken", "none was left"], move |seen| {
        let (core, gone) = (group(), Gone::new());
        let grandchild = waiting(&core, &gone);
        let root: PlainArc<_> = crate::root::of(Some(runtime.handle().id()));
        drop(opened(&core, Some(&runtime.handle()), endless()));
        let ((), polls) = run(root.emptied());
        assert!(gone.is());
        assert!(grandchild.join().unwrap());
        seen.note(if polls > 1 { "woken" } else { "none was left" });
    });
}

#[test]
fn two_scopes_dropped_by_children_of_one_another() {
    let runtime = Runtime::new();
    explore(&["each by the other", "one was cancelled"], move |seen| {
        let outer = group();
        let root = runtime.root();
        let scopes = [group_in(&outer), group_in(&outer)];
        let [a, b] = scopes
            .each_ref()
            .map(|inner| opened(inner, Some(&runtime.handle()), endless()));
        let gone = [Gone::new(), Gone::new()];
        let children = [(0, b), (1, a)].map(|(own, other)| {
            let guard = gone[own].guard();
            let (_, member) = child(&scopes[own], async move {
                drop(other);
                drop(guard);
            })
            .unwrap();
            member
        });
        let children = children.map(|child| thread::spawn(move || is_cancelled(&run(child).0)));
        // Were each the one who waits for the other, neither would end.
        let cancelled = children.map(|child| child.join().unwrap());
        assert!(gone.iter().all(Gone::is));
        assert!(scopes.iter().all(|inner| inner.children(false) == 0));
        assert_eq!(root.orphans(), 0);
        seen.note(match cancelled {
            [false, false] => "each by the other",
            _ => "one was cancelled",
        });
    });
}

#[test]
fn a_scope_dropped_by_a_stranger_child_x_close_of_its_parent() {
    // The child that drops it is not inside the group that it was opened in: whoever is left there waits, not the child.
    let runtime = Runtime::new();
    explore(
        &["the parent waited", "the root", "gone before"],
        move |seen| {
            let (outer, other, gone) = (group(), group(), Gone::new());
            let inner = group_in(&outer);
            let root = runtime.root();
            let grandchild = waiting(&inner, &gone);
            let dropped = opened(&inner, Some(&runtime.handle()), endless());
            let (_, dropper) = child(&other, async move { drop(dropped) }).unwrap();
            let stranger = thread::spawn({
                let root = root.clone();
                move || {
                    let (_, polls) = run(dropper);
                    assert_eq!(polls, 1, "it does not wait");
                    root.orphans()
                }
            });
            let (result, polls) = run(scope(&outer, None, ready()));
            let was_gone = gone.is();
            assert!(result.is_ok());
            let orphans = stranger.join().unwrap();
            assert!(grandchild.join().unwrap());
            assert_eq!(root.orphans(), 0);
            assert!(was_gone || polls == 1, "the parent came back too early");
            seen.note(match (orphans, polls) {
                (1, _) => "the root",
                (_, 1) => "gone before",
                _ => "the parent waited",
            });
        },
    );
}
