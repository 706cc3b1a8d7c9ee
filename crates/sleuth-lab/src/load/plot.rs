use crate::chart::{ACROSS, Pen, Scale, Svg, frame, grid, legend};

use super::{CurvePoint, Percentiles, Report};

/// Width and height of the drawing, in user units.
const SIZE: (f64, f64) = (800.0, 620.0);
/// Top and bottom of the rates.
const RATES: (f64, f64) = (80.0, 290.0);
/// Top and bottom of the latencies.
const CURVES: (f64, f64) = (370.0, 570.0);
// Colours of middle lightness, to be read on white and on black. Lines differ in more than colour,
// for those who see green and red alike; what was sent shows on both sides of what lies on it.
const SENT: Pen = Pen { colour: "#3b82d6", width: 4.0, dashes: "none" };
const VALID: Pen = Pen { colour: "#2f9e5f", width: 1.8, dashes: "none" };
const REFUSED: Pen = Pen { colour: "#d9573f", width: 1.8, dashes: "6 3" };

/// Draws a report as a scalable picture: above, what was sent, answered and refused in each second;
/// below, how long the verdicts took, from the fastest to the slowest of a thousand.
pub fn plot(report: &Report) -> String {
    let mut svg = Svg::new(SIZE);
    let title = format!(
        "{}: {:.1} items/s offered, {:.1} achieved",
        report.settings.target, report.offered_per_second, report.achieved_per_second
    );
    svg.heading((ACROSS.0, 26.0), &title);
    rates(&mut svg, report);
    latencies(&mut svg, report);
    svg.finish()
}

/// The upper panel.
fn rates(svg: &mut Svg, report: &Report) {
    let series = &report.series;
    let kinds = [("sent", SENT), ("valid", VALID), ("refused", REFUSED)];
    let values = |kind: usize| {
        series.iter().map(move |point| {
            let count = [point.sent, point.valid, point.refused][kind];
            let seconds = point.seconds.max(1) as f64;
            (point.second as f64 + seconds / 2.0, count as f64 / seconds)
        })
    };
    let end = series.last().map_or(1.0, |p| (p.second + p.seconds) as f64);
    let highest = (0..kinds.len()).flat_map(values).map(|(_, rate)| rate).fold(1.0, f64::max);
    let x = Scale::linear((0.0, end), ACROSS);
    let y = Scale::linear((0.0, highest), (RATES.1, RATES.0));
    frame(svg, "Rates over time", RATES, ("time (s)", "items/s"));
    grid(svg, &x, &y, RATES);
    for (kind, (_, pen)) in kinds.iter().enumerate() {
        let line: Vec<_> = values(kind).map(|(at, rate)| (x.place(at), y.place(rate))).collect();
        svg.line(&line, *pen);
    }
    legend(svg, RATES.0, &kinds);
}

/// The lower panel.
fn latencies(svg: &mut Svg, report: &Report) {
    let curve = |times: &Option<Percentiles>| -> Vec<CurvePoint> {
        times.as_ref().map_or_else(Vec::new, |times| times.curve.clone())
    };
    let kinds = [("admitted", VALID), ("refused", REFUSED)];
    let curves = [curve(&report.admitted), curve(&report.refused)];
    let all = || curves.iter().flatten().map(|point| point.ms).filter(|ms| *ms > 0.0);
    let shortest = all().fold(f64::INFINITY, f64::min);
    let longest = all().fold(0.0, f64::max);
    let span = if shortest <= longest { (shortest, longest) } else { (1.0, 10.0) };
    let x = Scale::percentiles(ACROSS);
    let y = Scale::logarithmic(span, (CURVES.1, CURVES.0));
    frame(svg, "Latency from planned arrival", CURVES, ("percentile (%)", "latency (ms)"));
    grid(svg, &x, &y, CURVES);
    for (curve, (_, pen)) in curves.iter().zip(&kinds) {
        let known = curve.iter().filter(|point| point.ms > 0.0);
        let line: Vec<_> = known.map(|p| (x.place(p.percentile), y.place(p.ms))).collect();
        svg.line(&line, *pen);
    }
    legend(svg, CURVES.0, &kinds);
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{empty, full};
    use super::*;
    use crate::chart::tests::check;

    #[test]
    fn a_report_of_nothing_is_drawn() {
        let svg = plot(&empty());
        check(&svg);
        assert_eq!(svg.matches("<polyline").count(), 5, "the legends alone");
    }

    #[test]
    fn a_full_report_is_drawn_with_axes_units_and_legends() {
        let svg = plot(&full());
        check(&svg);
        assert_eq!(svg.matches("<polyline").count(), 10);
        for text in ["time (s)", "items/s", "percentile (%)", "latency (ms)", "admitted", "99.9"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.contains("http://&lt;host&gt;:1?a&amp;b"));
    }

    #[test]
    fn figures_at_the_ends_of_their_ranges_are_drawn() {
        let mut report = full();
        for point in &mut report.series {
            (point.sent, point.second) = (u64::MAX, point.second);
        }
        for point in report.admitted.iter_mut().flat_map(|times| &mut times.curve) {
            point.ms = 0.001;
        }
        report.refused = None;
        check(&plot(&report));
    }
}
