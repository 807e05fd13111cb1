//! What throws where hardly anything ever does.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use ringfence::BorrowGroup;

use super::{Done, Group, Notes, observed};
use crate::support::{PanicOnDrop, caught, every_runtime};

/// Returns an output at once, and throws when it is dropped then.
struct Twice<T> {
    output: Option<T>,
    _late: PanicOnDrop,
}

fn twice<T>(output: T) -> Twice<T> {
    Twice {
        output: Some(output),
        _late: PanicOnDrop("future"),
    }
}

impl<T: Unpin> Future for Twice<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<T> {
        Poll::Ready(self.output.take().expect("polled once"))
    }
}

#[test]
fn a_value_that_throws_after_its_future_did_is_heard_of() {
    every_runtime(async || {
        let notes = Notes::default();
        let run = observed(&notes).run(async |group: &Group| -> Done {
            group.spawn(twice(Ok(PanicOnDrop("value"))));
            Ok(())
        });
        assert_eq!(caught(run).await.err().as_deref(), Some("future"));
        let run = observed(&notes).run_borrow(async |group: BorrowGroup<'_, String>| {
            group.spawn(twice(Ok(PanicOnDrop("value"))));
            Ok(())
        });
        assert_eq!(caught(run).await.err().as_deref(), Some("future"));
        assert_eq!(notes.displaced.entries(), ["value", "value"]);

        let run = observed(&notes).run_borrow(async |group: BorrowGroup<'_, String>| {
            group.spawn(twice(Err::<(), _>("error".to_owned())));
            Ok(())
        });
        assert_eq!(caught(run).await.err().as_deref(), Some("future"));
        assert_eq!(notes.displaced.entries()[2..], ["error"]);
    });
}

#[test]
fn a_refused_future_that_throws_when_it_is_dropped_is_heard_of() {
    every_runtime(async || {
        let notes = Notes::default();
        let run = observed(&notes).run(async |group: &Group| -> Done {
            let bomb = PanicOnDrop("refused");
            group.cancel();
            group.spawn(async move {
                let _bomb = bomb;
            });
            Ok(())
        });
        assert!(run.await.unwrap_err().is_cancelled());
        assert_eq!(notes.displaced.entries(), ["refused"]);
        assert_eq!(notes.spawned.get(), 0);
    });
}
