//! The crawl: workers take pages from the frontier until nothing is left.

use std::sync::{Mutex, MutexGuard, PoisonError};

use url::Url;

use crate::client::{Client, Fetched};
use crate::frontier::Frontier;
use crate::html;
use crate::ledger::{Answer, Job, Ledger};

/// What the workers share. It stays behind when they are cancelled, and so does what they found.
#[derive(Debug)]
pub(crate) struct Crawl {
    frontier: Frontier<Job>,
    ledger: Mutex<Ledger>,
    pub(crate) client: Client,
}

impl Crawl {
    pub(crate) fn new(start: Url, page_cap: usize, client: Client) -> Self {
        let (ledger, first) = Ledger::new(start, page_cap);
        Self {
            frontier: Frontier::new([first]),
            ledger: Mutex::new(ledger),
            client,
        }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of one worker. There are as many as there may be requests in flight, and that is
    /// all it takes to limit them.
    pub(crate) async fn work(&self) {
        while let Some(job) = self.frontier.take().await {
            let url = &job.item.url;
            let answer = match self.client.get(url).await {
                Ok(Fetched::Html(bytes)) => Answer::Page(html::parse(url, &bytes)),
                Ok(Fetched::Other) => Answer::Asset,
                Ok(Fetched::Moved(target)) => Answer::Moved(target),
                Err(error) => Answer::Broken(error.to_string().into()),
            };
            // First add what the page brought, then let go of it: in between, the frontier must
            // not look finished.
            let found = self.ledger().record(&job.item, answer);
            self.frontier.add(found);
            drop(job);
        }
    }
}
