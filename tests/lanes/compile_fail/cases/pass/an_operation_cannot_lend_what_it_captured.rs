//! What it is lent, it can; and so can a loop.

use ringfence::Retry;

const RETRY: Retry = Retry::DEFAULT;

struct Client(u32);

impl Client {
    async fn send(&mut self) -> Result<u32, std::io::Error> {
        self.0 += 1;
        Ok(self.0)
    }
}

async fn send(client: &mut Client) {
    let run = RETRY.retry_with(client, async |client, _| client.send().await);
    drop(run.run().await);
    let mut tries = RETRY.tries();
    while tries.begin().is_ok() {
        if let Err(error) = client.send().await {
            drop(tries.failed(error, |_| true).await);
        }
    }
}

fn main() {
    drop(send(&mut Client(0)));
}
