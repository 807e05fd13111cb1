//! `ScopeBody` can.

use ringfence::{GroupError, ScopeBody, scope};

fn send<F: Future + Send>(future: F) -> F {
    future
}

fn generic<F>(body: F) -> impl Future<Output = Result<u32, GroupError<String>>> + Send
where
    F: for<'g> ScopeBody<'g, String, u32, Fut: Send> + Send,
{
    send(async move { scope(async move |group| body.call(group).await).await })
}

fn main() {
    drop(generic(async |_| Ok(1)));
}
