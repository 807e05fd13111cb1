//! `AsyncFnOnce` cannot say that its future is `Send`, so a generic caller cannot spawn it.

use ringfence::{GroupError, TaskGroup, scope};

fn send<F: Future + Send>(future: F) -> F {
    future
}

fn generic<F>(body: F) -> impl Future<Output = Result<u32, GroupError<String>>> + Send
where
    F: AsyncFnOnce(&TaskGroup<String>) -> Result<u32, String> + Send,
{
    send(async move { scope(body).await })
}

fn main() {
    drop(generic(async |_| Ok(1)));
}
