//! What is known about each URL of the site, and what is wrong with its links.
//!
//! A link can be judged only when its target has answered, so a link to a page that has not is
//! kept with that page, and judged when it has. No link is kept longer than that: a large site has
//! millions of them.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use url::{Position, Url};

use crate::hash::hash;
use crate::html::{Anchors, Page};

/// Browsers give up on a chain of redirects, too.
const MAX_REDIRECTS: usize = 10;

/// The place of a URL in the ledger.
type Id = usize;

/// A URL to fetch.
#[derive(Debug)]
pub(crate) struct Job {
    id: Id,
    pub(crate) url: Arc<Url>,
}

/// What came of fetching it.
#[derive(Debug)]
pub(crate) enum Answer {
    Page(Page),
    /// Anything but HTML: it is there, and that is all we ask of it.
    Asset,
    /// An HTTP redirect.
    Moved(Url),
    Broken(Arc<str>),
}

/// A link that leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// The page that has the link.
    pub(crate) page: String,
    pub(crate) link: String,
    pub(crate) reason: Arc<str>,
}

/// Figures for the report and the progress bar.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) pages: usize,
    pub(crate) assets: usize,
    /// Links as written on the pages, each time.
    pub(crate) links: usize,
    /// Of these, links to other sites, `mailto:` and the like.
    pub(crate) skipped: usize,
    /// URLs of this site that are to be fetched, or were.
    pub(crate) asked: usize,
    pub(crate) answered: usize,
    /// Pages that are not fetched because there are too many.
    pub(crate) over_cap: usize,
    /// The same for the same set of pages, in whatever order they came.
    pub(crate) fingerprint: u64,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    start: Url,
    page_cap: usize,
    pages_asked: usize,
    ids: HashMap<Arc<Url>, Id>,
    entries: Vec<Entry>,
    findings: Vec<Finding>,
    counts: Counts,
}

#[derive(Debug)]
struct Entry {
    url: Arc<Url>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No answer yet; these links wait for it.
    Asked(Vec<Link>),
    Page(Anchors),
    /// The fragment of a link goes on to the target, unless the redirect names one itself.
    Moved {
        to: Id,
        keeps_fragment: bool,
    },
    /// There, but with nothing in it to check: an asset, a redirect off the site, a page too many.
    Opaque,
    Broken(Arc<str>),
}

/// From one URL of the ledger to another.
#[derive(Debug)]
struct Link {
    from: Id,
    to: Id,
    fragment: Option<Box<str>>,
}

impl Ledger {
    /// A ledger for the site of `start`, and the job to begin with.
    pub(crate) fn new(start: Url, page_cap: usize) -> (Self, Job) {
        let url = Arc::new(start.clone());
        let ledger = Self {
            start,
            page_cap,
            pages_asked: 1,
            ids: HashMap::from([(Arc::clone(&url), 0)]),
            entries: vec![Entry {
                url: Arc::clone(&url),
                state: State::Asked(Vec::new()),
            }],
            findings: Vec::new(),
            counts: Counts {
                asked: 1,
                ..Counts::default()
            },
        };
        (ledger, Job { id: 0, url })
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// All findings so far, page by page.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = self.findings.clone();
        findings.sort();
        findings
    }

    /// What the very first URL failed with, if it did: then there is nothing to report on.
    pub(crate) fn false_start(&self) -> Option<String> {
        match &self.entries[0].state {
            State::Broken(reason) => Some(format!("{}: {reason}", self.start)),
            _ => None,
        }
    }

    /// Takes down an answer; returns what to fetch because of it.
    pub(crate) fn record(&mut self, job: &Job, answer: Answer) -> Vec<Job> {
        let mut jobs = Vec::new();
        self.counts.answered += 1;
        let state = match answer {
            Answer::Page(page) => self.page(job, page, &mut jobs),
            Answer::Moved(target) => self.moved(job.id, target, &mut jobs),
            Answer::Broken(reason) => State::Broken(reason),
            Answer::Asset => {
                self.counts.assets += 1;
                State::Opaque
            }
        };
        let before = mem::replace(&mut self.entries[job.id].state, state);
        if let State::Asked(waiting) = before {
            waiting.into_iter().for_each(|link| self.judge(link));
        }
        jobs
    }

