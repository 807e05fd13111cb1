//! Children that live in the task of their scope: who rings at them, from other threads, and what their handles are told.

use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::task::{Poll, Waker};

use loom::sync::Mutex;
use loom::thread;

use super::{Error, Gone, explore, run, turn};
use crate::group::borrow::{BorrowGroup, BorrowSpawner, borrow_scope};
use crate::group::handle::{Outcome, OutcomeHandle};
use crate::sync::PlainArc;

type Group = BorrowGroup<'static, Error>;

/// Something that is told once, from another thread. Polls are counted.
#[derive(Clone, Default)]
struct Bell(PlainArc<Mutex<(bool, usize, Vec<Waker>)>>);

impl Bell {
    fn ring(&self) {
        let wakers = {
            let mut state = self.0.lock().unwrap();
            state.0 = true;
            std::mem::take(&mut state.2)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    async fn rung(&self) -> usize {
        poll_fn(|cx| {
            let mut state = self.0.lock().unwrap();
            state.1 += 1;
            if state.0 {
                return Poll::Ready(state.1);
            }
            state.2.push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// Runs a scope on this thread. The body hands `out` what other threads are to have.
fn drive<T: 'static>(
    body: impl FnOnce(&Group) -> T + 'static,
    give: impl FnOnce(T) + 'static,
) -> Result<(), crate::GroupError<Error>> {
    run(borrow_scope(|group: Group| async move {
        give(body(&group));
        Ok(())
    }))
    .0
}

#[test]
fn wake_x_sleep() {
    explore(&["at once", "woken"], |seen| {
        let bell = Bell::default();
        let ringer = thread::spawn({
            let bell = bell.clone();
            move || bell.ring()
        });
        let polls = run(borrow_scope(|group: Group| async move {
            Ok(group.spawn(async move { Ok(bell.rung().await) }).await)
        }))
        .0
        .unwrap();
        ringer.join().unwrap();
        seen.note(if polls == 1 { "at once" } else { "woken" });
    });
}

#[test]
fn wake_x_wake_x_poll() {
    // Two ring for two children: neither ring may hide the other.
    explore(&["both"], |seen| {
        let (one, two) = (Bell::default(), Bell::default());
        let ringers = [one.clone(), two.clone()].map(|bell| thread::spawn(move || bell.ring()));
        run(borrow_scope(|group: Group| async move {
            group.spawn(async move {
                one.rung().await;
            });
            group.spawn(async move {
                two.rung().await;
            });
            Ok(())
        }))
        .0
        .unwrap();
        ringers
            .into_iter()
            .for_each(|ringer| ringer.join().unwrap());
        seen.note("both");
    });
}

#[test]
fn late_wake_x_the_next_child_in_its_place() {
    // A waker of the first child is woken while the second one may have its node: at worst that is polled in vain.
    explore(&["early", "late"], |seen| {
        let (first, second) = (Bell::default(), Bell::default());
        let kept = PlainArc::new(Mutex::new(None));
        let keep = kept.clone();
        let (ring_first, ring_second) = (first.clone(), second.clone());
        let result = run(borrow_scope(|group: Group| async move {
            group
                .spawn(poll_fn(move |cx| {
                    let is_first = keep.lock().unwrap().replace(cx.waker().clone()).is_none();
                    if is_first {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Poll::Ready(())
                }))
                .await;
            let ringer = thread::spawn(move || {
                let old = kept.lock().unwrap().take();
                old.into_iter().for_each(Waker::wake);
                ring_second.ring();
            });
            ring_first.ring();
            first.rung().await;
            let polls = group.spawn(async move { Ok(second.rung().await) }).await;
            Ok((ringer, polls))
        }));
        let (ringer, polls) = result.0.unwrap();
        ringer.join().unwrap();
        seen.note(if polls == 1 { "early" } else { "late" });
    });
}

#[test]
fn cancel_by_handle_x_first_pending() {
    explore(&["polled", "not polled"], |seen| {
        let (gone, polls) = (Gone::new(), Bell::default());
        let (guard, counted) = (gone.guard(), polls.clone());
        let (send, receive) = loom::sync::mpsc::channel::<OutcomeHandle<()>>();
        let canceller = thread::spawn(move || {
            let handle = receive.recv().unwrap();
            handle.cancel();
            drop(handle);
        });
        let child = async move {
            let _guard = guard;
            counted.0.lock().unwrap().1 += 1;
            pending::<()>().await;
        };
        let result = drive(
            move |group| group.spawn(child).detached(),
            move |handle| send.send(handle).unwrap(),
        );
        assert!(result.is_ok());
        assert!(gone.is(), "the scope came back before its child was gone");
        canceller.join().unwrap();
        let polled = polls.0.lock().unwrap().1 > 0;
        seen.note(if polled { "polled" } else { "not polled" });
    });
}

#[test]
fn end_x_outcome_in_another_thread() {
    explore(&["at once", "waited"], |seen| {
        let (send, receive) = loom::sync::mpsc::channel::<OutcomeHandle<u8>>();
        let reader = thread::spawn(move || run(receive.recv().unwrap()));
        let result = drive(
            |group| {
                let child = async {
                    turn().await;
                    Ok(7)
                };
                group.spawn(child).detached()
            },
            move |handle| send.send(handle).unwrap(),
        );
        assert!(result.is_ok());
        let (outcome, polls) = reader.join().unwrap();
        assert_eq!(outcome, Outcome::Completed(7));
        seen.note(if polls == 1 { "at once" } else { "waited" });
    });
}

#[test]
fn spawn_from_another_thread_x_end() {
    explore(&["accepted", "refused"], |seen| {
        let gone = Gone::new();
        let guard = gone.guard();
        let (send, receive) = loom::sync::mpsc::channel::<BorrowSpawner<'static, Error>>();
        let spawner = thread::spawn(move || {
            let spawner = receive.recv().unwrap();
            let child = async move {
                turn().await;
                drop(guard);
            };
            spawner.try_spawn(child).is_ok()
        });
        let result = drive(
            |group| group.spawner(),
            move |spawner| send.send(spawner).unwrap(),
        );
        assert!(result.is_ok());
        let was_gone = gone.is();
        let accepted = spawner.join().unwrap();
        assert!(was_gone || !accepted, "a child outlived its scope");
        assert!(gone.is());
        seen.note(if accepted { "accepted" } else { "refused" });
    });
}

#[test]
fn spawn_from_another_thread_x_drop_of_the_scope() {
    explore(&["accepted", "refused"], |seen| {
        let gone = Gone::new();
        let guard = gone.guard();
        let given = PlainArc::new(Mutex::new(None));
        let give = given.clone();
        let mut scope = Box::pin(borrow_scope(|group: Group| async move {
            *give.lock().unwrap() = Some(group.spawner());
            pending::<Result<(), Error>>().await
        }));
        let mut cx = std::task::Context::from_waker(Waker::noop());
        assert!(Pin::as_mut(&mut scope).poll(&mut cx).is_pending());
        let spawner: BorrowSpawner<'static, Error> = given.lock().unwrap().take().unwrap();
        let spawning = thread::spawn(move || {
            let child = async move {
                let _guard = guard;
                pending::<()>().await;
            };
            let accepted = spawner.try_spawn(child).is_ok();
            (accepted, spawner)
        });
        drop(scope);
        let (accepted, spawner) = spawning.join().unwrap();
        // While the spawner is there, so is the inbox.
        assert!(gone.is(), "nobody dropped the child");
        assert!(!spawner.is_open());
        seen.note(if accepted { "accepted" } else { "refused" });
    });
}
