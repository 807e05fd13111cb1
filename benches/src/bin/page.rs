//! Measures everything anew, and writes the figures of `docs/performance.md` and its charts: `page [family…]`. Of `goals`, nothing is
//! measured: they are held against what the page says.
//!
//! What stands between the marks `measured: NAME` and `end` in that page is replaced; the rest is written by hand.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use plotters::coord::Shift;
use plotters::prelude::*;
use ringfence_benches::exact::{self, Callgrind, Memory};
use ringfence_benches::measure::Place;
use ringfence_benches::scaling::{self, Curve, Picture};
use ringfence_benches::timing::{ratios, timed};
use ringfence_benches::{Row, goals, rows};

/// Rows that are shown together.
struct Family {
    name: &'static str,
    title: &'static str,
    rows: &'static [&'static str],
}

const FAMILIES: &[Family] = &[
    Family {
        name: "groups",
        title: "Groups: time for each child, × tokio::spawn with a Vec of handles",
        rows: &[
            "void", "laden", "result", "yield", "small", "cancel", "tree",
        ],
    },
    Family {
        name: "inside",
        title: "Children in the task of their scope, and eager ones: time for each child, × the first",
        rows: &["local", "local_yields", "eager"],
    },
    Family {
        name: "joining",
        title: "Limits, joining, time: × the first",
        rows: &["slots", "join", "first_ok", "ready", "many"],
    },
    Family {
        name: "fan-out",
        title: "Fan-out: time for each item, × 64 workers written by hand",
        rows: &[
            "fan-spawn",
            "fan-yield",
            "fan-spin",
            "fan-local",
            "fan-local-yield",
        ],
    },
    Family {
        name: "queues",
        title: "Queues: time for each item, × crossfire (batches: × kanal)",
        rows: &["pair", "crowd", "wide", "batch"],
    },
    Family {
        name: "retry",
        title: "Retry, permits: time for each, × the first",
        rows: &[
            "retry-ok",
            "retry-fail3",
            "retry-zero",
            "permit",
            "permit-crowd",
        ],
    },
    Family {
        name: "seen",
        title: "Looking inside: time for each child of four polls, × nobody looking",
        rows: &["seen"],
    },
];

/// A contender's line in a table, and its bar.
struct Line {
    name: &'static str,
    /// The ratio on `current_thread`, and on two workers, the body in a task.
    ct: f64,
    task: f64,
    text: String,
}

type Figures<'a> = (
    Option<&'a mut Callgrind>,
    &'a HashMap<(String, String), Memory>,
);

fn lines(places: &[Place; 3], row: &Row, (callgrind, memory): Figures<'_>) -> Vec<Line> {
    let mut callgrind = callgrind;
    let timed = timed(places, row);
    let base = row
        .contenders
        .iter()
        .position(|contender| contender.name == row.bases.0)
        .unwrap_or_default();
    let mut lines = Vec::new();
    for (number, contender) in row.contenders.iter().enumerate() {
        let ratio = |column| ratios(timed.of(number, column), timed.of(base, column));
        let show = |column| {
            ratio(column).map_or("–".to_owned(), |ratio| {
                format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.low, ratio.high)
            })
        };
        let count = callgrind
            .as_deref_mut()
            .and_then(|callgrind| callgrind.count(row, contender).ok());
        let memory = memory.get(&(row.name.to_owned(), contender.name.to_owned()));
        let text = format!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            row.name,
            contender.name,
            show(0),
            show(2),
            count.map_or("–".to_owned(), |count| format!(
                "{:.0}",
                count.instructions
            )),
            memory.map_or("–".to_owned(), |memory| format!(
                "{:.2}",
                memory.allocations
            )),
            memory.map_or("–".to_owned(), |memory| format!("{:.0}", memory.bytes)),
        );
        let median = |column| ratio(column).map_or(f64::NAN, |ratio| ratio.median);
        lines.push(Line {
            name: contender.name,
            ct: median(0),
            task: median(2),
            text,
        });
    }
    lines
}

const OURS: RGBColor = RGBColor(0x1F, 0x6F, 0xB5);
const OURS_LIGHT: RGBColor = RGBColor(0x8F, 0xBC, 0xE0);
const PEER: RGBColor = RGBColor(0x8A, 0x8A, 0x8A);
const PEER_LIGHT: RGBColor = RGBColor(0xCC, 0xCC, 0xCC);
const LEFT: i32 = 250;
const WIDTH: i32 = 860;
/// Pixels of a ratio of 1; longer bars than the page are cut, and say what they stand for.
const ONE: f64 = 130.0;

type Drawing = Result<(), Box<dyn std::error::Error>>;

fn label(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    text: &str,
    at: (i32, i32),
    size: i32,
) -> Drawing {
    area.draw_text(text, &("sans-serif", size).into_text_style(area), at)?;
    Ok(())
}

