//! Who is cancelled, and whether he hears of it.

use std::future::poll_fn;
use std::sync::atomic::AtomicUsize;
use std::task::Poll;

use loom::thread;

use super::{
    Gone, child, explore, group, group_with_grace, is_cancelled, ready, requested, run, scope, turn,
};
use crate::cancel::token;
use crate::group::handle::Settled;
use crate::observe::CancelReason;
use crate::state::registry::Mark;
use crate::state::word::Kind;
use crate::state::{Core, Why};
use crate::sync::{Arc, Ordering, PlainArc};

#[test]
fn cancel_x_exit() {
    let outcomes = ["completed, then cancelled", "completed", "cancelled"];
    explore(&outcomes, |seen| {
        let core = group();
        let (_, member) = child(&core, turn()).unwrap();
        let member = thread::spawn(move || run(member).0);
        let canceller = thread::spawn({
            let core = core.clone();
            move || core.cancel(requested())
        });
        let (result, _) = run(scope(&core, None, ready()));
        canceller.join().unwrap();
        seen.note(match (member.join().unwrap(), result) {
            (Settled::Completed(_), Ok(())) => "completed",
            (Settled::Completed(_), Err(error)) if error.is_cancelled() => {
                "completed, then cancelled"
            }
            (Settled::Cancelled(Why::Group), Err(error)) if error.is_cancelled() => {
                assert_eq!(core.reason(), Some(requested()));
                "cancelled"
            }
            _ => "something else",
        });
    });
}

/// A child that would wait for ever, and `cancel` in another thread: it ends in every interleaving.
fn first_park(cancel: impl Fn(&Core, u64) + Copy + Send + Sync + 'static) {
    first_park_of(1, cancel);
}

/// The same for the child with this serial.
fn first_park_of(which: u64, cancel: impl Fn(&Core, u64) + Copy + Send + Sync + 'static) {
    let outcomes = ["never polled", "ended at its first wait", "woken"];
    explore(&outcomes, move |seen| {
        let core = group();
        let polls = PlainArc::new(AtomicUsize::new(0));
        let counted = polls.clone();
        let forever = poll_fn(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Poll::<()>::Pending
        });
        for _ in 1..which {
            core.enter(Kind::Normal).unwrap();
            core.leave(Kind::Normal);
        }
        let (serial, member) = child(&core, forever).unwrap();
        assert_eq!(serial, which);
        let canceller = thread::spawn({
            let core = core.clone();
            move || cancel(&core, serial)
        });
        // In a thread of its own, too: the first step of the main thread is no place to be preempted.
        let (outcome, turns) = thread::spawn(move || run(member)).join().unwrap();
        assert!(is_cancelled(&outcome));
        canceller.join().unwrap();
        seen.note(match (polls.load(Ordering::Relaxed), turns) {
            (0, _) => "never polled",
            (1, 1) => "ended at its first wait",
            (1, _) => "woken",
            _ => "polled after it was cancelled",
        });
    });
}

#[test]
fn cancel_x_first_park() {
    first_park(|core, _| core.cancel(requested()));
}

#[test]
fn cancel_x_first_park_in_the_first_shard() {
    first_park_of(8, |core, _| core.cancel(requested()));
}

#[test]
fn cancel_x_first_parks_of_two() {
    // Both may make the shards that there are not yet, and the canceller may look for them meanwhile.
    explore(&["one never waited", "both waited"], |seen| {
        let core = group();
        let polled = PlainArc::new(AtomicUsize::new(0));
        let members = [(); 2].map(|()| {
            let polled = polled.clone();
            let forever = poll_fn(move |_| {
                polled.fetch_add(1, Ordering::Relaxed);
                Poll::<()>::Pending
            });
            let (_, member) = child(&core, forever).unwrap();
            thread::spawn(move || run(member).0)
        });
        core.cancel(requested());
        for member in members {
            assert!(is_cancelled(&member.join().unwrap()));
        }
        seen.note(match polled.load(Ordering::Relaxed) {
            2 => "both waited",
            _ => "one never waited",
        });
    });
}

