//! A closure cannot lend what it captured to the future that it returns.

use ringfence::Retry;

const RETRY: Retry = Retry::DEFAULT;

struct Client(u32);

impl Client {
    async fn send(&mut self) -> Result<u32, std::io::Error> {
        self.0 += 1;
        Ok(self.0)
    }
}

fn main() {
    let mut client = Client(0);
    drop(RETRY.retry(async |_| client.send().await));
}
