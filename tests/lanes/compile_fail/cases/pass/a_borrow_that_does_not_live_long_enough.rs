//! What is made before the scope can be borrowed by its children.

use ringfence::{BorrowGroup, GroupError, borrow_scope};

async fn total() -> Result<usize, GroupError<String>> {
    let words = vec!["made before".to_owned()];
    borrow_scope(async |group: BorrowGroup<'_, String>| {
        let child = group.spawn(async { Ok(words.len()) });
        Ok(child.await)
    })
    .await
}

fn main() {
    drop(total());
}