#[test]
fn cancel_child_x_first_park() {
    first_park(|core, serial| core.cancel_child(serial));
}

#[test]
fn cancel_children_x_first_park() {
    first_park(|core, _| core.cancel_children());
}

#[test]
fn cancel_child_x_first_park_beside_another_that_was_cancelled() {
    // Attention has been called already when the race begins.
    first_park(|core, serial| {
        core.cancel_child(serial + 1);
        core.cancel_child(serial);
    });
}

#[test]
fn cancel_child_x_end_of_a_child_that_waits_for_a_scope_it_dropped() {
    explore(&["before", "after"], |seen| {
        let core = group();
        let inner = super::group_in(&core);
        let (_, grandchild) = child(&inner, std::future::pending::<()>()).unwrap();
        let grandchild = thread::spawn(move || run(grandchild).0);
        let (serial, member) = child(&core, super::adoption::open_and_drop(inner)).unwrap();
        let canceller = thread::spawn({
            let core = core.clone();
            move || core.cancel_child(serial)
        });
        let (outcome, _) = thread::spawn(move || run(member)).join().unwrap();
        assert!(is_cancelled(&grandchild.join().unwrap()));
        canceller.join().unwrap();
        assert_eq!(core.children(true), 0);
        seen.note(if is_cancelled(&outcome) {
            "before"
        } else {
            "after"
        });
    });
}

#[test]
fn cancel_child_of_one_that_waits_for_a_scope_it_dropped_leaves_no_entry() {
    explore(&["cancelled while it waited", "had ended"], |seen| {
        let core = group();
        let inner = super::group_in(&core);
        let (_, grandchild) = child(&inner, std::future::pending::<()>()).unwrap();
        let grandchild = thread::spawn(move || run(grandchild).0);
        let (serial, member) = child(&core, super::adoption::open_and_drop(inner)).unwrap();
        let mut member = Box::pin(member);
        let parker = super::Parker::new();
        let ended = parker.poll(&mut member).is_ready();
        if !ended {
            core.cancel_child(serial);
            assert!(matches!(parker.run(member).0, Settled::Completed(_)));
            assert_eq!(core.registry().mark(serial), Mark::None, "no entry is left");
        }
        assert!(is_cancelled(&grandchild.join().unwrap()));
        seen.note(if ended {
            "had ended"
        } else {
            "cancelled while it waited"
        });
    });
}

#[test]
fn cancel_child_x_exit() {
    explore(&["completed", "cancelled"], |seen| {
        let core = group();
        let (serial, member) = child(&core, turn()).unwrap();
        let canceller = thread::spawn({
            let core = core.clone();
            move || core.cancel_child(serial)
        });
        let (outcome, _) = run(member);
        canceller.join().unwrap();
        assert!(core.word().read().is_open(), "the group goes on");
        assert_eq!(core.children(true), 0);
        seen.note(match outcome {
            Settled::Completed(_) => "completed",
            Settled::Cancelled(Why::Handle) => "cancelled",
            _ => "something else",
        });
    });
}

#[test]
fn cancel_children_x_spawn() {
    explore(&["the new one too", "the new one not"], |seen| {
        let core = group();
        let (_, present) = child(&core, std::future::pending::<()>()).unwrap();
        let present = thread::spawn(move || run(present).0);
        let spawner = thread::spawn({
            let core = core.clone();
            move || {
                let (_, member) = child(&core, turn()).expect("the group stays open");
                run(member).0
            }
        });
        core.cancel_children();
        assert!(
            matches!(present.join().unwrap(), Settled::Cancelled(Why::Children)),
            "whoever was there is cancelled"
        );
        let outcome = spawner.join().unwrap();
        assert!(core.enter(Kind::Normal).is_ok(), "the group stays open");
        seen.note(match outcome {
            Settled::Cancelled(Why::Children) => "the new one too",
            Settled::Completed(_) => "the new one not",
            _ => "something else",
        });
    });
}

