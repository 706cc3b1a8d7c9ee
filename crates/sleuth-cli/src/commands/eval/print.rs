use std::io::{self, Write};

use anyhow::Result;
use serde_json::{Value, json};
use sleuth_lab::eval::{Calibration, Fit, Report, Row};

use crate::arguments::Format;
use crate::output::{self, Table};

/// Prints measurements: everything as JSON, or tables for people.
pub(super) fn report(
    report: &Report,
    rows: &[Row],
    calibration: Option<&Calibration>,
    format: Format,
) -> Result<()> {
    let mut out = io::stdout().lock();
    if format == Format::Json {
        let mut all = serde_json::to_value(report)?;
        all["rows"] = rows.iter().map(row_json).collect();
        if let Some(calibration) = calibration {
            all["calibration"] = serde_json::to_value(calibration)?;
        }
        return output::json_line(&mut out, &all);
    }
    let mut table = Table::new(&["%", "token", "sentence", "response", "mAP(neg)", "mAP(pos)"]);
    for row in rows {
        table.row([vec![row.name.clone()], row.cells()].concat());
    }
    writeln!(out, "{} responses, flagged at {:.3}\n{table}", report.responses, report.threshold)?;
    let mut table = Table::new(&["taxonomy", "responses", "caught", "balanced", "mAP(neg)"]);
    for (name, t) in &report.by_taxonomy {
        table.row(vec![
            name.clone(),
            t.responses.to_string(),
            percent(Some(t.response_accuracy)),
            percent(t.balanced_accuracy),
            percent(t.map_neg),
        ]);
    }
    writeln!(out, "{table}clean responses passed: {}", percent(report.clean_response_accuracy))?;
    for (name, rates) in &report.hallucination {
        writeln!(
            out,
            "hallucination rate, {name}: token {} %, sentence {} %, response {} %",
            percent(Some(rates.token)),
            percent(Some(rates.sentence)),
            percent(Some(rates.response))
        )?;
    }
    if let Some(c) = calibration {
        writeln!(
            out,
            "calibration: best threshold {:.3} ({} % of responses, {} % at 0.5), expected error \
             {:.4}, Brier score {:.4}",
            c.threshold,
            percent(Some(c.response_accuracy)),
            percent(Some(c.response_accuracy_at_half)),
            c.equal_width.expected_calibration_error,
            c.brier
        )?;
    }
    Ok(())
}

/// Prints the fits of scores to hallucination rates.
pub(super) fn fits(fits: &[Fit], format: Format) -> Result<()> {
    let mut out = io::stdout().lock();
    if format == Format::Json {
        return output::json_line(&mut out, &json!({ "fits": fits }));
    }
    let mut table = Table::new(&["score", "models", "Pearson", "p", "slope", "intercept"]);
    for fit in fits {
        table.row(vec![
            fit.score.clone(),
            fit.models.to_string(),
            format!("{:.3}", fit.pearson),
            format!("{:.2e}", fit.p),
            format!("{:.2}", fit.slope),
            format!("{:.2}", fit.intercept),
        ]);
    }
    writeln!(out, "{table}score = slope · (-ln token_rate) + intercept")?;
    Ok(())
}

fn row_json(row: &Row) -> Value {
    let [token, sentence, response] = row.accuracy;
    let [neg, pos] = row.map;
    json!({"name": row.name, "token_accuracy": token, "sentence_accuracy": sentence,
           "response_accuracy": response, "map_neg": neg, "map_pos": pos})
}

fn percent(x: Option<f64>) -> String {
    x.map_or_else(|| "-".to_owned(), |x| format!("{:.1}", 100.0 * x))
}
