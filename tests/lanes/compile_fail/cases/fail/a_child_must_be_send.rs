//! A child may move between threads, so it captures nothing that cannot.

use std::rc::Rc;

use ringfence::{GroupError, TaskGroup, scope};

async fn count(words: Rc<[String]>) -> Result<usize, GroupError<String>> {
    scope(async |group: &TaskGroup<String>| {
        let words = words.clone();
        let child = group.spawn(async move { Ok(words.len()) });
        Ok(child.await)
    })
    .await
}

fn main() {
    drop(count(Rc::new([])));
}
