//! What came out, as a table with bars, and as a picture.

use std::fmt::Write as _;
use std::time::Duration;

use crate::client::Way;
use crate::server::{BROKEN, CAPACITY, STEPS, Story};

/// What became of the calls of one way.
#[derive(Debug)]
pub(crate) struct Line {
    way: Way,
    total: Duration,
    /// Good and all calls, by the step in which they began.
    calls: [(u32, u32); STEPS as usize],
    /// How long each call took, the shortest first.
    times: Vec<Duration>,
    /// Requests that the server saw, by step.
    pub(crate) requests: Vec<u32>,
    /// The same in all, also after the last step.
    pub(crate) sent: u32,
}

impl Line {
    pub(crate) fn new(way: Way, total: Duration) -> Self {
        Self {
            way,
            total,
            calls: [(0, 0); STEPS as usize],
            times: Vec::new(),
            requests: Vec::new(),
            sent: 0,
        }
    }

    pub(crate) fn add(&mut self, step: u32, is_good: bool, took: Duration) {
        let (good, all) = &mut self.calls[step as usize];
        *all += 1;
        *good += u32::from(is_good);
        let place = self.times.partition_point(|other| *other <= took);
        self.times.insert(place, took);
    }

    /// The share of good calls, from the step on.
    fn success(&self, from: u32) -> f64 {
        let steps = self.calls.iter().skip(from as usize);
        let (good, all) = steps.fold((0, 0), |(good, all), step| (good + step.0, all + step.1));
        f64::from(good) / f64::from(all.max(1))
    }

    /// Requests that the server saw for each call.
    pub(crate) fn amplification(&self) -> f64 {
        f64::from(self.sent) / self.times.len().max(1) as f64
    }

    /// The time that this share of the calls did not exceed, in milliseconds.
    fn percentile(&self, share: f64) -> f64 {
        let last = self.times.len().saturating_sub(1);
        let place = (last as f64 * share).round() as usize;
        let time = self.times.get(place).copied().unwrap_or_default();
        time.as_secs_f64() * 1e3
    }

    /// How long a call takes on average, in milliseconds.
    pub(crate) fn mean(&self) -> f64 {
        let all: Duration = self.times.iter().sum();
        all.as_secs_f64() * 1e3 / self.times.len().max(1) as f64
    }

    /// How long a step is, in seconds.
    fn step(&self) -> f64 {
        self.total.as_secs_f64() / f64::from(STEPS)
    }

    fn good_each_second(&self) -> Vec<f64> {
        let good = self.calls.iter().map(|(good, _)| f64::from(*good));
        good.map(|good| good / self.step()).collect()
    }

    fn requests_each_second(&self) -> Vec<f64> {
        let requests = self.requests.iter().map(|requests| f64::from(*requests));
        requests.map(|requests| requests / self.step()).collect()
    }

    /// The share of good calls over time, a character a step.
    fn course(&self) -> String {
        const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let level = |(good, all): &(u32, u32)| (good * 8).div_ceil((*all).max(1)) as usize;
        self.calls.iter().map(|step| LEVELS[level(step)]).collect()
    }
}

/// The table for the terminal.
pub(crate) fn table(lines: &[Line]) -> String {
    let width = STEPS as usize;
    let mut text = format!(
        "\n{:<9} {:<16} {:>6} {:>9}  {:<width$} {:>15} {:>7} {:>7} {:>7}\n",
        "story",
        "way",
        "good",
        "recovered",
        "good calls over time",
        "requests a call",
        "p50 ms",
        "p99 ms",
        "p99.9"
    );
    let mut before = None;
    for line in lines {
        let story = line.way.story();
        if before.is_some_and(|before| before != story) {
            text.push('\n');
        }
        before = Some(story);
        // The second half is long after the server is well again.
        let recovered = match story {
            Story::Overload => format!("{:.0} %", line.success(STEPS / 2) * 100.0),
            Story::Tail => "–".to_owned(),
        };
        let (way, course, good) = (line.way, line.course(), line.success(0) * 100.0);
        let (sent, p50, p99) = (
            line.amplification(),
            line.percentile(0.5),
            line.percentile(0.99),
        );
        let p999 = line.percentile(0.999);
        // Writing to a string does not fail.
        writeln!(
            text,
            "{story:<9} {way:<16} {good:>4.0} % {recovered:>9} |{course}| {sent:>14.2} {p50:>7.0} {p99:>7.0} {p999:>7.0}"
        )
        .unwrap_or_default();
    }
    text.push_str("\ngood: all calls; recovered: those of the second half, when the server is long well again\n");
    text
}

