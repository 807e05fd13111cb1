//! A handle borrows the group, so the body cannot return it.

use ringfence::{GroupError, TaskGroup, scope};

async fn leak() -> Result<(), GroupError<String>> {
    let handle = scope(async |group: &TaskGroup<String>| Ok(group.spawn(async { Ok(1) }))).await?;
    drop(handle);
    Ok(())
}

fn main() {
    drop(leak());
}
