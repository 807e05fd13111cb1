//! The claim at the top of the program: however a run ends, nothing is left running.

use std::fs;

use clap::Parser as _;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use super::{End, Options, check};

/// Checks, and counts the tasks of the runtime as soon as that is done: hyper's among them.
async fn run(arguments: &[&str]) -> (anyhow::Result<End>, usize) {
    let arguments = [&["linkcheck"], arguments].concat();
    let checked = check(&Options::parse_from(arguments)).await;
    let left = Handle::current().metrics().num_alive_tasks();
    (checked.map(|report| report.end), left)
}

#[tokio::test]
async fn nothing_is_left_of_a_run_that_finishes() {
    let site = tempfile::tempdir().expect("a folder");
    fs::write(
        site.path().join("index.html"),
        "<a href=1><a href=2><a href=3>",
    )
    .expect("a file");
    let folder = site.path().to_str().expect("UTF-8");
    let (end, left) = run(&[folder]).await;
    assert_eq!((end.expect("a report"), left), (End::Finished, 0));
}

#[tokio::test]
async fn nothing_is_left_of_a_run_that_is_cut_short() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", silent.local_addr().expect("an address"));
    let (end, left) = run(&[&url, "--deadline", "200ms"]).await;
    assert_eq!((end.expect("a report"), left), (End::DeadlineExceeded, 0));
}

#[tokio::test]
async fn nothing_is_left_of_a_run_that_fails() {
    let (end, left) = run(&["http://127.0.0.1:1/", "--in-flight", "256"]).await;
    assert_eq!((end.is_err(), left), (true, 0));
}
