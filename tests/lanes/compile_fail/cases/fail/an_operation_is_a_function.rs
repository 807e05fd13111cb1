//! A future is run once; what can be tried again is a function that makes one.

use ringfence::Retry;

async fn fetch() -> Result<u32, std::io::Error> {
    Ok(7)
}

fn main() {
    drop(Retry::DEFAULT.retry(fetch()));
}
