//! Slots of a limit: waited for, granted, lent, given back.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use loom::thread;

use super::{Gone, Parker, child, explore, group, ready, requested, run, scope, turn};
use crate::group::slots::{Gate, Slots, WithSlot};
use crate::group::spawn::Birth;
use crate::state::word::Kind;
use crate::state::{Core, Settings};
use crate::sync::Arc;

/// Waits for a slot, holds it for a moment, and gives it back; says whether there was one.
async fn user(gate: Gate, core: Arc<Core>) -> bool {
    let birth = Birth::here(Kind::Normal);
    let taken = gate.take(&core, &birth).await;
    taken.is_ok()
}

fn gate(slots: &Slots, core: &Arc<Core>) -> Gate {
    Gate::new(slots.clone(), core)
}

#[test]
fn wait_x_give_back() {
    explore(&["at once", "waited"], |seen| {
        let (core, slots) = (group(), Slots::new(1));
        let held = gate(&slots, &core).try_take();
        assert!(held.is_some());
        let giver = thread::spawn(move || drop(held));
        let (taken, polls) = run(user(gate(&slots, &core), core));
        assert!(taken);
        giver.join().unwrap();
        assert_eq!(slots.free(), 1);
        seen.note(if polls == 1 { "at once" } else { "waited" });
    });
}

#[test]
fn wait_x_wait_x_give_back() {
    explore(&["both"], |seen| {
        let (core, slots) = (group(), Slots::new(1));
        let held = gate(&slots, &core).try_take();
        let other = thread::spawn({
            let user = user(gate(&slots, &core), core.clone());
            move || run(user).0
        });
        let giver = thread::spawn(move || drop(held));
        assert!(run(user(gate(&slots, &core), core)).0);
        assert!(other.join().unwrap());
        giver.join().unwrap();
        assert_eq!(slots.free(), 1);
        seen.note("both");
    });
}

/// Polls a wait once, and drops it.
struct Once<F>(Pin<Box<F>>);

impl<F: Future> Future for Once<F> {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        Poll::Ready(self.0.as_mut().poll(cx).is_ready())
    }
}

#[test]
fn drop_of_the_waiter_x_give_back_x_the_next() {
    explore(&["had it first", "gave up"], |seen| {
        let (core, slots) = (group(), Slots::new(1));
        let held = gate(&slots, &core).try_take();
        let quitter = thread::spawn({
            let user = user(gate(&slots, &core), core.clone());
            move || run(Once(Box::pin(user))).0
        });
        let giver = thread::spawn(move || drop(held));
        assert!(run(user(gate(&slots, &core), core)).0, "a slot was lost");
        let had_it = quitter.join().unwrap();
        giver.join().unwrap();
        assert_eq!(slots.free(), 1);
        seen.note(if had_it { "had it first" } else { "gave up" });
    });
}

#[test]
fn wait_x_cancel_x_give_back() {
    explore(&["a slot", "cancelled"], |seen| {
        let (core, slots) = (group(), Slots::new(1));
        let held = gate(&slots, &core).try_take();
        let giver = thread::spawn(move || drop(held));
        let canceller = thread::spawn({
            let core = core.clone();
            move || core.cancel(requested())
        });
        let taken = run(user(gate(&slots, &core), core)).0;
        giver.join().unwrap();
        canceller.join().unwrap();
        assert_eq!(slots.free(), 1, "a slot was lost");
        seen.note(if taken { "a slot" } else { "cancelled" });
    });
}

#[test]
fn lending_x_end_of_the_lender() {
    explore(&["its own", "lent"], |seen| {
        let (outer, slots, gone) = (group(), Slots::new(1), Gone::new());
        let slot = gate(&slots, &outer).try_take().unwrap();
        let guard = gone.guard();
        let work = async move {
            let _guard = guard;
            turn().await;
        };
        let (serial, lender) = child(&outer, WithSlot::new(work, slot)).unwrap();
        let settings = Settings {
            opener: serial,
            ..Settings::default()
        };
        let inner = Core::new(settings, Some(outer.clone()));
        // It is in the middle of its work, and ends in another thread.
        let mut lender = Box::pin(lender);
        assert!(Parker::new().poll(&mut lender).is_pending());
        let ender = thread::spawn(move || drop(run(lender).0));
        let taken = gate(&slots, &inner).try_take().unwrap();
        let is_lent = taken.is_lent();
        drop(taken);
        ender.join().unwrap();
        assert!(gone.is());
        assert_eq!(slots.free(), 1, "one slot, however it came back");
        assert!(run(scope(&outer, None, ready())).0.is_ok());
        seen.note(if is_lent { "lent" } else { "its own" });
    });
}

#[test]
fn lending_x_wait_x_end_of_the_lender() {
    explore(&["both"], |seen| {
        let (outer, slots) = (group(), Slots::new(1));
        let slot = gate(&slots, &outer).try_take().unwrap();
        let (serial, lender) = child(&outer, WithSlot::new(turn(), slot)).unwrap();
        let settings = Settings {
            opener: serial,
            ..Settings::default()
        };
        let inner = Core::new(settings, Some(outer.clone()));
        let mut lender = Box::pin(lender);
        assert!(Parker::new().poll(&mut lender).is_pending());
        let borrowed = gate(&slots, &inner).try_take().unwrap();
        let giver = thread::spawn(move || drop(borrowed));
        let ender = thread::spawn(move || drop(run(lender).0));
        let inside = user(gate(&slots, &inner), inner);
        assert!(run(inside).0, "a slot was lost");
        giver.join().unwrap();
        ender.join().unwrap();
        assert_eq!(slots.free(), 1);
        seen.note("both");
    });
}
