//! The example program, run as its users run it: as a process, on sites made for the purpose.

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::SystemTime;

use tempfile::TempDir;

/// The example's binary, up to date.
///
/// A plain `cargo test` builds it, but `cargo test --test linkcheck` does not, and cargo tells the
/// path for binaries only; so this looks where it is put, and builds it if need be.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().expect("the path of this test");
        let profile = test
            .ancestors()
            .nth(2)
            .expect("<target>/<profile>/deps/<test>");
        let program = profile.join(format!(
            "examples/linkcheck{}",
            std::env::consts::EXE_SUFFIX
        ));
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let sources = ["src", "examples/linkcheck"].map(|folder| newest(&root.join(folder)));
        let built = fs::metadata(&program).and_then(|file| file.modified()).ok();
        if built < sources.into_iter().max() {
            let mut cargo = Command::new(env!("CARGO"));
            cargo
                .args(["build", "--example", "linkcheck", "--target-dir"])
                .arg(profile.parent().expect("<target>"));
            if !cfg!(debug_assertions) {
                cargo.arg("--release");
            }
            assert!(
                cargo
                    .current_dir(root)
                    .status()
                    .expect("cargo runs")
                    .success()
            );
        }
        program
    })
}

/// When a file in this folder was last written.
fn newest(folder: &Path) -> SystemTime {
    let files = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path());
    let times = files.map(|path| {
        if path.is_dir() {
            newest(&path)
        } else {
            path.metadata()
                .and_then(|file| file.modified())
                .expect("a time")
        }
    });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}

fn linkcheck(arguments: &[&str]) -> Output {
    Command::new(program())
        .args(arguments)
        .output()
        .expect("linkcheck runs")
}

fn stdout(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// The part of a report that does not depend on time and luck.
fn findings_and_counts(report: &str) -> Vec<&str> {
    report
        .lines()
        .filter(|line| !line.starts_with("requests"))
        .collect()
}

/// Writes files with the text that goes with them.
fn site(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    root
}

fn path(site: &TempDir) -> &str {
    Path::to_str(site.path()).expect("UTF-8")
}

/// A tree of pages, each of which links to its two children, its parent and an image.
fn large_site() -> TempDir {
    const PAGES: usize = 400;
    let root = site(&[("p.png", "")]);
    for page in 0..PAGES {
        let children = [2 * page + 1, 2 * page + 2]
            .into_iter()
            .filter(|child| *child < PAGES);
        let mut html: String = children
            .map(|child| format!("<a href=p{child}.html>"))
            .collect();
        html += &format!("<h1 id=x><img src=p.png><a href='p{}.html#x'>", page / 2);
        fs::write(root.path().join(format!("p{page}.html")), html).expect("a file");
    }
    fs::copy(root.path().join("p0.html"), root.path().join("index.html")).expect("a file");
    root
}

#[test]
fn exactly_the_planted_broken_links_are_found() {
    let many = "<a href=sub/page.html>again</a>".repeat(10_000);
    let huge = format!(
        "<a id=end>{}<a href=index.html#gone>",
        "<p>text</p>".repeat(300_000)
    );
    let files = [
        (
            "index.html",
            "<a href='sub/'><a href=sub><a href=many.html><a href=huge.html#end><a href=moved.html#there>\
             <a href='a%20b.html?x=1&amp;y=2'><a href='a b.html#top'><a href=p.png><a href=gone.html>\
             <a href=https://example.org/gone><a href=mailto:a@b><script>'<a href=no-link>'</script>",
        ),
        (
            "sub/index.html",
            "<a href=../index.html><a href=../../../index.html><a href=page.html#gone>",
        ),
        (
            "sub/page.html",
            "<a href=./../p.png><a href=../missing.css?v=2><a href=#here><a id=here>",
        ),
        ("many.html", &many),
        ("huge.html", &huge),
        (
            "moved.html",
            "<meta http-equiv=refresh content='0; URL=sub/target.html'>",
        ),
        ("sub/target.html", "<a name=there>"),
        ("a b.html", "<a href=moved.html#not-there>"),
        ("p.png", "not <a href=parsed>"),
    ];
    let site = site(&files);
    let output = linkcheck(&[path(&site)]);
    let expected = "\
/a%20b.html
    /moved.html#not-there  (no such anchor)
/a%20b.html?x=1&y=2
    /moved.html#not-there  (no such anchor)
/huge.html
    /index.html#gone  (no such anchor)
/index.html
    /gone.html  (404 Not Found)
/sub/
    /sub/page.html#gone  (no such anchor)
/sub/page.html
    /missing.css?v=2  (404 Not Found)

pages     9 (set ";
    let report = stdout(&output);
    assert!(report.starts_with(expected), "{report}");
    assert!(report.contains("and 1 other files"), "{report}");
    assert!(report.contains("\nbroken    6\n"), "{report}");
    assert_eq!(output.status.code(), Some(0), "findings are no failure");
}

#[test]
fn with_faults_the_same_pages_are_found() {
    let site = large_site();
    let plain = linkcheck(&[path(&site)]);
    let plain = stdout(&plain);
    assert!(plain.contains("pages     401 "), "{plain}");
    assert!(plain.contains(", 0 retries\n"), "{plain}");

    let faulty = linkcheck(&[path(&site), "--faults", "--seed", "7", "--timeout", "2s"]);
    let faulty = stdout(&faulty);
    assert_eq!(findings_and_counts(&plain), findings_and_counts(&faulty));
    assert!(!faulty.contains(", 0 retries\n"), "{faulty}");
}

#[test]
fn the_limit_of_one_in_flight_is_enough() {
    let site = large_site();
    let [one, many] = ["1", "256"].map(|n| stdout(&linkcheck(&[path(&site), "--in-flight", n])));
    assert_eq!(findings_and_counts(&one), findings_and_counts(&many));
}

#[test]
fn bad_arguments_are_named_and_exit_with_2() {
    for arguments in [
        ["--in-flight", "0"],
        ["--in-flight", "18446744073709551616"],
        ["--timeout", "-1s"],
        ["--deadline", "0s"],
        ["--pages", "none"],
        ["--faults", "no/such/folder"],
    ] {
        let output = linkcheck(&arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(&format!("'{}'", arguments[1])), "{stderr}");
    }
}

#[test]
fn a_start_that_is_not_there_is_an_error() {
    // A port that was free a moment ago, and that nobody listens on.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    drop(listener);
    let output = linkcheck(&[&url]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&url));
}

#[test]
fn a_server_that_never_answers_is_stopped_by_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let output = linkcheck(&[&url, "--timeout", "1h", "--deadline", "300ms"]);
    assert_eq!(output.status.code(), Some(124));
    assert!(stdout(&output).contains("by the deadline, with 1 URLs to go"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_run_with_its_report() {
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    // A server that takes a request and never answers: the run cannot end by itself.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let program = Command::new(program())
        .args([&url, "--timeout", "1h"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("linkcheck runs");
    let (mut connection, _) = listener.accept().expect("a connection");
    connection.read_exact(&mut [0; 4]).expect("a request");

    let interrupted = Instant::now();
    let kill = Command::new("kill")
        .args(["-INT", &program.id().to_string()])
        .status();
    assert!(kill.expect("kill(1)").success());
    let output = program.wait_with_output().expect("the output");
    assert!(
        interrupted.elapsed() < Duration::from_secs(5),
        "took {:?}",
        interrupted.elapsed()
    );
    assert_eq!(output.status.code(), Some(130));
    assert!(stdout(&output).contains("by Ctrl-C, with 1 URLs to go"));
}
