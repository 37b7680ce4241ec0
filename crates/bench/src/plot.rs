//! A picture of latency over load, as SVG: one point for each run.

use std::path::Path;

use anyhow::Context;
use plotters::prelude::{ChartBuilder, IntoDrawingArea, IntoLogRange, LineSeries, PathElement, SVGBackend};
use plotters::style::{BLACK, Color, RGBColor, WHITE};

use crate::load::Pace;
use crate::report::Report;
use crate::stats::Summary;

const SIZE: (u32, u32) = (960, 540);
/// What is drawn: its name, how it is read, its colour.
type Line = (&'static str, fn(&Summary) -> Option<f64>, RGBColor);
const LINES: [Line; 3] = [
    ("p50", |latency| latency.p50_us, RGBColor(31, 119, 180)),
    ("p99", |latency| latency.p99_us, RGBColor(255, 127, 14)),
    ("p99.9", |latency| latency.p999_us, RGBColor(214, 39, 40)),
];

/// Draws it into a file. Load is what was offered, or what was answered where nothing was offered at a rate.
pub(crate) fn latency_over_load(file: &Path, reports: &[Report]) -> anyhow::Result<()> {
    let mut answered: Vec<&Report> = reports.iter().filter(|report| report.latency.is_some()).collect();
    answered.sort_by(|a, b| load(a).total_cmp(&load(b)));
    let first = answered.first().context("nothing was answered that could be drawn")?;
    draw(file, &first.scenario, &answered).with_context(|| format!("{} cannot be drawn", file.display()))
}

fn draw(file: &Path, title: &str, reports: &[&Report]) -> anyhow::Result<()> {
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let most = reports.iter().map(|report| load(report)).fold(1.0, f64::max);
    let latencies = || reports.iter().flat_map(|report| LINES.map(|(_, read, _)| millis(report, read))).flatten();
    let (least, longest) = (latencies().fold(f64::MAX, f64::min).max(0.001), latencies().fold(0.002, f64::max));
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..most * 1.05, (least * 0.8..longest * 1.25).log_scale())?;
    chart.configure_mesh().x_desc("calls a second").y_desc("latency in ms").draw()?;
    for (name, read, colour) in LINES {
        let points = reports.iter().filter_map(|report| Some((load(report), millis(report, read)?.max(least))));
        let line = chart.draw_series(LineSeries::new(points, colour.stroke_width(2)).point_size(3))?;
        line.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    area.present()?;
    Ok(())
}

fn millis(report: &Report, read: fn(&Summary) -> Option<f64>) -> Option<f64> {
    Some(report.latency(read)? / 1_000.0)
}

fn load(report: &Report) -> f64 {
    match report.pace {
        Pace::PerSecond(rate) => rate,
        Pace::InFlight(_) => report.per_second,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rate: f64, p99_us: f64) -> Report {
        let latency = Summary { p50_us: Some(p99_us / 2.0), p99_us: Some(p99_us), ..Summary::default() };
        Report::bare("get-product", Pace::PerSecond(rate), latency)
    }

    #[test]
    fn a_sweep_becomes_a_picture_and_nothing_becomes_none() {
        let folder = tempfile::TempDir::with_prefix("souk-bench-").unwrap();
        let file = folder.path().join("plot.svg");
        latency_over_load(&file, &[report(2_000.0, 9_000.0), report(1_000.0, 800.0)]).unwrap();
        let picture = std::fs::read_to_string(&file).unwrap();
        for part in ["<svg", "get-product", "calls a second", "p99.9"] {
            assert!(picture.contains(part), "{part}");
        }
        let nothing = Report { latency: None, ..report(1.0, 0.0) };
        assert!(latency_over_load(&file, &[nothing]).is_err());
    }
}