    fn page(&mut self, job: &Job, page: Page, jobs: &mut Vec<Job>) -> State {
        self.counts.pages += 1;
        self.counts.fingerprint ^= hash(&job.url[Position::BeforePath..]);
        for (link, times) in page.links {
            self.counts.links += times;
            match self.link(job.id, link, jobs) {
                Some(link) => self.judge(link),
                None => self.counts.skipped += times,
            }
        }
        for malformed in page.malformed {
            self.counts.links += 1;
            let reason = "not a URL".into();
            self.findings.push(Finding {
                page: self.show(&job.url),
                link: malformed,
                reason,
            });
        }
        match page.moved_to {
            // Its link is among the page's links, and so judged already.
            Some(target) => self.moved(job.id, target, jobs),
            None => State::Page(page.anchors),
        }
    }

    /// A redirect is a link, too: should it lead nowhere, it is the one to report.
    fn moved(&mut self, from: Id, target: Url, jobs: &mut Vec<Job>) -> State {
        let Some(link) = self.link(from, target, jobs) else {
            return State::Opaque;
        };
        let state = State::Moved {
            to: link.to,
            keeps_fragment: link.fragment.is_none(),
        };
        self.judge(link);
        state
    }

    /// Makes a link of an absolute URL; `None` if it leads to another site. If this is the first
    /// link to that URL, it is to be fetched.
    fn link(&mut self, from: Id, mut url: Url, jobs: &mut Vec<Job>) -> Option<Link> {
        if url[..Position::BeforePath] != self.start[..Position::BeforePath] {
            return None;
        }
        let fragment = url.fragment().map(Box::from);
        url.set_fragment(None);
        if let Some(&to) = self.ids.get(&url) {
            return Some(Link { from, to, fragment });
        }

        let to = self.entries.len();
        let url = Arc::new(url);
        let page = looks_like_a_page(&url);
        let state = if page && self.pages_asked == self.page_cap {
            self.counts.over_cap += 1;
            State::Opaque
        } else {
            self.pages_asked += usize::from(page);
            self.counts.asked += 1;
            jobs.push(Job {
                id: to,
                url: Arc::clone(&url),
            });
            State::Asked(Vec::new())
        };
        self.ids.insert(Arc::clone(&url), to);
        self.entries.push(Entry { url, state });
        Some(Link { from, to, fragment })
    }

    /// Finds out whether a link is broken, or lets it wait for the page that decides.
    fn judge(&mut self, link: Link) {
        let mut at = link.to;
        let mut follows_fragment = link.fragment.is_some();
        for _ in 0..MAX_REDIRECTS {
            match &mut self.entries[at].state {
                State::Asked(waiting) => return waiting.push(link),
                State::Moved { to, keeps_fragment } => {
                    follows_fragment &= *keeps_fragment;
                    at = *to;
                }
                State::Page(anchors) => {
                    let fragment = link.fragment.as_deref().filter(|_| follows_fragment);
                    return match fragment {
                        Some(fragment) if !anchors.contains(fragment) => {
                            self.finding(&link, "no such anchor".into());
                        }
                        _ => {}
                    };
                }
                State::Broken(reason) if at == link.to => {
                    let reason = Arc::clone(reason);
                    return self.finding(&link, reason);
                }
                // Behind a redirect: its own link is the one to report.
                State::Broken(_) | State::Opaque => return,
            }
        }
        self.finding(&link, "too many redirects".into());
    }

    fn finding(&mut self, link: &Link, reason: Arc<str>) {
        let mut target = self.show(&self.entries[link.to].url);
        if let Some(fragment) = &link.fragment {
            target = format!("{target}#{fragment}");
        }
        let page = self.show(&self.entries[link.from].url);
        let finding = Finding {
            page,
            link: target,
            reason,
        };
        self.findings.push(finding);
    }

    /// The part of a URL that differs within the site.
    fn show(&self, url: &Url) -> String {
        url[Position::BeforePath..].to_owned()
    }
}

/// What the cap counts. A guess, since only the answer tells; it decides nothing else.
fn looks_like_a_page(url: &Url) -> bool {
    let name = url.path().rsplit('/').next().unwrap_or_default();
    name.rsplit_once('.')
        .is_none_or(|(_, extension)| matches!(extension, "html" | "htm" | "xhtml"))
}

#[cfg(test)]
mod tests;
