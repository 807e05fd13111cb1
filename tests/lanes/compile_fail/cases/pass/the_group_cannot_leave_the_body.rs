//! A spawner goes anywhere.

use ringfence::{GroupError, TaskGroup, scope};

async fn keep() -> Result<(), GroupError<String>> {
    let spawner = scope(async |group: &TaskGroup<String>| Ok(group.spawner())).await?;
    drop(spawner);
    Ok(())
}

fn main() {
    drop(keep());
}
