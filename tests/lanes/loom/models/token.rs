//! Whether a signal is heard.

use loom::thread;

use super::{
    Parker, child, explore, group, group_in, group_with_grace, is_cancelled, ready, requested, run,
    scope, turn,
};
use crate::cancel::{Token, token};
use crate::group::handle::Settled;
use crate::observe::CancelReason;
use crate::state::Core;
use crate::state::word::Kind;
use crate::sync::PlainArc;

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
        let canceller = thread::spawn(move || core.cancel(requested()));
        let ((), polls) = run(token.cancelled());
        assert_eq!(token.reason(), Some(requested()));
        canceller.join().unwrap();
        seen.note(note(polls));
    });
}

/// A child that waits for its token, which it first asks for then, and `cancel`, which signals it.
fn listening(cancel: impl Fn(&Core, u64) + Copy + Send + Sync + 'static) {
    explore(&["signalled before", "woken"], move |seen| {
        let core = group_with_grace();
        let (serial, member) = child(&core, async { token().cancelled().await }).unwrap();
        let canceller = thread::spawn({
            let core = core.clone();
            move || cancel(&core, serial)
        });
        let (settled, polls) = thread::spawn(move || run(member)).join().unwrap();
        canceller.join().unwrap();
        assert!(matches!(settled, Settled::Completed(_)));
        assert!(!Token::of(core, 0).is_cancelled(), "the group's is another");
        seen.note(note(polls));
    });
}

#[test]
fn signal_of_one_child_x_listen() {
    listening(|core, serial| core.cancel_child(serial));
}

#[test]
fn signal_of_the_children_x_listen() {
    listening(|core, _| core.cancel_children());
}

#[test]
fn signal_of_one_child_x_its_end_x_look_at_its_token() {
    explore(&["cancelled", "cancelled too late"], |seen| {
        let core = group_with_grace();
        let given = PlainArc::new(std::sync::OnceLock::new());
        let (serial, member) = child(&core, {
            let given = given.clone();
            async move {
                given.set(token()).unwrap();
                turn().await;
            }
        })
        .unwrap();
        let mut member = Box::pin(member);
        assert!(Parker::new().poll(&mut member).is_pending());
        let kept = given.get().unwrap().clone();
        let canceller = thread::spawn({
            let core = core.clone();
            move || core.cancel_child(serial)
        });
        let member = thread::spawn(move || run(member).0);
        let early = kept.is_cancelled();
        assert!(!early || kept.is_cancelled(), "sticky");
        canceller.join().unwrap();
        assert!(matches!(member.join().unwrap(), Settled::Completed(_)));
        let late = kept.reason();
        assert!(!early || late.is_some(), "sticky when the child is gone");
        core.leave(Kind::Normal);
        let expected = late.clone().unwrap_or(CancelReason::Closed);
        assert_eq!(kept.reason(), Some(expected), "sticky when its group is");
        seen.note(match late {
            Some(CancelReason::Handle) => "cancelled",
            _ => "cancelled too late",
        });
    });
}

#[test]
fn force_of_one_child_is_told_by_its_token_for_ever() {
    explore(&["at once", "in vain"], |seen| {
        let core = group();
        let given = PlainArc::new(std::sync::OnceLock::new());
        let (serial, member) = child(&core, {
            let given = given.clone();
            async move {
                given.set(token()).unwrap();
                turn().await;
            }
        })
        .unwrap();
        let mut member = Box::pin(member);
        assert!(Parker::new().poll(&mut member).is_pending());
        let kept = given.get().unwrap().clone();
        let canceller = thread::spawn({
            let core = core.clone();
            move || core.cancel_child(serial)
        });
        let (settled, _) = thread::spawn(move || run(member)).join().unwrap();
        let is_cancelled = is_cancelled(&settled);
        assert!(!is_cancelled || kept.reason() == Some(CancelReason::Handle));
        canceller.join().unwrap();
        core.leave(Kind::Normal);
        assert!(!is_cancelled || kept.reason() == Some(CancelReason::Handle));
        seen.note(if is_cancelled { "at once" } else { "in vain" });
    });
}

#[test]
fn end_of_the_group_x_listen_of_a_stranger() {
    explore(&["signalled before", "woken"], |seen| {
        let core = group();
        let token = Token::of(core.clone(), 0);
        let (_, member) = child(&core, async {}).unwrap();
        let member = thread::spawn(move || run(member).0);
        let stranger = thread::spawn(move || {
            let ((), polls) = run(token.cancelled());
            assert_eq!(token.reason(), Some(CancelReason::Closed));
            polls
        });
        assert!(run(scope(&core, None, ready())).0.is_ok());
        drop(member.join().unwrap());
        seen.note(note(stranger.join().unwrap()));
    });
}

#[test]
fn signal_of_the_outer_group_x_listen_in_the_inner() {
    explore(&["signalled before", "woken"], |seen| {
        let outer = group_with_grace();
        let inner = group_in(&outer);
        let token = Token::of(inner, 0);
        let canceller = thread::spawn(move || outer.cancel(requested()));
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
            move || core.cancel(requested())
        });
        let heard = parker.poll(&mut listener).is_ready();
        drop(listener);
        canceller.join().unwrap();
        assert_eq!(std::sync::Arc::strong_count(&parker), 1, "no waker is left");
        seen.note(if heard { "it had heard" } else { "it had not" });
    });
}
