use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Models with their token hallucination rates and their scores on benchmarks.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreTable {
    /// Names of the scores, in the file's order.
    columns: Vec<String>,
    rows: Vec<ScoreRow>,
}

#[derive(Clone, Debug, PartialEq)]
struct ScoreRow {
    /// Share of bad tokens, above 0 and at most 1.
    rate: f64,
    scores: Vec<Option<f64>>,
}

/// The least-squares line `score = slope · (-ln rate) + intercept` of one benchmark (Eq. 8 of the
/// paper), the rate as a fraction.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// Which score.
    pub score: String,
    /// Models that have it.
    pub models: usize,
    /// Points of the score per unit of the negative logarithm.
    pub slope: f64,
    /// Score at a rate of 1.
    pub intercept: f64,
    /// Pearson's correlation, -1..1.
    pub pearson: f64,
    /// Two-sided probability of a correlation as large by chance, by Student's t with
    /// `models - 2` degrees of freedom.
    pub p: f64,
}

/// Why a table could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorrelateError {
    /// It is neither CSV with a header nor a JSON list of objects.
    #[error("the table is not {expected}: {problem}")]
    Syntax {
        /// What was expected.
        expected: &'static str,
        /// What was found.
        problem: String,
    },
    /// The column of rates is missing.
    #[error("the table has no column `token_rate` (a fraction, such as 0.0006)")]
    NoRate,
    /// A cell is no number, or a rate is not above 0 and at most 1.
    #[error("row {row}, column `{column}`: {problem}")]
    Cell {
        /// From 1, the header not counted.
        row: usize,
        /// Its name.
        column: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A line through fewer than three points says nothing.
    #[error("score `{0}`: at least three models with different rates are needed")]
    TooFew(String),
    /// There is no score.
    #[error("the table has no scores beside `name` and `token_rate`")]
    NoScores,
}

const RATE: &str = "token_rate";
const NAME: &str = "name";

/// Fits each score of a table.
pub fn correlate(table: &ScoreTable) -> Result<Vec<Fit>, CorrelateError> {
    let column = |(i, name): (usize, &String)| {
        let points: Vec<(f64, f64)> = table
            .rows
            .iter()
            .filter_map(|r| Some((-r.rate.ln(), r.scores.get(i).copied().flatten()?)))
            .collect();
        fit(name, &points)
    };
    if table.columns.is_empty() {
        return Err(CorrelateError::NoScores);
    }
    table.columns.iter().enumerate().map(column).collect()
}

fn fit(name: &str, points: &[(f64, f64)]) -> Result<Fit, CorrelateError> {
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let sum =
        |of: &dyn Fn(f64, f64) -> f64| -> f64 { points.iter().map(|p| of(p.0 - x, p.1 - y)).sum() };
    let (xx, yy, xy) = (sum(&|a, _| a * a), sum(&|_, b| b * b), sum(&|a, b| a * b));
    if points.len() < 3 || xx <= 0.0 || yy <= 0.0 {
        return Err(CorrelateError::TooFew(name.to_owned()));
    }
    let (slope, pearson) = (xy / xx, xy / (xx * yy).sqrt());
    let freedom = n - 2.0;
    let t = pearson * (freedom / (1.0 - pearson * pearson).max(f64::MIN_POSITIVE)).sqrt();
    let p = StudentsT::new(0.0, 1.0, freedom).map_or(f64::NAN, |d| 2.0 * d.sf(t.abs()));
    Ok(Fit {
        score: name.to_owned(),
        models: points.len(),
        slope,
        intercept: y - slope * x,
        pearson,
        p,
    })
}

// === impl ScoreTable ===

impl ScoreTable {
    /// Reads CSV with a header: `name`, `token_rate` and any scores; empty cells have none.
    pub fn from_csv(bytes: &[u8]) -> Result<Self, CorrelateError> {
        let syntax = |e: csv::Error| CorrelateError::Syntax {
            expected: "CSV with a header",
            problem: e.to_string(),
        };
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
        let header: Vec<String> =
            reader.headers().map_err(syntax)?.iter().map(str::to_owned).collect();
        let rows = reader
            .records()
            .map(|record| {
                Ok(header.iter().cloned().zip(record.map_err(syntax)?.iter().map(cell)).collect())
            })
            .collect::<Result<Vec<_>, _>>()?;
        Self::from_rows(&header, &rows)
    }

    /// Reads a JSON list of objects with the same fields; `null` and missing are empty.
    pub fn from_json(bytes: &[u8]) -> Result<Self, CorrelateError> {
        let rows: Vec<serde_json::Map<String, Value>> =
            serde_json::from_slice(bytes).map_err(|e| CorrelateError::Syntax {
                expected: "a JSON list of objects",
                problem: e.to_string(),
            })?;
        let mut header: Vec<String> = Vec::new();
        for name in rows.iter().flat_map(serde_json::Map::keys) {
            if !header.contains(name) {
                header.push(name.clone());
            }
        }
        let rows: Vec<BTreeMap<String, Cell>> = rows
            .into_iter()
            .map(|row| row.into_iter().map(|(name, v)| (name, Cell::from(&v))).collect())
            .collect();
        Self::from_rows(&header, &rows)
    }