const SIZE: (f64, f64) = (940.0, 760.0);
const LEFT: f64 = 70.0;
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 170.0;

/// One coordinate system.
struct Panel {
    top: f64,
    most: f64,
}

impl Panel {
    fn y(&self, value: f64) -> f64 {
        self.top + HEIGHT * (1.0 - value.min(self.most) / self.most)
    }

    fn frame(&self, svg: &mut String, title: &str, unit: &str) {
        let (top, bottom) = (self.top, self.top + HEIGHT);
        let right = LEFT + WIDTH;
        put(
            svg,
            format_args!(
                "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{title}</text>",
                top - 12.0
            ),
        );
        put(
            svg,
            format_args!(
                "<path d=\"M{LEFT} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"#52606d\"/>"
            ),
        );
        for part in 0..=4 {
            let value = self.most * f64::from(part) / 4.0;
            let y = self.y(value);
            put(
                svg,
                format_args!("<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#e4e7eb\"/>"),
            );
            put(
                svg,
                format_args!(
                    "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.0}{unit}</text>",
                    LEFT - 8.0,
                    y + 4.0
                ),
            );
        }
    }

    fn curve(&self, svg: &mut String, values: &[f64], colour: &str) {
        let step = WIDTH / values.len().max(1) as f64;
        let mut points = String::new();
        for (place, value) in values.iter().enumerate() {
            let x = LEFT + step * (place as f64 + 0.5);
            write!(points, "{x:.1},{:.1} ", self.y(*value)).unwrap_or_default();
        }
        put(
            svg,
            format_args!(
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2.5\"/>"
            ),
        );
    }
}

fn put(svg: &mut String, piece: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    writeln!(svg, "{piece}").unwrap_or_default();
}

