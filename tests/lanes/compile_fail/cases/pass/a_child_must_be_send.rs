//! The body may hold it; a child takes what is `Send`.

use std::{rc::Rc, sync::Arc};

use ringfence::{GroupError, TaskGroup, scope};

async fn count(words: Arc<[String]>) -> Result<usize, GroupError<String>> {
    let of_the_body = Rc::new(());
    scope(async |group: &TaskGroup<String>| {
        let words = words.clone();
        let child = group.spawn(async move { Ok(words.len()) });
        let count = child.await;
        drop(of_the_body);
        Ok(count)
    })
    .await
}

fn main() {
    drop(count(Arc::new([])));
}
