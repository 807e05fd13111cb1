//! A plain value is wrapped.

use ringfence::{GroupError, TaskGroup, scope};

async fn three() -> Result<u32, GroupError<String>> {
    scope(async |group: &TaskGroup<String>| {
        let child = group.spawn(async { Ok(3_u32) });
        Ok(child.await)
    })
    .await
}

fn main() {
    drop(three());
}
