//! The whole of a borrowing scope is `Send`, so its children are.

use std::rc::Rc;

use ringfence::{BorrowGroup, GroupError, borrow_scope};

async fn count() -> Result<usize, GroupError<String>> {
    let shared = Rc::new(1);
    borrow_scope(async |group: BorrowGroup<'_, String>| {
        let child = group.spawn(async { Ok(*shared) });
        Ok(child.await)
    })
    .await
}

fn main() {
    drop(count());
}