#[test]
fn cancel_x_cancel_keeps_the_first_reason() {
    explore(&["by request", "by deadline"], |seen| {
        let core = group();
        let cancellers = [requested(), CancelReason::Deadline].map(|reason| {
            let core = core.clone();
            thread::spawn(move || {
                core.cancel(reason);
                core.reason()
            })
        });
        if core.word().read().is_cancelled() {
            assert!(
                core.reason().is_some(),
                "the reason is there before the flag"
            );
        }
        let [a, b] = cancellers.map(|canceller| canceller.join().unwrap());
        assert_eq!(a, b, "the first reason stands");
        let is_request = a == Some(requested());
        seen.note(if is_request {
            "by request"
        } else {
            "by deadline"
        });
    });
}

#[test]
fn deadline_x_finish() {
    explore(&["in time", "late", "late, though all had ended"], |seen| {
        let core = group();
        let gone = Gone::new();
        let guard = gone.guard();
        let (_, member) = child(&core, async move {
            let _guard = guard;
            turn().await;
        })
        .unwrap();
        let member = thread::spawn(move || run(member).0);
        // What the clock does when the deadline is due.
        let clock = thread::spawn({
            let core = core.clone();
            move || core.cancel(CancelReason::Deadline)
        });
        let (result, _) = run(scope(&core, None, ready()));
        assert!(gone.is());
        clock.join().unwrap();
        let outcome = member.join().unwrap();
        seen.note(match result {
            Ok(()) => {
                assert!(matches!(outcome, Settled::Completed(_)));
                "in time"
            }
            Err(error) => {
                assert!(error.is_deadline_exceeded());
                if is_cancelled(&outcome) {
                    "late"
                } else {
                    "late, though all had ended"
                }
            }
        });
    });
}

/// A child that ends when it is signalled, and `cancel`, which signals and then forces.
fn grace(cancel: impl Fn(&Core, u64) + Copy + Send + Sync + 'static) {
    explore(&["in time", "forced"], move |seen| {
        let core = group_with_grace();
        let (serial, member) = child(&core, async { token().cancelled().await }).unwrap();
        let canceller = thread::spawn({
            let core = core.clone();
            move || cancel(&core, serial)
        });
        let (outcome, _) = run(member);
        canceller.join().unwrap();
        assert_eq!(core.registry().mark(serial), Mark::None, "no entry is left");
        let stragglers = core.take_remains().stragglers.len();
        seen.note(match outcome {
            Settled::Completed(_) if stragglers == 0 => "in time",
            Settled::Cancelled(_) if stragglers == 1 => "forced",
            _ => "something else",
        });
    });
}

#[test]
fn grace_force_x_finish() {
    grace(|core, _| {
        core.cancel(requested());
        core.force();
    });
}

#[test]
fn grace_force_of_one_child_x_finish() {
    grace(|core, serial| {
        core.cancel_child(serial);
        for target in core.take_signalled() {
            core.force_target(target);
        }
    });
}

#[test]
fn grace_force_of_the_children_x_finish() {
    grace(|core, _| {
        core.cancel_children();
        for target in core.take_signalled() {
            core.force_target(target);
        }
    });
}

#[test]
fn force_x_force() {
    explore(&["cancelled"], |seen| {
        let core: Arc<Core> = group_with_grace();
        let (_, member) = child(&core, std::future::pending::<()>()).unwrap();
        let forcers = [false, true].map(|children| {
            let core = core.clone();
            thread::spawn(move || {
                if children {
                    core.cancel_children();
                    for target in core.take_signalled() {
                        core.force_target(target);
                    }
                } else {
                    core.cancel_now(requested());
                }
            })
        });
        assert!(is_cancelled(&run(member).0));
        for forcer in forcers {
            forcer.join().unwrap();
        }
        seen.note("cancelled");
    });
}
