//! Another error is converted in the child.

use ringfence::{BoxError, GroupError, TaskGroup, scope};

async fn fetch() -> Result<u32, std::io::Error> {
    Ok(3)
}

async fn three() -> Result<u32, GroupError<BoxError>> {
    scope(async |group: &TaskGroup| {
        let child = group.spawn(async { Ok(fetch().await?) });
        Ok(child.await)
    })
    .await
}

fn main() {
    drop(three());
}
