//! The crawl: what is known of the site, and what is done with each page.

use std::sync::{Mutex, MutexGuard, PoisonError};

use url::Url;

use crate::client::{Client, Fetched};
use crate::html;
use crate::ledger::{Answer, Job, Ledger};

/// What the workers share. It stays behind when they are cancelled, and so does what they found.
#[derive(Debug)]
pub(crate) struct Crawl {
    ledger: Mutex<Ledger>,
    pub(crate) client: Client,
}

impl Crawl {
    /// A crawl, and the page to begin with.
    pub(crate) fn new(start: Url, page_cap: usize, client: Client) -> (Self, Job) {
        let (ledger, first) = Ledger::new(start, page_cap);
        let ledger = Mutex::new(ledger);
        (Self { ledger, client }, first)
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches a page, and notes what is on it. Returns what is to be fetched because of that.
    pub(crate) async fn visit(&self, job: &Job) -> Vec<Job> {
        let url = &job.url;
        let answer = match self.client.get(url).await {
            Ok(Fetched::Html(bytes)) => Answer::Page(html::parse(url, &bytes)),
            Ok(Fetched::Other) => Answer::Asset,
            Ok(Fetched::Moved(target)) => Answer::Moved(target),
            Err(error) => Answer::Broken(error.to_string().into()),
        };
        self.ledger().record(job, answer)
    }
}
