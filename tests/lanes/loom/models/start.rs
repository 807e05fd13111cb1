//! The handshake: who says that a child is ready may be in another thread, and the group may be cancelled meanwhile.

use loom::thread;

use super::adoption::Runtime;
use super::{Error, Gone, Pinned, explore, group, requested};
use crate::group::TaskGroup;
use crate::group::error::StartError;
use crate::group::start::Ready;
use crate::state::Core;
use crate::sync::{Arc, PlainArc};

type Given = PlainArc<loom::sync::Mutex<Option<Ready<u8>>>>;

/// How a start ended, for a child that never ends by itself and whose `Ready` is given away.
fn start(core: &Arc<Core>, runtime: &Runtime, gone: &Gone, given: Given) -> Pinned<Option<u8>> {
    let group: TaskGroup<Error> = TaskGroup::new(core.clone(), Some(runtime.handle()));
    let guard = gone.guard();
    Box::pin(async move {
        let started = group.start(|ready| async move {
            let _guard = guard;
            *given.lock().unwrap() = Some(ready);
            std::future::pending::<()>().await;
        });
        match started.await {
            Ok((value, handle)) => {
                handle.cancel();
                Some(value)
            }
            Err(StartError::Failed(_)) => unreachable!("it does not fail"),
            Err(StartError::NotReady | StartError::Cancelled(_)) => None,
        }
    })
}

#[test]
fn ready_x_poll() {
    explore(&["at once", "woken"], |seen| {
        let runtime = Runtime::new();
        let (core, gone, given) = (group(), Gone::new(), Given::default());
        let mut started = start(&core, &runtime, &gone, given.clone());
        let parker = super::Parker::new();
        assert!(parker.poll(&mut started).is_pending());
        let ready = given.lock().unwrap().take().unwrap();
        let sayer = thread::spawn(move || ready.set(7));
        let (value, polls) = parker.run(started);
        assert_eq!(value, Some(7));
        sayer.join().unwrap();
        seen.note(if polls == 1 { "at once" } else { "woken" });
        // It is a task that never ran: with its runtime it goes.
        drop(runtime);
        assert!(gone.is());
    });
}

#[test]
fn loss_of_ready_x_poll() {
    explore(&["at once", "woken"], |seen| {
        let runtime = Runtime::new();
        let (core, gone, given) = (group(), Gone::new(), Given::default());
        let mut started = start(&core, &runtime, &gone, given.clone());
        let parker = super::Parker::new();
        assert!(parker.poll(&mut started).is_pending());
        let ready = given.lock().unwrap().take().unwrap();
        let dropper = thread::spawn(move || drop(ready));
        let (value, polls) = parker.run(started);
        assert_eq!((value, gone.is()), (None, true));
        dropper.join().unwrap();
        assert_eq!(core.children(true), 0);
        seen.note(if polls == 1 { "at once" } else { "woken" });
    });
}

#[test]
fn ready_x_cancel() {
    explore(&["ready", "cancelled"], |seen| {
        let runtime = Runtime::new();
        let (core, gone, given) = (group(), Gone::new(), Given::default());
        let mut started = start(&core, &runtime, &gone, given.clone());
        let parker = super::Parker::new();
        assert!(parker.poll(&mut started).is_pending());
        let ready = given.lock().unwrap().take().unwrap();
        let sayer = thread::spawn(move || ready.set(7));
        let canceller = thread::spawn({
            let core = core.clone();
            move || core.cancel(requested())
        });
        let (value, _) = parker.run(started);
        sayer.join().unwrap();
        canceller.join().unwrap();
        drop(runtime);
        assert!(gone.is());
        assert_eq!(core.children(true), 0);
        seen.note(if value.is_some() {
            "ready"
        } else {
            "cancelled"
        });
    });
}

#[test]
fn ready_x_drop_of_the_start() {
    explore(&["gone"], |seen| {
        let runtime = Runtime::new();
        let (core, gone, given) = (group(), Gone::new(), Given::default());
        let mut started = start(&core, &runtime, &gone, given.clone());
        assert!(super::Parker::new().poll(&mut started).is_pending());
        let ready = given.lock().unwrap().take().unwrap();
        let sayer = thread::spawn(move || ready.set(7));
        drop(started);
        assert!(gone.is());
        assert_eq!(core.children(true), 0);
        sayer.join().unwrap();
        seen.note("gone");
    });
}
