//! The body has the group on loan, so it cannot return it.

use ringfence::{GroupError, TaskGroup, scope};

async fn leak() -> Result<(), GroupError<String>> {
    let group = scope(async |group: &TaskGroup<String>| Ok(group)).await?;
    drop(group);
    Ok(())
}

fn main() {
    drop(leak());
}
