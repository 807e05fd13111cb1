//! Whether a run that pauses hears that its task is asked to end.

use std::future::poll_fn;

use loom::thread;

use super::{child, explore, group_with_grace, run};
use crate::group::handle::Settled;
use crate::retry::listen::{Around, Listen};
use crate::state::{Core, Settings};
use crate::sync::Arc;
use crate::time::Deadline;

/// A child that pauses for ever in a run of its own, and `end`, which asks it to end.
fn pausing(core: fn() -> Arc<Core>, end: impl Fn(&Core, u64) + Copy + Send + Sync + 'static) {
    explore(&["heard before", "woken"], move |seen| {
        let core = core();
        let pause = async {
            let mut around = Around::UNSEEN;
            poll_fn(|cx| {
                around.look(Deadline::NEVER, &Listen::Ambient);
                around.poll_cancelled(cx)
            })
            .await;
            assert!(around.is_cancelled());
        };
        let (serial, member) = child(&core, pause).unwrap();
        let ender = thread::spawn({
            let core = core.clone();
            move || end(&core, serial)
        });
        let (settled, polls) = run(member);
        ender.join().unwrap();
        assert!(matches!(settled, Settled::Completed(_)));
        seen.note(if polls == 1 { "heard before" } else { "woken" });
    });
}

/// A long-lived group learns of its grace only now.
#[test]
fn shutdown_x_pause() {
    let long_lived = || {
        let settings = Settings {
            is_long_lived: true,
            ..Settings::default()
        };
        Core::new(settings, None)
    };
    pausing(long_lived, |core, _| core.shut_down(true));
}

#[test]
fn signal_of_one_child_x_pause() {
    pausing(group_with_grace, |core, serial| core.cancel_child(serial));
}
