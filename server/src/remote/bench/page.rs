//! The page of `--html`: one file without scripts or anything to load, with a table and two charts
//! for each workload.

use std::fmt::Write as _;

use super::report::{HEADINGS, Measurement, Report, thousands};

/// The size of a chart, and the room around it for labels.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;

/// The parts of all replies at which the latency is drawn: the axis is the number of nines.
const PARTS: [(f64, &str); 5] =
    [(0.0, "0 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")];

/// The classes of the two lines of a chart.
const CLASSES: [&str; 2] = ["full", "fixed"];

const STYLE: &str = "\
:root { color-scheme: light dark; --text: #1c2230; --dim: #667085; --line: #d9dee8;
  --back: #fff; --card: #f6f8fb; --full: #2f6fde; --fixed: #d9642a }
@media (prefers-color-scheme: dark) { :root { --text: #e6e9f0; --dim: #98a2b3; --line: #343b4a;
  --back: #12151c; --card: #1a1f29; --full: #6ea0ff; --fixed: #ff9a66 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
  max-width: 1060px; margin: 2.5rem auto; padding: 0 1.25rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
p { color: var(--dim); margin: .25rem 0 1.25rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: right }
th { color: var(--dim); font-weight: 500 }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left }
.charts { display: flex; flex-wrap: wrap; gap: 1rem }
figure { margin: 0; padding: .75rem; background: var(--card); border-radius: 8px; flex: 1 1 440px }
figcaption { font-size: 13px; color: var(--dim); margin-bottom: .25rem }
svg { width: 100%; height: auto } svg text { font: 11px system-ui, sans-serif; fill: var(--dim) }
.grid { stroke: var(--line); stroke-width: 1 }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round }
.full { stroke: var(--full) } .fixed { stroke: var(--fixed) }
.key { display: inline-block; width: 1.2em; border-top: 3px solid; vertical-align: middle }
.key.full { border-color: var(--full) } .key.fixed { border-color: var(--fixed) }
";

/// The whole page.
pub fn render(report: &Report) -> String {
    let mut page = String::new();
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>strandline bench</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>strandline bench</h1>\n<p>{}</p>\n",
        escaped(&report.settings())
    );
    page.push_str(&table(report));
    let mut rest = report.measurements.as_slice();
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|other| other.workload == first.workload).count();
        let (of_workload, others) = rest.split_at(same);
        rest = others;
        let _ = write!(
            page,
            "<h2>{}</h2>\n<div class=\"charts\">\n{}{}</div>\n",
            first.workload.name(),
            figure("latency by part of the replies", of_workload, &latency_chart(of_workload)),
            figure("replies of each second", of_workload, &rate_chart(of_workload)),
        );
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn table(report: &Report) -> String {
    let row = |tag: &str, cells: &[String]| {
        let cells: Vec<String> =
            cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
        format!("<tr>{}</tr>\n", cells.concat())
    };
    let rows: String =
        report.measurements.iter().map(|measurement| row("td", &measurement.cells())).collect();
    format!("<table>\n{}{rows}</table>\n", row("th", &HEADINGS.map(str::to_owned)))
}

fn figure(title: &str, measurements: &[Measurement], chart: &str) -> String {
    let keys: Vec<String> = measurements
        .iter()
        .zip(CLASSES)
        .map(|(measurement, class)| {
            format!(" &ensp;<span class=\"key {class}\"></span> {}", measurement.speed())
        })
        .collect();
    format!("<figure><figcaption>{title}{}</figcaption>\n{chart}</figure>\n", keys.concat())
}

/// A value's position on an axis of `length`, if the axis ends at `end`.
fn scaled(value: f64, end: f64, length: f64) -> f64 {
    value / end * length
}

fn across(value: f64, end: f64) -> f64 {
    LEFT + scaled(value, end, WIDTH - LEFT - RIGHT)
}

fn up(value: f64, end: f64) -> f64 {
    HEIGHT - BOTTOM - scaled(value, end, HEIGHT - TOP - BOTTOM)
}

/// Latencies over the number of nines, on a logarithmic axis.
fn latency_chart(measurements: &[Measurement]) -> String {
    let nines_end = 4.0;
    let longest = measurements.iter().map(|one| one.tally.latency_us(0.9999)).max();
    let shortest = measurements.iter().map(|one| one.tally.latency_us(0.0)).min();
    let low = (shortest.unwrap_or(1).max(1) as f64).log10().floor();
    let high = (longest.unwrap_or(1).max(1) as f64).log10().ceil().max(low + 1.0);
    let mut chart = Chart::new();
    let mut power = low;
    while power <= high {
        let us = 10_f64.powf(power);
        chart.across_line(up(power - low, high - low), &power_text(us));
        power += 1.0;
    }
    for (nines, (_, label)) in (0..).zip(PARTS) {
        chart.below(across(f64::from(nines), nines_end), label);
    }
    for (measurement, class) in measurements.iter().zip(CLASSES) {
        let points = (0..=80).map(|step| {
            let nines = f64::from(step) / 20.0;
            let part = 1.0 - 10_f64.powf(-nines);
            let us = measurement.tally.latency_us(part).max(1) as f64;
            (across(nines, nines_end), up(us.log10() - low, high - low))
        });
        chart.curve(class, points);
    }
    chart.finish()
}

