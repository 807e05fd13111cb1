//! What an operation is lent has to hold all that it borrows, if the run is to be spawned: the compiler cannot see that the
//! future of a closure with a borrow of its own is `Send` for every attempt.

use ringfence::Retry;

const RETRY: Retry = Retry::DEFAULT;

async fn send(sent: &mut u32, text: &str) -> Result<usize, std::io::Error> {
    *sent += 1;
    Ok(text.len())
}

async fn spawned() {
    let text = String::from("hello");
    let mut sent = 0;
    let words = text.as_str();
    let run = RETRY.retry_with(&mut sent, async |sent, _| send(sent, words).await);
    drop(run.run().await);
}

fn main() {
    drop(tokio::spawn(spawned()));
}
