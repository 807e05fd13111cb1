//! A struct that holds both, or a closure that only borrows.

use ringfence::{Attempt, Retry};

const RETRY: Retry = Retry::DEFAULT;

async fn send(sent: &mut u32, text: &str) -> Result<usize, std::io::Error> {
    *sent += 1;
    Ok(text.len())
}

struct Lent<'a> {
    sent: u32,
    text: &'a str,
}

async fn step(lent: &mut Lent<'_>, _: Attempt) -> Result<usize, std::io::Error> {
    send(&mut lent.sent, lent.text).await
}

async fn spawned() {
    let text = String::from("hello");
    let mut lent = Lent {
        sent: 0,
        text: &text,
    };
    drop(RETRY.retry_with(&mut lent, step).run().await);
    let words = text.as_str();
    let run = RETRY.retry(async |_| send(&mut 0, words).await);
    drop(run.await);
}

fn main() {
    drop(async {
        drop(tokio::spawn(spawned()));
    });
}
