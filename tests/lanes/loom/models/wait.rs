//! The one who waits for the group: woken, moved, or dropped.

use loom::thread;

use super::adoption::Runtime;
use super::{Gone, Parker, child, endless, explore, group, ready, run, scope, turn};
use crate::group::handle::Settled;

#[test]
fn poll_x_wake_x_drop_of_the_waiter() {
    let runtime = Runtime::new();
    let outcomes = ["adopted", "the child was gone", "ready"];
    explore(&outcomes, move |seen| {
        let core = group();
        let root = runtime.root();
        let (_, member) = child(&core, turn()).unwrap();
        let member = thread::spawn(move || run(member).0);
        let parker = Parker::new();
        let mut waiter = scope(&core, Some(&runtime.handle()), ready());
        let is_ready = parker.poll(&mut waiter).is_ready();
        drop(waiter);
        let outcome = member.join().unwrap();
        assert_eq!(root.orphans(), 0);
        assert_eq!(core.children(false), 0);
        drop(core);
        assert_eq!(std::sync::Arc::strong_count(&parker), 1, "no waker is left");
        seen.note(match outcome {
            _ if is_ready => "ready",
            Settled::Cancelled(_) => "adopted",
            _ => "the child was gone",
        });
    });
}

#[test]
fn waker_replaced_between_polls() {
    let outcomes = ["ready at once", "ready with the second waker", "woken"];
    explore(&outcomes, |seen| {
        let core = group();
        let gone = Gone::new();
        let guard = gone.guard();
        let (_, member) = child(&core, async move { drop(guard) }).unwrap();
        let member = thread::spawn(move || run(member).0);
        let mut waiter = scope(&core, None, ready());
        let first = Parker::new();
        let outcome = if first.poll(&mut waiter).is_ready() {
            "ready at once"
        } else if Parker::new().run(waiter).1 == 1 {
            "ready with the second waker"
        } else {
            "woken"
        };
        assert!(gone.is());
        member.join().unwrap();
        seen.note(outcome);
    });
}

#[test]
fn body_force_x_body_wait() {
    explore(
        &["forced before the body was polled", "at its wait", "woken"],
        |seen| {
            let core = group();
            let gone = Gone::new();
            let guard = gone.guard();
            let polled = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
            let canceller = thread::spawn({
                let core = core.clone();
                move || core.cancel(super::requested())
            });
            let body = {
                let polled = polled.clone();
                async move {
                    let _guard = guard;
                    polled.store(true, std::sync::atomic::Ordering::Relaxed);
                    endless().await
                }
            };
            let scope = scope(&core, None, body);
            let (result, polls) = thread::spawn(move || run(scope)).join().unwrap();
            assert!(gone.is());
            assert!(result.unwrap_err().is_cancelled());
            canceller.join().unwrap();
            seen.note(
                match (polled.load(std::sync::atomic::Ordering::Relaxed), polls) {
                    (false, _) => "forced before the body was polled",
                    (true, 1) => "at its wait",
                    (true, _) => "woken",
                },
            );
        },
    );
}
