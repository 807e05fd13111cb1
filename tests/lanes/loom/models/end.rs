//! Who goes last, and what the others see of it.

use loom::thread;

use super::{Error, Gone, child, explore, group, is_cancelled, ready, run, scope};
use crate::group::handle::Settled;
use crate::observe::CancelReason;

#[test]
fn exit_x_exit_x_wait_publishes_what_the_children_did() {
    explore(&["had to wait", "all were gone"], |seen| {
        let core = group();
        let gone = [Gone::new(), Gone::new()];
        let children = gone.clone().map(|gone| {
            let guard = gone.guard();
            let (_, member) = child(&core, async move { drop(guard) }).unwrap();
            thread::spawn(move || run(member).0)
        });
        let (result, polls) = run(scope(&core, None, ready()));
        assert!(result.is_ok());
        assert!(
            gone.iter().all(Gone::is),
            "the scope sees what its children did"
        );
        for child in children {
            assert!(matches!(child.join().unwrap(), Settled::Completed(_)));
        }
        seen.note(if polls > 1 {
            "had to wait"
        } else {
            "all were gone"
        });
    });
}

#[test]
fn failure_x_failure() {
    explore(&["both failed", "one was cancelled"], |seen| {
        let core = group();
        let children = ["a", "b"].map(|error| {
            child(&core, async move { Err::<(), Error>(error) })
                .unwrap()
                .1
        });
        let children = children.map(|member| thread::spawn(move || run(member).0));
        let (result, _) = run(scope(&core, None, ready()));
        let error = result.unwrap_err();
        let outcomes = children.map(|child| child.join().unwrap());
        let failed = |outcome: &Settled<_>| matches!(outcome, Settled::Failed);
        assert_eq!(error.len(), outcomes.iter().filter(|&o| failed(o)).count());
        // The first failure is the reason that the other one was given.
        let first = error.iter().next().unwrap().task().unwrap().id();
        for outcome in &outcomes {
            if let Settled::Cancelled(why) = outcome {
                assert_eq!(core.reason_why(*why), CancelReason::Failed(first));
            }
        }
        let both = outcomes.iter().all(failed);
        assert!(both || outcomes.iter().any(is_cancelled));
        seen.note(if both {
            "both failed"
        } else {
            "one was cancelled"
        });
    });
}

#[test]
fn exit_x_look() {
    explore(&["gone", "still there"], |seen| {
        let core = group();
        let gone = Gone::new();
        let guard = gone.guard();
        let (_, member) = child(&core, async move { drop(guard) }).unwrap();
        let member = thread::spawn(move || run(member).0);
        let looker = thread::spawn(move || {
            let is_gone = core.children(true) == 0;
            assert!(!is_gone || gone.is(), "who finds it gone sees what it did");
            is_gone
        });
        let is_gone = looker.join().unwrap();
        drop(member.join().unwrap());
        seen.note(if is_gone { "gone" } else { "still there" });
    });
}
