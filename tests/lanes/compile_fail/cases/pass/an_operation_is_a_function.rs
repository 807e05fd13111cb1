//! A closure, or a function that takes the attempt.

use ringfence::{Attempt, Retry};

async fn fetch() -> Result<u32, std::io::Error> {
    Ok(7)
}

async fn attempt(_: Attempt) -> Result<u32, std::io::Error> {
    Ok(7)
}

async fn wait() {
    drop(Retry::DEFAULT.retry(|_| fetch()).await);
    drop(Retry::DEFAULT.retry(attempt).await);
}

fn main() {
    drop(wait());
}