/// A power of ten in microseconds with its unit.
fn power_text(us: f64) -> String {
    match us {
        1e6.. => format!("{:.0} s", us / 1e6),
        1e3.. => format!("{:.0} ms", us / 1e3),
        us => format!("{us:.0} µs"),
    }
}

/// Replies of each second, from zero on.
fn rate_chart(measurements: &[Measurement]) -> String {
    // The last second is not whole.
    let seconds = |one: &Measurement| {
        let whole = one.tally.by_second.len().min(one.whole_seconds());
        one.tally.by_second[..whole].to_vec()
    };
    let all: Vec<Vec<u64>> = measurements.iter().map(seconds).collect();
    let most = all.iter().flatten().copied().max().unwrap_or(1).max(1) as f64;
    let step = round_step(most / 4.0);
    let end = (most / step).ceil() * step;
    let length = all.iter().map(Vec::len).max().unwrap_or(1).max(2) as f64 - 1.0;
    let mut chart = Chart::new();
    let mut value = 0.0;
    while value <= end {
        chart.across_line(up(value, end), &thousands(value));
        value += step;
    }
    let time_step = round_step(length / 8.0).max(1.0);
    let mut second = 0.0;
    while second <= length {
        chart.below(across(second, length), &format!("{second:.0} s"));
        second += time_step;
    }
    for (counts, class) in all.iter().zip(CLASSES) {
        // A measurement of one second is a line, too.
        let counts = if counts.len() == 1 { vec![counts[0]; 2] } else { counts.clone() };
        let points = counts.iter().enumerate();
        chart.curve(
            class,
            points.map(|(second, count)| (across(second as f64, length), up(*count as f64, end))),
        );
    }
    chart.finish()
}

/// The next of 1, 2, 5, 10, 20, … that is not below a value.
fn round_step(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1.0).log10().floor());
    let found = [1.0, 2.0, 5.0, 10.0].into_iter().find(|digit| digit * power >= value);
    found.unwrap_or(10.0) * power
}

struct Chart(String);

impl Chart {
    fn new() -> Chart {
        Chart(format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n"))
    }

    fn across_line(&mut self, y: f64, label: &str) {
        let (end, text) = (WIDTH - RIGHT, LEFT - 6.0);
        let _ = write!(
            self.0,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{end}\" y2=\"{y:.1}\"/>\n\
             <text x=\"{text}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            y + 4.0,
            escaped(label)
        );
    }

    fn below(&mut self, x: f64, label: &str) {
        let y = HEIGHT - BOTTOM + 16.0;
        let _ = writeln!(
            self.0,
            "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{}</text>",
            escaped(label)
        );
    }

    fn curve(&mut self, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ =
            writeln!(self.0, "<polyline class=\"curve {class}\" points=\"{}\"/>", points.join(" "));
    }

    fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::remote::bench::plan::Plan;
    use crate::remote::bench::tally::Tally;
    use crate::remote::bench::workload::Workload;

    fn report() -> Report {
        let plan = Plan {
            connections: 1,
            pipeline: 1,
            body: 16,
            members: 1,
            relaxed: true,
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(3),
        };
        let mut tally = Tally::new();
        for number in 0..3_000 {
            tally.add(Duration::from_millis(number), Duration::from_micros(100 + number), None);
        }
        let mut report = Report::new(plan, "<0.1>".into());
        for (workload, rate) in
            [(Workload::Append, None), (Workload::Append, Some(9.0)), (Workload::Push, None)]
        {
            let tally = tally.clone();
            report.measurements.push(Measurement {
                workload,
                rate,
                tally,
                time: Duration::from_secs(3),
            });
        }
        report
    }

    #[test]
    fn each_workload_has_two_charts_with_a_curve_for_each_speed() {
        let page = render(&report());
        assert_eq!(page.matches("<svg").count(), 4);
        assert_eq!(page.matches("curve full").count(), 4);
        assert_eq!(page.matches("curve fixed").count(), 2);
        assert_eq!(page.matches("<tr>").count(), 4);
        assert!(page.contains("server &lt;0.1&gt;"), "texts are escaped");
        for outside in ["http://", "https://", "<script", "url("] {
            assert!(!page.contains(outside), "{outside}: the page loads nothing");
        }
    }

    #[test]
    fn curves_stay_inside_their_chart() {
        let page = render(&report());
        for points in page.split("points=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            for point in points.split(' ') {
                let (x, y) = point.split_once(',').expect("a point");
                let (x, y): (f64, f64) = (x.parse().expect("x"), y.parse().expect("y"));
                assert!((LEFT..=WIDTH - RIGHT).contains(&x), "{point}");
                assert!((TOP - 0.1..=HEIGHT - BOTTOM).contains(&y), "{point}");
            }
        }
    }

    #[test]
    fn axes_have_round_numbers() {
        let steps = [0.3, 1.0, 1.1, 4.0, 700.0].map(|value| round_step(value).to_string());
        assert_eq!(steps, ["1", "1", "2", "5", "1000"]);
    }
}
