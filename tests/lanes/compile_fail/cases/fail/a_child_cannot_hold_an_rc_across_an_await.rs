//! What a child holds while it waits moves with it to another thread.

use std::rc::Rc;

use ringfence::{GroupError, TaskGroup, scope};

async fn wait() -> Result<usize, GroupError<String>> {
    scope(async |group: &TaskGroup<String>| {
        let child = group.spawn(async {
            let shared = Rc::new(1);
            tokio::task::yield_now().await;
            Ok(*shared)
        });
        Ok(child.await)
    })
    .await
}

fn main() {
    drop(wait());
}
