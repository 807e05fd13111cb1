//! Time that goes along: of scopes and timeouts that are moved, and deadlines that are later than what is around.

use std::{
    future::{Future, pending},
    pin::Pin,
};

use futures::poll;
use ringfence::{Deadline, Elapsed, GroupError, Scope, timeout};
use tokio::time::{Instant, sleep_until};

use super::{Done, Group, ms};
use crate::support::{Drops, PATIENCE, Watchdog, paused, paused_runtime};

type Ended = Result<(), GroupError<String>>;
type Moved<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A scope with this deadline that never ends by itself.
fn endless(deadline: Deadline) -> Moved<Ended> {
    let options = Scope::new().deadline(deadline);
    Box::pin(options.run(async |_: &Group| -> Done { pending().await }))
}

#[test]
fn a_later_deadline_of_an_inner_scope_is_kept_while_the_outer_one_closes() {
    for (own, expected) in [(99, 99), (100, 100), (150, 150), (2000, 1100)] {
        paused(async || {
            let start = Instant::now();
            let mut inner_ended = None;
            let options = Scope::new().deadline(Deadline::after(ms(100)));
            let ended = options.grace(ms(1000)).run(async |_: &Group| -> Done {
                let error = endless(Deadline::after(ms(own))).await.unwrap_err();
                assert!(error.is_deadline_exceeded());
                inner_ended = Some(start.elapsed());
                Ok(())
            });
            let error = ended.await.err();
            // What is ready at the very instant is in time.
            assert_eq!(error.is_some(), own > 100, "{own}");
            assert_eq!(start.elapsed(), ms(expected), "{own}");
            // The last one is dropped with the body when the grace is over.
            assert_eq!(inner_ended, (own < 1000).then_some(ms(own)));
        });
    }
}

#[test]
fn a_scope_moved_out_of_an_earlier_deadline_keeps_its_own() {
    paused(async || {
        let (start, mut out) = (Instant::now(), None);
        let options = Scope::new().deadline(Deadline::after(ms(1000)));
        let ended = options.run(async |_: &Group| {
            let mut inner = endless(Deadline::after(ms(2000)));
            assert!(poll!(&mut inner).is_pending());
            out = Some(inner);
            Ok(())
        });
        ended.await.expect("it was in time");
        let error = out.expect("it was moved out").await.unwrap_err();
        assert!(error.is_deadline_exceeded());
        assert_eq!(start.elapsed(), ms(2000));
    });
}

#[test]
fn a_timer_goes_along_to_another_runtime() {
    let _watchdog = Watchdog::start("two runtimes, paused", PATIENCE);
    for is_gone in [false, true] {
        let (old, new) = (paused_runtime(), paused_runtime());
        let drops = Drops::new();
        let mut of_a_scope = {
            let _inside = old.enter();
            endless(Deadline::after(ms(50)))
        };
        let mut of_a_timeout: Moved<Result<(), Elapsed>> = Box::pin(timeout(ms(70), {
            let guard = drops.guard();
            async move {
                let _guard = guard;
                pending::<()>().await;
            }
        }));
        old.block_on(async {
            assert!(poll!(&mut of_a_scope).is_pending());
            assert!(poll!(&mut of_a_timeout).is_pending());
        });
        if is_gone {
            drop(old);
        } // else it stands still, and nobody keeps its time
        new.block_on(async {
            let never = Instant::now() + ms(10_000);
            tokio::select! {
                biased;
                ended = of_a_scope => assert!(ended.unwrap_err().is_deadline_exceeded()),
                () = sleep_until(never) => panic!("the deadline is lost"),
            }
            tokio::select! {
                biased;
                ended = of_a_timeout => assert!(ended.is_err()),
                () = sleep_until(never) => panic!("the timeout is lost"),
            }
            assert_eq!(drops.alive(), 0);
        });
    }
}
