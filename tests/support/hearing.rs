//! Listening to `tracing`, beside other tests.

use tracing::{Dispatch, Subscriber, subscriber::with_default};

/// Runs it with this subscriber, and with another one that nobody uses: while there is one alone, `tracing` asks whichever thread is
/// the first at a place in the code whether anybody listens there, and that may be the thread of a test that does not.
pub(crate) fn hearing<S>(subscriber: &S, run: impl FnOnce())
where
    S: Subscriber + Clone + Send + Sync + 'static,
{
    let _nobodys = Dispatch::new(subscriber.clone());
    with_default(subscriber.clone(), run);
}
