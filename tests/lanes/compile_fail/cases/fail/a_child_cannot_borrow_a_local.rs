//! A child runs in parallel to the body and may outlive a dropped scope, so it borrows nothing.

use ringfence::{GroupError, TaskGroup, scope};

async fn total(words: Vec<String>) -> Result<usize, GroupError<String>> {
    scope(async |group: &TaskGroup<String>| {
        let child = group.spawn(async { Ok(words.len()) });
        Ok(child.await)
    })
    .await
}

fn main() {
    drop(total(Vec::new()));
}
