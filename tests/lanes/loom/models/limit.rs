//! Permits: who gives one back, who waits for one, who leaves the line.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;

use super::{Parker, explore, run};
use crate::limit::gate::{Gate, Wait};
use crate::sync::Arc;

/// A wait for so many permits, which gives up when it is dropped.
struct Taking {
    gate: Arc<Gate>,
    n: u32,
    wait: Wait,
}

fn taking(gate: &Arc<Gate>, n: u32) -> Taking {
    Taking {
        gate: gate.clone(),
        n,
        wait: Wait::default(),
    }
}

impl Future for Taking {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let me = &mut *self;
        me.wait.poll(&me.gate, me.n, cx).map(|taken| taken.unwrap())
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.wait.abandon(&self.gate, self.n);
    }
}

fn at_rest(gate: &Gate) {
    assert_eq!((gate.in_flight(), gate.waiting()), (0, 0));
}

#[test]
fn give_x_wait() {
    explore(&["at once", "after a wait"], |seen| {
        let gate = Arc::new(Gate::new(1));
        let guarded = Arc::new(AtomicUsize::new(0));
        assert!(gate.try_take(1));
        let other = thread::spawn({
            let (gate, guarded) = (gate.clone(), guarded.clone());
            move || {
                let ((), polls) = run(taking(&gate, 1));
                // Relaxed: the permit itself has to bring what its former holder did.
                assert_eq!(guarded.load(Relaxed), 1);
                gate.give(1);
                polls
            }
        });
        guarded.store(1, Relaxed);
        gate.give(1);
        let polls = other.join().unwrap();
        at_rest(&gate);
        seen.note(if polls == 1 {
            "at once"
        } else {
            "after a wait"
        });
    });
}

#[test]
fn two_gives_x_a_wait_for_both() {
    explore(&["at once", "after a wait"], |seen| {
        let gate = Arc::new(Gate::new(2));
        assert!(gate.try_take(2));
        let giver = thread::spawn({
            let gate = gate.clone();
            move || gate.give(1)
        });
        let waiter = thread::spawn({
            let gate = gate.clone();
            move || {
                let ((), polls) = run(taking(&gate, 2));
                gate.give(2);
                polls
            }
        });
        gate.give(1);
        giver.join().unwrap();
        let polls = waiter.join().unwrap();
        at_rest(&gate);
        seen.note(if polls == 1 {
            "at once"
        } else {
            "after a wait"
        });
    });
}

#[test]
fn give_x_a_waiter_that_leaves() {
    explore(&["had it", "left before", "taken"], |seen| {
        let gate = Arc::new(Gate::new(1));
        assert!(gate.try_take(1));
        let parker = Parker::new();
        let mut leaver = Box::pin(taking(&gate, 1));
        assert!(parker.poll(&mut leaver).is_pending());
        let waiter = thread::spawn({
            let gate = gate.clone();
            move || {
                let _ = run(taking(&gate, 1));
                gate.give(1);
            }
        });
        let giver = thread::spawn({
            let gate = gate.clone();
            move || gate.give(1)
        });
        let was_taken = parker.poll(&mut leaver).is_ready();
        let was_granted = gate.waiting() == 0;
        drop(leaver);
        if was_taken {
            gate.give(1);
        }
        giver.join().unwrap();
        waiter.join().unwrap();
        at_rest(&gate);
        seen.note(match (was_taken, was_granted) {
            (true, _) => "taken",
            (false, true) => "had it",
            (false, false) => "left before",
        });
    });
}

#[test]
fn raise_x_wait() {
    explore(&["at once", "after a wait"], |seen| {
        let gate = Arc::new(Gate::new(1));
        assert!(gate.try_take(1));
        let waiter = thread::spawn({
            let gate = gate.clone();
            move || run(taking(&gate, 1)).1
        });
        gate.resize(2);
        gate.wake();
        let polls = waiter.join().unwrap();
        gate.give(1);
        gate.give(1);
        at_rest(&gate);
        seen.note(if polls == 1 {
            "at once"
        } else {
            "after a wait"
        });
    });
}
