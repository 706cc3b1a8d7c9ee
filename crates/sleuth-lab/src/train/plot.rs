use serde::Deserialize;

use crate::chart::{ACROSS, Pen, Scale, Svg, frame, grid, legend};

const SIZE: (f64, f64) = (800.0, 620.0);
/// Top and bottom of the losses, and of the accuracies.
const PANELS: [(f64, f64); 2] = [(80.0, 290.0), (370.0, 570.0)];
const TRAINING: Pen = Pen { colour: "#3b82d6", width: 1.6, dashes: "none" };
const VALIDATION: Pen = Pen { colour: "#d9573f", width: 2.4, dashes: "6 3" };

/// A line of a run's log: means over some steps, or a measurement on validation pictures.
#[derive(Debug, Deserialize)]
struct Line {
    stage: String,
    step: u64,
    /// Of the stage; not in every line.
    steps: Option<u64>,
    loss: Option<f64>,
    accuracy: Option<f64>,
    validation: Option<Measured>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Measured {
    loss: f64,
    accuracy: f64,
}

/// A figure at a step, counted over all stages.
#[derive(Clone, Copy, Debug)]
struct Point {
    at: f64,
    value: Measured,
    is_validation: bool,
}

/// Draws a run's log: above the loss per token or patch, below the share of responses or patches
/// judged rightly; stages one after the other. Lines that are none are passed over.
pub fn plot_log(name: &str, log: &str) -> String {
    let lines: Vec<Line> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let points = points(&lines);
    let end = points.iter().map(|p| p.at).fold(1.0, f64::max);
    let x = Scale::linear((0.0, end), ACROSS);
    let mut svg = Svg::new(SIZE);
    svg.heading((ACROSS.0, 26.0), &format!("training of {name}"));
    let losses = points.iter().map(|p| p.value.loss).filter(|loss| *loss > 0.0);
    let span = losses.clone().fold(f64::INFINITY, f64::min)..losses.fold(0.0, f64::max);
    let span = if span.start <= span.end { (span.start, span.end) } else { (0.1, 1.0) };
    let scales = [
        Scale::logarithmic(span, (PANELS[0].1, PANELS[0].0)),
        Scale::linear((0.0, 1.0), (PANELS[1].1, PANELS[1].0)),
    ];
    let names = [("Loss per token or patch", "loss"), ("Judged rightly", "share")];
    for (i, y) in scales.iter().enumerate() {
        frame(&mut svg, names[i].0, PANELS[i], ("step", names[i].1));
        grid(&mut svg, &x, y, PANELS[i]);
        for (is_validation, pen) in [(false, TRAINING), (true, VALIDATION)] {
            let own = points.iter().filter(|p| p.is_validation == is_validation);
            let value = |p: &Point| if i == 0 { p.value.loss } else { p.value.accuracy };
            let line: Vec<_> = own.map(|p| (x.place(p.at), y.place(value(p)))).collect();
            svg.line(&line, pen);
        }
        legend(&mut svg, PANELS[i].0, &[("training", TRAINING), ("validation", VALIDATION)]);
    }
    svg.finish()
}

/// Steps count on from one stage to the next, also where the next is of the same kind: a stage that
/// has all its steps is over. A run that was stopped may have logged steps twice; the later line
/// stands.
fn points(lines: &[Line]) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::new();
    let (mut start, mut furthest, mut stage) = (0.0, 0.0_f64, None);
    let mut is_over = false;
    for line in lines {
        let went_back = start + (line.step as f64) < furthest;
        if stage != Some(&line.stage) || is_over && went_back {
            (start, stage, is_over) = (furthest, Some(&line.stage), false);
        }
        is_over = line.steps.map_or(is_over, |steps| steps == line.step);
        let at = start + line.step as f64;
        furthest = furthest.max(at);
        let own = line.loss.zip(line.accuracy).map(|(loss, accuracy)| Measured { loss, accuracy });
        let Some(value) = line.validation.or(own) else { continue };
        let is_validation = line.validation.is_some();
        points.retain(|p| p.is_validation != is_validation || p.at < at);
        points.push(Point { at, value, is_validation });
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::tests::check;

    const LOG: &str = r#"{"stage":"vision","step":20,"loss":2.5,"accuracy":0.1}
{"stage":"vision","step":40,"loss":1.5,"accuracy":0.3}
{"stage":"pretrain","step":0,"validation":{"loss":7.0,"accuracy":0.4}}
not a line
{"stage":"pretrain","step":20,"loss":1.0,"accuracy":0.5}
{"stage":"pretrain","step":20,"loss":0.9,"accuracy":0.6}
"#;

    #[test]
    fn a_log_is_drawn_with_both_panels() {
        let svg = plot_log("mini", LOG);
        check(&svg);
        for text in ["training of mini", "loss", "share", "validation", "step"] {
            assert!(svg.contains(text), "{text}");
        }
        check(&plot_log("nothing", ""));
    }

    #[test]
    fn two_stages_of_one_kind_follow_one_another() {
        let line = |step: u64| Line {
            stage: "pretrain".to_owned(),
            step,
            steps: Some(40),
            loss: Some(1.0),
            accuracy: Some(0.5),
            validation: None,
        };
        let measured = Some(Measured { loss: 1.0, accuracy: 0.5 });
        let validation = Line { steps: None, loss: None, validation: measured, ..line(40) };
        let log = [line(20), line(40), validation, line(20), line(40), line(20)];
        let at: Vec<u32> = points(&log).iter().map(|p| p.at as u32).collect();
        assert_eq!(at, [20, 40, 40, 60, 80, 100]);
    }

    #[test]
    fn stages_follow_one_another_and_a_repeated_step_counts_once() {
        let lines: Vec<Line> = LOG.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
        let own: Vec<_> = points(&lines).into_iter().filter(|p| !p.is_validation).collect();
        let at: Vec<u32> = own.iter().map(|p| p.at as u32).collect();
        assert_eq!(at, [20, 40, 60]);
        assert!((own[2].value.loss - 0.9).abs() < 1e-12);
    }
}
