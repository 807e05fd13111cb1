//! Who comes in while the group ends.

use loom::thread;

use super::{
    Gone, child, child_of_kind, endless, explore, group, is_cancelled, ready, requested, run, scope,
};
use crate::observe::CancelReason;
use crate::state::word::Kind;

#[test]
fn spawn_x_last_exit() {
    explore(&["accepted", "refused"], |seen| {
        let core = group();
        let gone = Gone::new();
        let spawner = thread::spawn({
            let (core, guard) = (core.clone(), gone.guard());
            move || match child(&core, async move { drop(guard) }) {
                Ok((_, member)) => {
                    run(member);
                    true
                }
                Err(reason) => {
                    assert_eq!(reason, CancelReason::Closed);
                    false
                }
            }
        });
        let (result, _) = run(scope(&core, None, ready()));
        let was_gone = gone.is();
        assert!(result.is_ok());
        assert!(core.enter(Kind::Normal).is_err(), "closed is final");
        let accepted = spawner.join().unwrap();
        assert!(was_gone || !accepted, "a child outlived its scope");
        seen.note(if accepted { "accepted" } else { "refused" });
    });
}

#[test]
fn two_spawns_x_last_exit() {
    let outcomes = ["both accepted", "one accepted", "none accepted"];
    explore(&outcomes, |seen| {
        let core = group();
        let gone = [Gone::new(), Gone::new()];
        let spawners = gone.clone().map(|gone| {
            let core = core.clone();
            thread::spawn(move || {
                let guard = gone.guard();
                let first = child(&core, async move { drop(guard) }).map(|(_, member)| run(member));
                if first.is_err() {
                    assert!(core.enter(Kind::Normal).is_err(), "closed is final");
                }
                first.is_ok()
            })
        });
        let (result, _) = run(scope(&core, None, ready()));
        let was_gone = gone.map(|gone| gone.is());
        assert!(result.is_ok());
        assert!(core.enter(Kind::Background).is_err(), "closed is final");
        let accepted = spawners.map(|spawner| spawner.join().unwrap());
        for (was_gone, accepted) in was_gone.into_iter().zip(accepted) {
            assert!(was_gone || !accepted, "a child outlived its scope");
        }
        seen.note(match accepted {
            [true, true] => "both accepted",
            [false, false] => "none accepted",
            _ => "one accepted",
        });
    });
}

#[test]
fn spawn_x_exit_of_the_last_normal_member_beside_a_background_child() {
    explore(&["accepted", "refused"], |seen| {
        let core = group();
        let gone = Gone::new();
        let guard = gone.guard();
        let (_, member) = child_of_kind(&core, Kind::Background, async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        })
        .unwrap();
        let background = thread::spawn(move || run(member).0);
        let spawner = thread::spawn({
            let core = core.clone();
            move || {
                let first = child(&core, async {}).map(|(_, member)| run(member));
                if first.is_err() {
                    assert!(core.enter(Kind::Normal).is_err(), "closing is final");
                }
                first.is_ok()
            }
        });
        let (result, _) = run(scope(&core, None, ready()));
        assert!(gone.is(), "a background child outlived its scope");
        assert!(result.is_ok());
        assert!(is_cancelled(&background.join().unwrap()));
        let accepted = spawner.join().unwrap();
        seen.note(if accepted { "accepted" } else { "refused" });
    });
}

#[test]
fn spawn_x_cancel() {
    explore(&["accepted", "refused"], |seen| {
        let core = group();
        let gone = Gone::new();
        let spawner = thread::spawn({
            let (core, guard) = (core.clone(), gone.guard());
            move || {
                let forever = async move {
                    let _guard = guard;
                    std::future::pending::<()>().await;
                };
                let came_late = !core.word().read().is_open();
                match child(&core, forever) {
                    Ok((_, member)) => {
                        assert!(!came_late, "closing is final");
                        assert!(is_cancelled(&run(member).0));
                        true
                    }
                    Err(reason) => {
                        assert_eq!(reason, requested(), "the reason is there before the flag");
                        false
                    }
                }
            }
        });
        let canceller = thread::spawn({
            let core = core.clone();
            move || core.cancel(requested())
        });
        let (result, _) = run(scope(&core, None, endless()));
        let was_gone = gone.is();
        assert!(result.unwrap_err().is_cancelled());
        canceller.join().unwrap();
        let accepted = spawner.join().unwrap();
        assert!(was_gone || !accepted, "a child outlived its scope");
        seen.note(if accepted { "accepted" } else { "refused" });
    });
}

#[test]
fn adopted_x_spawn_beside_a_background_child() {
    explore(&["among the normal", "among the background"], |seen| {
        let core = group();
        core.enter(Kind::Background).unwrap();
        let body = thread::spawn({
            let core = core.clone();
            move || core.leave(Kind::Normal)
        });
        let adopter = thread::spawn({
            let core = core.clone();
            move || core.word().try_adopt().expect("somebody is in")
        });
        if core.enter(Kind::Normal).is_ok() {
            core.leave(Kind::Normal);
        } else {
            assert!(core.enter(Kind::Normal).is_err(), "closing is final");
        }
        body.join().unwrap();
        let kind = adopter.join().unwrap();
        core.leave(kind);
        core.leave(Kind::Background);
        assert_eq!(core.children(false), 0);
        seen.note(match kind {
            Kind::Normal => "among the normal",
            Kind::Background => "among the background",
        });
    });
}
