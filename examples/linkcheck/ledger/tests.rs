//! A site is described as what each URL answers, in the order of the fetching.

use std::collections::VecDeque;

use url::Url;

use super::{Answer, Ledger};
use crate::html::{parse, resolve};

fn start() -> Url {
    Url::parse("http://site/index.html").expect("a URL")
}

/// Fetches everything from a site that is a list of pages; the other URLs do not exist.
fn crawl(page_cap: usize, site: &[(&str, &str)]) -> Ledger {
    let (mut ledger, first) = Ledger::new(start(), page_cap);
    let mut jobs = VecDeque::from([first]);
    while let Some(job) = jobs.pop_front() {
        let answer = match site.iter().find(|(path, _)| *path == job.url.path()) {
            Some((_, html)) if html.starts_with('/') => {
                Answer::Moved(resolve(&job.url, html).expect("a URL"))
            }
            Some((path, _)) if path.ends_with(".png") => Answer::Asset,
            Some((_, html)) => Answer::Page(parse(&job.url, html.as_bytes())),
            None => Answer::Broken("404 Not Found".into()),
        };
        jobs.extend(ledger.record(&job, answer));
    }
    ledger
}

fn findings(site: &[(&str, &str)]) -> Vec<String> {
    let findings = crawl(usize::MAX, site).findings();
    findings
        .iter()
        .map(|f| format!("{} -> {}: {}", f.page, f.link, f.reason))
        .collect()
}

#[test]
fn a_sound_site_has_no_findings() {
    let site = [
        (
            "/index.html",
            "<a href=a.html#x><a href=#top><img src=p.png><a href=https://b.c/#d>",
        ),
        ("/a.html", "<a id=x href=index.html><a href=mailto:a@b>"),
        ("/p.png", ""),
    ];
    let ledger = crawl(usize::MAX, &site);
    assert_eq!(ledger.findings(), []);
    let counts = ledger.counts();
    assert_eq!(
        (counts.pages, counts.assets, counts.asked, counts.answered),
        (2, 1, 3, 3)
    );
    assert_eq!((counts.links, counts.skipped), (6, 2));
}

#[test]
fn broken_links_are_named_with_their_page() {
    let site = [
        (
            "/index.html",
            "<a href=a.html><a href=gone.html><a href=gone.html#x>",
        ),
        ("/a.html", "<a href=gone.html>"),
    ];
    assert_eq!(
        findings(&site),
        [
            "/a.html -> /gone.html: 404 Not Found",
            "/index.html -> /gone.html: 404 Not Found",
            "/index.html -> /gone.html#x: 404 Not Found",
        ]
    );
}

#[test]
fn anchors_are_checked_before_and_after_their_page_is_known() {
    let site = [
        (
            "/index.html",
            "<a href=#here><a id=here><a href=#not-here><a href=a.html#early>",
        ),
        (
            "/a.html",
            "<a href=index.html#late><a href=index.html#here>",
        ),
    ];
    assert_eq!(
        findings(&site),
        [
            "/a.html -> /index.html#late: no such anchor",
            "/index.html -> /a.html#early: no such anchor",
            "/index.html -> /index.html#not-here: no such anchor",
        ]
    );
}

#[test]
fn a_redirect_hands_the_fragment_on() {
    let site = [
        (
            "/index.html",
            "<a href=old#x><a href=old#y><a href=meta.html#x><a href=meta.html#y>",
        ),
        ("/old", "/new.html"),
        (
            "/meta.html",
            "<meta http-equiv=refresh content='0;URL=new.html'>",
        ),
        ("/new.html", "<a id=x>"),
    ];
    assert_eq!(
        findings(&site),
        [
            "/index.html -> /meta.html#y: no such anchor",
            "/index.html -> /old#y: no such anchor",
        ]
    );
}

#[test]
fn a_redirect_that_leads_nowhere_is_reported_once_where_it_stands() {
    let site = [
        ("/index.html", "<a href=old#x><a href=old><a href=old#y>"),
        ("/old", "/gone"),
    ];
    assert_eq!(findings(&site), ["/old -> /gone: 404 Not Found"]);
}

#[test]
fn redirects_in_a_circle_end() {
    let site = [("/index.html", "<a href=a#x>"), ("/a", "/b"), ("/b", "/a")];
    assert_eq!(
        findings(&site),
        [
            "/a -> /b: too many redirects",
            "/b -> /a: too many redirects",
            "/index.html -> /a#x: too many redirects",
        ]
    );
}

#[test]
fn the_cap_counts_pages_only() {
    let site = [
        (
            "/index.html",
            "<a href=a.html><a href=b.html><a href=c/><a href=p.png>",
        ),
        ("/a.html", ""),
        ("/p.png", ""),
    ];
    let ledger = crawl(2, &site);
    assert_eq!(ledger.findings(), []);
    let counts = ledger.counts();
    assert_eq!((counts.pages, counts.assets, counts.over_cap), (2, 1, 2));
}

#[test]
fn the_fingerprint_is_of_the_set() {
    let there = [
        ("/index.html", "<a href=a><a href=b>"),
        ("/a", ""),
        ("/b", ""),
    ];
    let back = [
        ("/index.html", "<a href=b>"),
        ("/b", "<a href=a>"),
        ("/a", ""),
    ];
    let fingerprint = |site: &[(&str, &str)]| crawl(usize::MAX, site).counts().fingerprint;
    assert_eq!(fingerprint(&there), fingerprint(&back));
    assert_ne!(fingerprint(&there), fingerprint(&there[..2]));
}
