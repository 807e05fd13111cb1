//! Whether a signal is heard.

use loom::thread;

use super::{Parker, child, explore, group_in, group_with_grace, requested, run, turn};
use crate::cancel::Token;

fn note(polls: usize) -> &'static str {
    if polls == 1 {
        "signalled before"
    } else {
        "woken"
    }
}

#[test]
fn signal_x_listen() {
    explore(&["signalled before", "woken"], |seen| {
        let core = group_with_grace();
        let token = Token::of(core.clone(), 0);
        let canceller = thread::spawn(move || core.cancel(requested(), false));
        let ((), polls) = run(token.cancelled());
        assert_eq!(token.reason(), Some(requested()));
        canceller.join().unwrap();
        seen.note(note(polls));
    });
}

#[test]
fn signal_of_one_child_x_listen() {
    explore(&["signalled before", "woken"], |seen| {
        let core = group_with_grace();
        let (serial, member) = child(&core, turn()).unwrap();
        let token = Token::of(core.clone(), serial);
        let canceller = thread::spawn({
            let core = core.clone();
            move || core.cancel_child(serial)
        });
        let ((), polls) = run(token.cancelled());
        canceller.join().unwrap();
        assert!(
            !Token::of(core, 0).is_cancelled(),
            "the group's is another one"
        );
        drop(member);
        seen.note(note(polls));
    });
}

#[test]
fn signal_of_the_children_x_listen() {
    explore(&["signalled before", "woken"], |seen| {
        let core = group_with_grace();
        let (serial, member) = child(&core, turn()).unwrap();
        let token = Token::of(core.clone(), serial);
        let canceller = thread::spawn({
            let core = core.clone();
            move || core.cancel_children()
        });
        let ((), polls) = run(token.cancelled());
        canceller.join().unwrap();
        drop(member);
        seen.note(note(polls));
    });
}

#[test]
fn signal_of_the_outer_group_x_listen_in_the_inner() {
    explore(&["signalled before", "woken"], |seen| {
        let outer = group_with_grace();
        let inner = group_in(&outer);
        let token = Token::of(inner, 0);
        let canceller = thread::spawn(move || outer.cancel(requested(), false));
        let ((), polls) = run(token.cancelled());
        canceller.join().unwrap();
        seen.note(note(polls));
    });
}

#[test]
fn signal_x_drop_of_the_listener() {
    explore(&["it had heard", "it had not"], |seen| {
        let core = group_with_grace();
        let parker = Parker::new();
        let mut listener = Token::of(core.clone(), 0).cancelled();
        let canceller = thread::spawn({
            let core = core.clone();
            move || core.cancel(requested(), false)
        });
        let heard = parker.poll(&mut listener).is_ready();
        drop(listener);
        canceller.join().unwrap();
        assert_eq!(std::sync::Arc::strong_count(&parker), 1, "no waker is left");
        seen.note(if heard { "it had heard" } else { "it had not" });
    });
}
