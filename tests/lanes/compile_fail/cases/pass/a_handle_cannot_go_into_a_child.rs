//! A detached handle yields the outcome, anywhere.

use ringfence::{GroupError, TaskGroup, scope};

async fn chain() -> Result<u32, GroupError<String>> {
    scope(async |group: &TaskGroup<String>| {
        let first = group.spawn(async { Ok(1) }).detached();
        let second = group.spawn(async move { Ok(first.await.completed().unwrap_or(0) + 1) });
        Ok(second.await)
    })
    .await
}

fn main() {
    drop(chain());
}