fn bars(file: &Path, family: &Family, all: &[(&Row, Vec<Line>)]) -> Drawing {
    let height: i32 = all
        .iter()
        .map(|(_, lines)| 34 + 22 * lines.len() as i32)
        .sum::<i32>()
        + 64;
    let area = SVGBackend::new(file, (WIDTH as u32, height as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    label(&area, family.title, (12, 10), 16)?;
    label(
        &area,
        "shorter is better; dark: current_thread, light: multi_thread with two workers",
        (12, 32),
        12,
    )?;
    let mut y = 60;
    for (row, lines) in all {
        label(&area, row.question, (12, y), 13)?;
        y += 22;
        for line in lines {
            let is_ours = line.name.starts_with("ringfence");
            label(&area, line.name, (24, y + 2), 12)?;
            let colours = if is_ours {
                [OURS, OURS_LIGHT]
            } else {
                [PEER, PEER_LIGHT]
            };
            for (part, (ratio, colour)) in [line.ct, line.task].into_iter().zip(colours).enumerate()
            {
                if !ratio.is_finite() {
                    continue;
                }
                let top = y + 9 * part as i32;
                let right = (LEFT + (ratio * ONE) as i32).min(WIDTH - 60);
                area.draw(&Rectangle::new(
                    [(LEFT, top), (right, top + 8)],
                    colour.filled(),
                ))?;
                label(&area, &format!("{ratio:.2}"), (right + 4, top - 2), 10)?;
            }
            y += 22;
        }
        y += 12;
    }
    area.present()?;
    Ok(())
}

/// Both axes are logarithmic.
fn curves(file: &Path, picture: &Picture) -> Drawing {
    const COLOURS: [RGBColor; 4] = [
        PEER,
        RGBColor(0xB5, 0x6A, 0x1F),
        RGBColor(0x4A, 0x8F, 0x4A),
        RGBColor(0x8A, 0x4A, 0x8F),
    ];
    let points = || picture.curves.iter().flat_map(|curve| &curve.points);
    let most = points().map(|(size, _)| *size).max().unwrap_or(1) as f64;
    let (least, slowest) = points().fold((f64::MAX, 0.0_f64), |(least, most), (_, ns)| {
        (least.min(*ns), most.max(*ns))
    });
    let first = points().map(|(size, _)| *size).min().unwrap_or(1) as f64;
    let area = SVGBackend::new(file, (WIDTH as u32, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(picture.title, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(
            (first..most).log_scale(),
            (least / 1.5..slowest * 1.5).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc(picture.axis)
        .y_desc("nanoseconds each")
        .x_label_formatter(&|size| format!("{size:.0}"))
        .y_label_formatter(&|ns| format!("{ns:.0}"))
        .draw()?;
    let mut colours = COLOURS.iter().cycle();
    for Curve { name, points } in &picture.curves {
        let colour = match name.starts_with("ringfence") {
            true => OURS,
            false => *colours.next().unwrap_or(&PEER),
        };
        let points = points.iter().map(|(size, ns)| (*size as f64, *ns));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .border_style(PEER_LIGHT)
        .background_style(WHITE)
        .draw()?;
    area.present()?;
    Ok(())
}

fn table(picture: &Picture) -> String {
    let mut text = format!("| {} |", picture.axis);
    let sizes: Vec<usize> = picture
        .curves
        .first()
        .map(|curve| curve.points.iter().map(|(size, _)| *size).collect())
        .unwrap_or_default();
    for size in &sizes {
        let _ = write!(text, " {size} |");
    }
    let _ = write!(text, "\n|---|{}", "---|".repeat(sizes.len()));
    for Curve { name, points } in &picture.curves {
        let _ = write!(text, "\n| {name} |");
        for (_, ns) in points {
            let _ = write!(text, " {ns:.0} |");
        }
    }
    text
}

/// Replaces what stands between two marks of the page.
fn put(page: &mut String, name: &str, text: &str) -> Result<(), String> {
    let begin = format!("<!-- measured: {name} -->");
    let from = page
        .find(&begin)
        .ok_or_else(|| format!("the page has no mark `{begin}`"))?
        + begin.len();
    let to = page[from..]
        .find("<!-- end -->")
        .ok_or_else(|| format!("what is measured as `{name}` has no end"))?
        + from;
    page.replace_range(from..to, &format!("\n{text}\n"));
    Ok(())
}

fn run(wanted: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let docs = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"));
    let (path, pictures) = (docs.join("performance.md"), docs.join("performance"));
    std::fs::create_dir_all(&pictures)?;
    let mut page = std::fs::read_to_string(&path)?;
    let programs = exact::programs().map_err(|missing| missing.to_string())?;
    let mut callgrind = Callgrind::find(&programs)
        .map_err(|missing| eprintln!("no instructions: {missing}"))
        .ok();
    let places = Place::all();
    for family in FAMILIES.iter().filter(|family| is_wanted(family.name)) {
        let rows: Vec<&Row> = family
            .rows
            .iter()
            .filter_map(|name| rows::row(name))
            .collect();
        if rows.len() != family.rows.len() {
            return Err(format!("{} names a row that is not there", family.name).into());
        }
        let memory = exact::memory(&programs, &rows)
            .map_err(|missing| eprintln!("no allocations: {missing}"))
            .unwrap_or_default();
        let all: Vec<(&Row, Vec<Line>)> = rows
            .iter()
            .map(|row| (*row, lines(&places, row, (callgrind.as_mut(), &memory))))
            .collect();
        bars(&pictures.join(format!("{}.svg", family.name)), family, &all)?;
        let mut text = "\n| row | who | time ct | time mt | instructions | allocations | bytes |\n|---|---|---|---|---|---|---|".to_owned();
        for line in all.iter().flat_map(|(_, lines)| lines) {
            let _ = write!(text, "\n{}", line.text);
        }
        put(&mut page, family.name, &(text + "\n"))?;
        std::fs::write(&path, &page)?; // what is measured is not lost if the next family fails
    }
    if is_wanted("scaling") {
        for picture in scaling::pictures(&programs) {
            curves(&pictures.join(format!("{}.svg", picture.file)), &picture)?;
            put(&mut page, picture.file, &format!("\n{}\n", table(&picture)))?;
        }
    }
    let goals = goals::table(&page);
    put(&mut page, "goals", &goals)?;
    std::fs::write(&path, &page)?;
    Ok(())
}

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    match run(&wanted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
