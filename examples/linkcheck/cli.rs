//! The command line. What cannot be done is refused here, with the value named.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, value_parser};
use url::Url;

const EXIT_CODES: &str = "\
A SITE is a folder with an index.html, or an http:// URL. By default it is the documentation of the
Rust toolchain, or some built with `cargo doc` where that is not installed.

Times are written 500ms, 10s, 2m or 1h.

Exit codes:
    0  every link was followed, whether or not some are broken
    1  there was nothing to check, or something went wrong
    2  bad arguments
  124  the deadline passed; the report has what was found until then
  130  Ctrl-C; the same";

/// Check every link of an HTML site, concurrently.
#[derive(Debug, Parser)]
#[command(name = "linkcheck", after_help = EXIT_CODES, allow_negative_numbers = true)]
pub(crate) struct Options {
    /// What to check
    #[arg(value_parser = site)]
    pub(crate) site: Option<Site>,

    /// Requests in flight at once
    // Each takes up to two file descriptors here; 1024 are what a process often has.
    #[arg(long, value_name = "N", default_value = "64", value_parser = value_parser!(u16).range(1..=256))]
    pub(crate) in_flight: u16,

    /// Longest time for one request, body included
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time, allow_hyphen_values = true)]
    pub(crate) timeout: Duration,

    /// Longest time for the whole run
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    pub(crate) deadline: Option<Duration>,

    /// Most pages to fetch; which ones depends on who answers first
    #[arg(long, value_name = "N")]
    pub(crate) pages: Option<NonZeroUsize>,

    /// Broken links to print
    #[arg(long, value_name = "N", default_value = "20")]
    pub(crate) show: usize,

    /// Let the server answer slowly, with errors, or not at all now and then
    #[arg(long)]
    pub(crate) faults: bool,

    /// Which requests go wrong
    #[arg(long, value_name = "N", default_value = "0", requires = "faults")]
    pub(crate) seed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Site {
    Folder(PathBuf),
    Url(Url),
}

impl Options {
    /// Reads the command line; ends the process if it makes no sense.
    pub(crate) fn from_command_line() -> Self {
        let options = Self::parse();
        if let (true, Some(Site::Url(url))) = (options.faults, &options.site) {
            let message =
                format!("--faults needs a folder, since our own server makes them: `{url}`");
            Self::command()
                .error(ErrorKind::ArgumentConflict, message)
                .exit();
        }
        options
    }
}

fn site(argument: &str) -> Result<Site, String> {
    if !argument.contains("://") {
        let index = Path::new(argument).join("index.html");
        let there = index.is_file().then(|| Site::Folder(argument.into()));
        return there.ok_or_else(|| "not a folder with an index.html".to_owned());
    }
    let mut url = Url::parse(argument).map_err(|error| error.to_string())?;
    if url.scheme() != "http" {
        return Err(format!(
            "{}:// is not spoken here, only http://",
            url.scheme()
        ));
    }
    url.set_fragment(None);
    Ok(Site::Url(url))
}

fn time(argument: &str) -> Result<Duration, String> {
    let digits = argument.len()
        - argument
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .len();
    let (number, unit) = argument.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| "not a time such as 500ms or 10s".to_owned())?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err("not a time such as 500ms or 10s".to_owned()),
    };
    match milliseconds {
        Some(0) => Err("nothing is done in no time".to_owned()),
        // A year is beyond any run, and far from where the arithmetic of clocks ends.
        Some(ms) if ms <= 31_536_000_000 => Ok(Duration::from_millis(ms)),
        _ => Err("longer than a year".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser as _;

    use super::{Options, Site, site, time};

    #[test]
    fn times() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(time("1h"), Ok(Duration::from_secs(3600)));
        for bad in [
            "",
            "s",
            "10",
            "-1s",
            "1.5s",
            "10 s",
            "1d",
            "0s",
            "0ms",
            "9000h",
            "18446744073709551615h",
        ] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sites() {
        assert!(
            matches!(site("http://localhost:80/a#b"), Ok(Site::Url(url)) if url.as_str() == "http://localhost/a")
        );
        for bad in [
            "https://localhost/",
            "file:///tmp",
            "http://",
            "no-such-folder",
            "",
        ] {
            assert!(site(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn errors_name_the_value() {
        for (flag, bad) in [
            ("--in-flight", "0"),
            ("--in-flight", "many"),
            ("--in-flight", "70000"),
            ("--timeout", "0s"),
            ("--timeout", "-1s"),
            ("--in-flight", "-1"),
            ("--deadline", "soon"),
            ("--pages", "0"),
            ("--seed", "x"),
        ] {
            let error =
                Options::try_parse_from(["linkcheck", "--faults", flag, bad]).expect_err(bad);
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(&format!("'{bad}'")), "{error}");
            assert!(error.to_string().contains(flag), "{error}");
        }
    }
}
