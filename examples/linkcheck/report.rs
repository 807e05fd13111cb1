//! What is printed in the end.

use std::fmt;
use std::time::Duration;

use crate::ledger::{Counts, Finding};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Finished,
    Interrupted,
    DeadlineExceeded,
}

#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) end: End,
    pub(crate) counts: Counts,
    pub(crate) findings: Vec<Finding>,
    pub(crate) requests: usize,
    pub(crate) retries: usize,
    pub(crate) elapsed: Duration,
    /// How many findings to print.
    pub(crate) show: usize,
}

impl End {
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Finished => 0,
            Self::DeadlineExceeded => 124, // as timeout(1) has it
            Self::Interrupted => 130,      // as shells have it: 128 + SIGINT
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut page = "";
        for finding in self.findings.iter().take(self.show) {
            if page != finding.page {
                page = &finding.page;
                writeln!(f, "{page}")?;
            }
            writeln!(f, "    {}  ({})", finding.link, finding.reason)?;
        }
        if self.show > 0 && self.findings.len() > self.show {
            writeln!(
                f,
                "    … and {} more (--show N)",
                self.findings.len() - self.show
            )?;
        }
        if self.show > 0 && !self.findings.is_empty() {
            writeln!(f)?;
        }

        let Counts {
            pages,
            assets,
            links,
            skipped,
            asked,
            answered,
            over_cap,
            fingerprint,
        } = self.counts;
        let seconds = self.elapsed.as_secs_f64();
        // A run can be shorter than a tick of the clock.
        let rate = self.requests as f64 / seconds.max(0.001);
        writeln!(
            f,
            "pages     {pages} (set {fingerprint:016x}), and {assets} other files"
        )?;
        writeln!(
            f,
            "links     {links}, of which {skipped} lead off the site and were not followed"
        )?;
        writeln!(f, "broken    {}", self.findings.len())?;
        writeln!(
            f,
            "requests  {} in {seconds:.2} s: {rate:.0}/s, {} retries",
            self.requests, self.retries
        )?;
        let unanswered = asked - answered;
        match self.end {
            End::Finished => {}
            End::Interrupted => writeln!(f, "stopped   by Ctrl-C, with {unanswered} URLs to go")?,
            End::DeadlineExceeded => {
                writeln!(f, "stopped   by the deadline, with {unanswered} URLs to go")?;
            }
        }
        if over_cap > 0 {
            writeln!(
                f,
                "left out  {over_cap} pages over the cap, and what only they link to"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{End, Report};
    use crate::ledger::{Counts, Finding};

    #[test]
    fn a_report_groups_by_page_and_says_what_it_leaves_out() {
        let finding = |page: &str, link: &str| Finding {
            page: page.to_owned(),
            link: link.to_owned(),
            reason: "404 Not Found".into(),
        };
        let counts = Counts {
            pages: 2,
            links: 9,
            skipped: 1,
            asked: 5,
            answered: 4,
            ..Counts::default()
        };
        let report = Report {
            end: End::Interrupted,
            counts,
            findings: vec![
                finding("/a", "/x"),
                finding("/a", "/y"),
                finding("/b", "/x"),
            ],
            requests: 8,
            retries: 3,
            elapsed: Duration::from_secs(2),
            show: 2,
        };
        let expected = "\
/a
    /x  (404 Not Found)
    /y  (404 Not Found)
    … and 1 more (--show N)

pages     2 (set 0000000000000000), and 0 other files
links     9, of which 1 lead off the site and were not followed
broken    3
requests  8 in 2.00 s: 4/s, 3 retries
stopped   by Ctrl-C, with 1 URLs to go
";
        assert_eq!(report.to_string(), expected);
    }
}
