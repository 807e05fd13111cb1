//! A detached handle does not.

use ringfence::{GroupError, TaskGroup, scope};

async fn keep() -> Result<(), GroupError<String>> {
    let handle = scope(async |group: &TaskGroup<String>| Ok(group.spawn(async { Ok(1) }).detached())).await?;
    drop(handle);
    Ok(())
}

fn main() {
    drop(keep());
}
