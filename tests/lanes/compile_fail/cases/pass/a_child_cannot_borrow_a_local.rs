//! It owns what it needs, or shares it.

use ringfence::{GroupError, TaskGroup, scope};

async fn total(words: Vec<String>) -> Result<usize, GroupError<String>> {
    scope(async |group: &TaskGroup<String>| {
        let words = words.clone();
        let child = group.spawn(async move { Ok(words.len()) });
        Ok(child.await)
    })
    .await
}

fn main() {
    drop(total(Vec::new()));
}