/// The same as a picture: the outage over time, what the server is asked for meanwhile, and the tail.
pub(crate) fn svg(lines: &[Line]) -> String {
    let of = |story| lines.iter().filter(move |line| line.way.story() == story);
    let (width, height) = SIZE;
    let mut svg = String::new();
    put(
        &mut svg,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\" fill=\"#1f2933\">"
        ),
    );
    put(
        &mut svg,
        format_args!("<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>"),
    );

    let most = |values: fn(&Line) -> Vec<f64>| {
        let all = of(Story::Overload).flat_map(values);
        all.fold(1.0, f64::max) * 1.05
    };
    type Values = fn(&Line) -> Vec<f64>;
    let panels: [(f64, &str, Values); 2] = [
        (
            50.0,
            "Overload: good calls a second, by when they began",
            Line::good_each_second,
        ),
        (
            290.0,
            "Overload: requests a second at the server",
            Line::requests_each_second,
        ),
    ];
    for (top, title, values) in panels {
        let panel = Panel {
            top,
            most: most(values),
        };
        let step = WIDTH / f64::from(STEPS);
        let (x, wide) = (
            LEFT + step * f64::from(BROKEN.0),
            step * f64::from(BROKEN.1 - BROKEN.0),
        );
        put(
            &mut svg,
            format_args!(
                "<rect x=\"{x}\" y=\"{top}\" width=\"{wide}\" height=\"{HEIGHT}\" fill=\"#ffe3e3\"/>"
            ),
        );
        put(
            &mut svg,
            format_args!(
                "<text x=\"{}\" y=\"{}\" font-size=\"11\">the server is slow</text>",
                x + 4.0,
                top + 14.0
            ),
        );
        panel.frame(&mut svg, title, "");
        let seconds = lines.first().map_or(0.0, |line| line.total.as_secs_f64());
        for part in 0..=4 {
            let (x, y) = (LEFT + WIDTH * f64::from(part) / 4.0, top + HEIGHT + 18.0);
            let at = seconds * f64::from(part) / 4.0;
            put(
                &mut svg,
                format_args!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{at:.1} s</text>"),
            );
        }
        if CAPACITY < panel.most {
            let (y, right) = (panel.y(CAPACITY), LEFT + WIDTH);
            put(
                &mut svg,
                format_args!(
                    "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#1f2933\" stroke-dasharray=\"6 4\"/>"
                ),
            );
            put(
                &mut svg,
                format_args!(
                    "<text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"11\">what a healthy server can do</text>",
                    y - 4.0
                ),
            );
        }
        for line in of(Story::Overload) {
            panel.curve(&mut svg, &values(line), colour(line.way));
        }
    }
    for (place, line) in of(Story::Overload).enumerate() {
        let y = 70.0 + 44.0 * place as f64;
        legend(
            &mut svg,
            y,
            line,
            &format!(
                "{:.0} % good, {:.1} requests a call",
                line.success(0) * 100.0,
                line.amplification()
            ),
        );
    }

    const SHARES: [(f64, &str); 5] = [
        (0.5, "p50"),
        (0.9, "p90"),
        (0.95, "p95"),
        (0.99, "p99"),
        (0.999, "p99.9"),
    ];
    let longest = of(Story::Tail)
        .map(|line| line.percentile(0.999))
        .fold(1.0, f64::max);
    let panel = Panel {
        top: 530.0,
        most: longest * 1.1,
    };
    panel.frame(&mut svg, "Slow tail: how long calls take", " ms");
    for (row, line) in of(Story::Tail).enumerate() {
        for (place, (share, name)) in SHARES.into_iter().enumerate() {
            let value = line.percentile(share);
            let x = LEFT + 24.0 + 124.0 * place as f64 + 50.0 * row as f64;
            let y = panel.y(value);
            let tall = panel.top + HEIGHT - y;
            put(
                &mut svg,
                format_args!(
                    "<rect x=\"{x}\" y=\"{y:.1}\" width=\"44\" height=\"{tall:.1}\" fill=\"{}\"/>",
                    colour(line.way)
                ),
            );
            put(
                &mut svg,
                format_args!(
                    "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"11\">{value:.0}</text>",
                    x + 22.0,
                    y - 4.0
                ),
            );
            if row == 0 {
                put(
                    &mut svg,
                    format_args!(
                        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{name}</text>",
                        x + 47.0,
                        panel.top + HEIGHT + 20.0
                    ),
                );
            }
        }
        legend(
            &mut svg,
            550.0 + 44.0 * row as f64,
            line,
            &format!("{:.2} requests a call", line.amplification()),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String, y: f64, line: &Line, text: &str) {
    let x = LEFT + WIDTH + 16.0;
    let (way, colour) = (line.way, colour(line.way));
    put(
        svg,
        format_args!(
            "<rect x=\"{x}\" y=\"{}\" width=\"14\" height=\"14\" fill=\"{colour}\"/>",
            y - 12.0
        ),
    );
    put(
        svg,
        format_args!(
            "<text x=\"{}\" y=\"{y}\" font-weight=\"bold\">{way}</text>",
            x + 20.0
        ),
    );
    put(
        svg,
        format_args!(
            "<text x=\"{}\" y=\"{}\" font-size=\"11\">{text}</text>",
            x + 20.0,
            y + 16.0
        ),
    );
}

fn colour(way: Way) -> &'static str {
    match way {
        Way::Once | Way::Tail => "#9aa5b1",
        Way::Naive => "#d64545",
        Way::Polite => "#f0b429",
        Way::Budget => "#3ebd93",
        Way::Hedged => "#2186eb",
    }
}
