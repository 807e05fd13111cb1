//! What is alive in a running service, from outside: for its tasks what `pstree` is for processes.
//!
//! ```sh
//! cargo run --example chat -- --stay --visitors 3                     # a service; it tells the address of its tree
//! cargo run --example pstree -- 127.0.0.1:40123
//! cargo run --example pstree -- 127.0.0.1:40123 --json                # or --mermaid
//! cargo run --example pstree -- 127.0.0.1:40123 --svg docs/service.svg
//! ```

#![expect(clippy::print_stdout, reason = "it is what the program is for")]

#[path = "chat/get.rs"]
mod get;

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// Tell what is alive in a running service
#[derive(Debug, Parser)]
struct Options {
    /// Where the service tells it
    address: SocketAddr,

    /// As JSON
    #[arg(long, group = "form")]
    json: bool,

    /// As a Mermaid flowchart
    #[arg(long, group = "form")]
    mermaid: bool,

    /// As a picture, into a file
    #[arg(long, group = "form", value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let Options {
        address,
        json,
        mermaid,
        svg,
    } = Options::parse();
    let page = match (json, mermaid) {
        (true, _) => "/tree.json",
        (_, true) => "/tree.mmd",
        _ => "/tree",
    };
    let tree = get::get(address, page).await?;
    match svg {
        Some(file) => std::fs::write(file, picture(&tree)),
        None => {
            println!("{}", tree.trim_end());
            Ok(())
        }
    }
}

const ROW: usize = 24;
const STEP: usize = 26;

/// Draws the text form: a row a line, a dot a group or a task, an elbow from whatever it is in.
fn picture(tree: &str) -> String {
    let (mut elbows, mut rows, mut width) = (String::new(), String::new(), 0);
    // The row of the last line of each depth: what the next ones below it hang from.
    let mut last: Vec<usize> = Vec::new();
    for (row, line) in tree.lines().enumerate() {
        let text = line.trim_start_matches([' ', '│', '├', '└', '─']);
        let depth = (line.chars().count() - text.chars().count()) / 3;
        let (x, y) = (20 + depth * STEP, 24 + row * ROW);
        if let Some(above) = depth.checked_sub(1).and_then(|above| last.get(above)) {
            let (from_x, from_y) = (x - STEP, 24 + above * ROW);
            let _ = writeln!(elbows, r#"<path d="M{from_x} {from_y}V{y}H{x}"/>"#);
        }
        last.truncate(depth);
        last.push(row);

        let kind = if text.contains(", forced") {
            "forced"
        } else if text.contains(", cancel") {
            "cancelled"
        } else if text.starts_with("group") {
            "group"
        } else {
            "task"
        };
        let end_of_name = text.find([',', ':']).unwrap_or(text.len());
        let (name, more) = text.split_at(end_of_name);
        let (name, more) = (escaped(name), escaped(more));
        let _ = writeln!(
            rows,
            r#"<circle class="{kind}" cx="{x}" cy="{y}" r="5"/><text x="{}" y="{}"><tspan>{name}</tspan>{more}</text>"#,
            x + 12,
            y + 4,
        );
        width = width.max(x + 40 + text.chars().count() * 8);
    }
    let height = 24 + tree.lines().count() * ROW;
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">
<style>
text {{ font: 13px ui-monospace, monospace; fill: #667 }} tspan {{ font-weight: bold; fill: #112 }}
path {{ fill: none; stroke: #bbc }} circle {{ fill: #9ab }}
.group {{ fill: #27c }} .cancelled {{ fill: #e90 }} .forced {{ fill: #c22 }}
</style>
<rect width="100%" height="100%" fill="white"/>
{elbows}{rows}</svg>
"#
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
