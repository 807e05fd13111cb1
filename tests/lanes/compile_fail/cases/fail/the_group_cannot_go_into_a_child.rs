//! The group stays with the body: a child cannot hold it.

use ringfence::{GroupError, TaskGroup, scope};

async fn nested() -> Result<(), GroupError<String>> {
    scope(async |group: &TaskGroup<String>| {
        group.spawn(async move {
            group.spawn(async {});
        });
        Ok(())
    })
    .await
}

fn main() {
    drop(nested());
}
