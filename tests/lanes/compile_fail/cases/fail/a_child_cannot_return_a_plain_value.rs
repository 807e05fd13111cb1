//! A child returns `()` or a `Result`; the message says so.

use ringfence::{GroupError, TaskGroup, scope};

async fn three() -> Result<u32, GroupError<String>> {
    scope(async |group: &TaskGroup<String>| {
        let child = group.spawn(async { 3_u32 });
        Ok(child.await)
    })
    .await
}

fn main() {
    drop(three());
}
