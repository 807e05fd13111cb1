//! What it has dropped before does not.

use std::rc::Rc;

use ringfence::{GroupError, TaskGroup, scope};

async fn wait() -> Result<usize, GroupError<String>> {
    scope(async |group: &TaskGroup<String>| {
        let child = group.spawn(async {
            let value = {
                let shared = Rc::new(1);
                *shared
            };
            tokio::task::yield_now().await;
            Ok(value)
        });
        Ok(child.await)
    })
    .await
}

fn main() {
    drop(wait());
}
