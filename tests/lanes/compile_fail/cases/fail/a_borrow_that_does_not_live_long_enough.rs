//! A child borrows what outlives the whole scope, not what its body makes.

use ringfence::{BorrowGroup, GroupError, borrow_scope};

async fn total() -> Result<usize, GroupError<String>> {
    borrow_scope(async |group: BorrowGroup<'_, String>| {
        let words = vec!["made by the body".to_owned()];
        let child = group.spawn(async { Ok(words.len()) });
        Ok(child.await)
    })
    .await
}

fn main() {
    drop(total());
}
