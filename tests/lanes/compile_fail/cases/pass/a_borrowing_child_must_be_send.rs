//! In a local scope they need not be.

use std::rc::Rc;

use ringfence::{GroupError, LocalGroup, local_scope};

async fn count() -> Result<usize, GroupError<String>> {
    let shared = Rc::new(1);
    local_scope(async |group: LocalGroup<'_, String>| {
        let child = group.spawn(async { Ok(*shared) });
        Ok(child.await)
    })
    .await
}

fn main() {
    drop(count());
}
