//! Whether a change of a watched value is seen by who waits for it.

use loom::thread;

use super::{Parker, explore, run};
use crate::sync::PlainArc;
use crate::watched::Watched;

fn note(polls: usize) -> &'static str {
    if polls == 1 { "seen at once" } else { "woken" }
}

#[test]
fn change_x_wait() {
    explore(&["seen at once", "woken"], |seen| {
        let watched = PlainArc::new(Watched::new(0));
        let changer = thread::spawn({
            let watched = watched.clone();
            move || watched.change(|value| *value = 1)
        });
        let (value, polls) = run(watched.until(|value| (*value > 0).then_some(*value)));
        assert_eq!(value, 1);
        changer.join().unwrap();
        seen.note(note(polls));
    });
}

#[test]
fn change_x_change_x_wait_for_both() {
    explore(&["seen at once", "woken", "woken twice"], |seen| {
        let watched = PlainArc::new(Watched::new(0));
        let changers: Vec<_> = (0..2)
            .map(|_| {
                let watched = watched.clone();
                thread::spawn(move || watched.change(|value| *value += 1))
            })
            .collect();
        let ((), polls) = run(watched.until(|value| (*value == 2).then_some(())));
        changers
            .into_iter()
            .for_each(|changer| changer.join().unwrap());
        seen.note(if polls == 3 {
            "woken twice"
        } else {
            note(polls)
        });
    });
}

#[test]
fn change_x_drop_of_one_wait_x_wait() {
    explore(&["seen at once", "woken"], |seen| {
        let watched = PlainArc::new(Watched::new(0));
        let parker = Parker::new();
        let mut other = watched.until(|value| (*value > 0).then_some(()));
        assert!(parker.poll(&mut other).is_pending());
        let changer = thread::spawn({
            let watched = watched.clone();
            move || watched.change(|value| *value = 1)
        });
        drop(other); // takes its own waker out, and nobody else's
        let ((), polls) = run(watched.until(|value| (*value > 0).then_some(())));
        changer.join().unwrap();
        seen.note(note(polls));
    });
}
