//! A handle that yields the value lives in the body: only there can a missing value end the wait.

use ringfence::{GroupError, TaskGroup, scope};

async fn chain() -> Result<u32, GroupError<String>> {
    scope(async |group: &TaskGroup<String>| {
        let first = group.spawn(async { Ok(1) });
        let second = group.spawn(async move { Ok(first.await + 1) });
        Ok(second.await)
    })
    .await
}

fn main() {
    drop(chain());
}
