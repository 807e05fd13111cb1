//! A spawner may leave the scope, but not the life of what its children may borrow.

use ringfence::{BorrowGroup, BorrowSpawner, GroupError, borrow_scope};

async fn keep() -> Result<BorrowSpawner<'static, String>, GroupError<String>> {
    let words = vec!["local".to_owned()];
    borrow_scope(async |group: BorrowGroup<'_, String>| {
        group.spawn(async { Ok(words.len()) }).await;
        Ok(group.spawner())
    })
    .await
}

fn main() {
    drop(keep());
}
