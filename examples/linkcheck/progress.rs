//! The progress bar.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::interval;

use crate::crawl::Crawl;

/// Draws the state of a crawl ten times a second, until cancelled. Where stderr is no terminal
/// nothing is drawn.
pub(crate) async fn draw(crawl: &Crawl) -> ! {
    let bar = Bar(ProgressBar::new(1).with_style(style()));
    let mut ticks = interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        let counts = crawl.ledger().counts();
        bar.0.set_message(format!("{} links", counts.links));
        bar.0.set_length(counts.asked as u64);
        bar.0.set_position(counts.answered as u64);
    }
}

/// Wipes the bar when dropped: being cancelled is how its task ends, and the report comes next.
struct Bar(ProgressBar);

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:40} {pos}/{len} URLs, {msg}, {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