    fn from_rows(
        header: &[String],
        rows: &[BTreeMap<String, Cell>],
    ) -> Result<Self, CorrelateError> {
        if !header.iter().any(|h| h == RATE) {
            return Err(CorrelateError::NoRate);
        }
        let columns: Vec<String> =
            header.iter().filter(|h| *h != RATE && *h != NAME).cloned().collect();
        let read = |(i, row): (usize, &BTreeMap<String, Cell>)| {
            let number = |column: &String| match row.get(column) {
                None | Some(Cell::Empty) => Ok(None),
                Some(Cell::Number(x)) => Ok(Some(*x)),
                Some(Cell::Other) => Err(bad(i, column, "is no number")),
            };
            let rate = number(&RATE.to_owned())?
                .filter(|r| *r > 0.0 && *r <= 1.0)
                .ok_or_else(|| bad(i, RATE, "must be above 0 and at most 1"))?;
            let scores = columns.iter().map(number).collect::<Result<_, _>>()?;
            Ok(ScoreRow { rate, scores })
        };
        let rows = rows.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        Ok(Self { columns, rows })
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Cell {
    Empty,
    Number(f64),
    Other,
}

impl From<&Value> for Cell {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Empty,
            value => value.as_f64().map_or(Self::Other, Self::Number),
        }
    }
}

fn cell(text: &str) -> Cell {
    match text {
        "" | "-" | "–" => Cell::Empty,
        text => text.parse().ok().filter(|x: &f64| x.is_finite()).map_or(Cell::Other, Cell::Number),
    }
}

fn bad(row: usize, column: &str, problem: &'static str) -> CorrelateError {
    CorrelateError::Cell { row: row + 1, column: column.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table 3 of the paper, the rates as fractions.
    const PAPER: &str = "\
name,token_rate,MMMU,MEGA-Bench
GPT-4o,0.00016,69.1,54.1
Llama-3.2-90B-V,0.00017,60.3,
GPT-4o-mini,0.00030,59.4,43.0
GPT-4-Turbo-V,0.00033,56.8,
Qwen2-VL-7B,0.00061,54.1,35.9
Qwen2-VL-2B,0.00066,41.1,22.3
MiniCPM-Llama3-V2.5,0.00067,45.8,22.8
Llama-3.2-11B-V,0.00073,50.7,18.0
Phi-3.5-Vision,0.00261,43.0,25.3
PaliGemma-3B-mix-448,0.04444,27.3,
";

    #[test]
    fn the_papers_fit_is_reproduced() {
        let fits = correlate(&ScoreTable::from_csv(PAPER.as_bytes()).unwrap()).unwrap();
        let near = |x: f64, want: f64, by: f64| assert!((x - want).abs() < by, "{x} {want}");
        let [mmmu, mega] = &fits[..] else { panic!("{fits:?}") };
        assert_eq!((mmmu.models, mega.models), (10, 7));
        near(mmmu.pearson, 0.904, 5e-4);
        near(mmmu.slope, 6.55, 5e-3);
        near(mmmu.intercept, 3.71, 5e-3);
        // The paper prints 3.458e-4, for r = 0.902.
        near(mmmu.p, 3.2e-4, 3e-5);
        near(mega.pearson, 0.754, 5e-4);
        near(mega.slope, 11.55, 5e-3);
        near(mega.intercept, -54.26, 5e-3);
        near(mega.p, 0.05, 5e-3);
    }

    #[test]
    fn json_gives_the_same_as_csv() {
        let json = r#"[{"name": "a", "token_rate": 0.1, "s": 1}, {"token_rate": 0.01, "s": 2.5},
                       {"token_rate": 0.001, "s": 3, "t": null}, {"token_rate": 0.5, "s": null}]"#;
        let csv = "name,token_rate,s\na,0.1,1\n,0.01,2.5\n,0.001,3\n,0.5,-\n";
        let json = ScoreTable::from_json(json.as_bytes()).unwrap();
        let csv = ScoreTable::from_csv(csv.as_bytes()).unwrap();
        assert_eq!(fit_of(&json, 0), fit_of(&csv, 0));
        assert!(matches!(correlate(&json), Err(CorrelateError::TooFew(name)) if name == "t"));
    }

    fn fit_of(table: &ScoreTable, column: usize) -> Fit {
        let name = table.columns[column].clone();
        let rows = table
            .rows
            .iter()
            .map(|r| ScoreRow { scores: vec![r.scores[column]], ..r.clone() })
            .collect();
        correlate(&ScoreTable { columns: vec![name], rows }).unwrap().remove(0)
    }

    #[test]
    fn faults_name_row_and_column() {
        let error = |csv: &str| ScoreTable::from_csv(csv.as_bytes()).unwrap_err().to_string();
        assert!(error("name,score\na,1\n").contains("token_rate"));
        assert!(error("token_rate,s\n0.1,1\n0,2\n").contains("row 2, column `token_rate`"));
        assert!(error("token_rate,s\n0.1,x\n").contains("row 1, column `s`: is no number"));
        assert!(error("token_rate,s\n0.1\n").contains("CSV"));
        assert!(ScoreTable::from_json(b"{}").unwrap_err().to_string().contains("JSON list"));
    }
}
