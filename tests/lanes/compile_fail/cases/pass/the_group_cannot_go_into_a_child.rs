//! A child holds a spawner.

use ringfence::{GroupError, TaskGroup, scope};

async fn nested() -> Result<(), GroupError<String>> {
    scope(async |group: &TaskGroup<String>| {
        let spawner = group.spawner();
        group.spawn(async move {
            spawner.spawn(async {});
        });
        Ok(())
    })
    .await
}

fn main() {
    drop(nested());
}
