use std::fmt::Write as _;

use super::Report;

/// One line of the table of comparison; shares in 0..1.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Token, sentence and response accuracy.
    pub accuracy: [Option<f64>; 3],
    /// Average precision, bad tokens positive and good tokens positive.
    pub map: [Option<f64>; 2],
}

/// The paper's rows (its tables 1 and 2), on other data: perturbed DOCCI captions. Percent.
pub const PAPER: [(&str, [Option<f64>; 5]); 4] = [
    ("paper: TLDR, PaliGemma-3B", [Some(98.6), Some(86.5), Some(83.1), Some(41.3), Some(99.8)]),
    (
        "paper: TLDR, Llama-3.2-11B-Vision",
        [Some(98.9), Some(90.8), Some(88.2), Some(45.7), Some(99.8)],
    ),
    ("paper: naive, PaliGemma-3B", [None, None, Some(81.1), None, None]),
    ("paper: random", [None, None, Some(50.0), None, None]),
];

/// The row of a report.
pub fn row(name: &str, report: &Report) -> Row {
    Row {
        name: name.to_owned(),
        accuracy: [report.token_accuracy, report.sentence_accuracy, report.response_accuracy],
        map: [report.map_neg, report.map_pos],
    }
}

// === impl Row ===

impl Row {
    /// What a model gets that calls every token good: accuracies are the shares that are good.
    pub fn always_good(report: &Report) -> Option<Self> {
        let truth = report.hallucination.get("truth")?;
        Some(Self {
            name: "always good".to_owned(),
            accuracy: [truth.token, truth.sentence, truth.response].map(|bad| Some(1.0 - bad)),
            map: [report.bad_token_share, report.bad_token_share.map(|bad| 1.0 - bad)],
        })
    }

    /// The paper's rows.
    pub fn paper() -> impl Iterator<Item = Self> {
        PAPER.into_iter().map(|(name, percent)| {
            let [token, sentence, response, neg, pos] = percent.map(|p| p.map(|p| p / 100.0));
            Self { name: name.to_owned(), accuracy: [token, sentence, response], map: [neg, pos] }
        })
    }

    /// The figures in percent with one digit, `-` for none.
    pub fn cells(&self) -> Vec<String> {
        let percent =
            |x: &Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{:.1}", 100.0 * x));
        self.accuracy.iter().chain(&self.map).map(percent).collect()
    }
}

/// Names of the figures of a [`Row`].
const HEADER: [&str; 5] = ["token", "sentence", "response", "mAP(neg)", "mAP(pos)"];

/// The table of comparison and the table by taxonomy, as Markdown; percent.
pub fn markdown(rows: &[Row], report: &Report) -> String {
    let mut out = format!("| | {} |\n|---|{}\n", HEADER.join(" | "), "---:|".repeat(HEADER.len()));
    for row in rows {
        let name = row.name.replace('|', "\\|");
        // Writing to a string does not fail.
        let _ = writeln!(out, "| {name} | {} |", row.cells().join(" | "));
    }
    out.push_str("\n| taxonomy | responses | caught | balanced accuracy | mAP(neg) |\n");
    out.push_str("|---|---:|---:|---:|---:|\n");
    let percent =
        |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{:.1}", 100.0 * x));
    for (name, t) in &report.by_taxonomy {
        let _ = writeln!(
            out,
            "| {name} | {} | {} | {} | {} |",
            t.responses,
            percent(Some(t.response_accuracy)),
            percent(t.balanced_accuracy),
            percent(t.map_neg)
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::Evaluation;
    use super::super::report::tests::add;
    use super::*;

    #[test]
    fn the_always_good_row_follows_from_the_labels() {
        let mut evaluation = Evaluation::new();
        add(&mut evaluation, "aB.c.", &[-1.0; 5]);
        add(&mut evaluation, "ab", &[-1.0; 2]);
        let row = Row::always_good(&evaluation.report(0.5)).unwrap();
        assert_eq!(row.cells(), ["90.0", "75.0", "50.0", "14.3", "85.7"]);
    }

    #[test]
    fn tables_have_a_line_for_each_row_and_taxonomy() {
        let mut evaluation = Evaluation::new();
        add(&mut evaluation, "aB.", &[1.0, -1.0, 1.0]);
        let report = evaluation.report(0.5);
        let rows: Vec<Row> = [row("a|b", &report)].into_iter().chain(Row::paper()).collect();
        let text = markdown(&rows, &report);
        assert!(text.contains("| a\\|b | 100.0 | 100.0 | 100.0 | 100.0 | 100.0 |"), "{text}");
        assert!(text.contains("| paper: naive, PaliGemma-3B | - | - | 81.1 | - | - |"));
        assert!(text.contains("| counting | 1 | 100.0 | - | 100.0 |"), "{text}");
    }
}
