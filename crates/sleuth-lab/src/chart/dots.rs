use super::{ACROSS, Anchor, Pen, Scale, Svg};

/// What one row of [`dots`] shows.
#[derive(Clone, Debug, PartialEq)]
pub struct DotRow {
    /// Stands above its marks.
    pub name: String,
    /// A value for each series, positive and finite; `None` for none.
    pub values: Vec<Option<f64>>,
}

const PENS: [Pen; 8] = [
    Pen { colour: "#8a8f98", width: 3.0, dashes: "none" },
    Pen { colour: "#8a8f98", width: 3.0, dashes: "2 2" },
    Pen { colour: "#b98a2f", width: 3.0, dashes: "none" },
    Pen { colour: "#3b82d6", width: 3.0, dashes: "2 2" },
    Pen { colour: "#3b82d6", width: 3.0, dashes: "none" },
    Pen { colour: "#d9573f", width: 3.0, dashes: "2 2" },
    Pen { colour: "#d9573f", width: 3.0, dashes: "none" },
    Pen { colour: "#2f9e5f", width: 5.0, dashes: "none" },
];
const ROW: f64 = 34.0;
const TOP: f64 = 130.0;

/// Draws a row of marks for each name, all over one logarithmic axis; the last series, which is what
/// is shown, stands out. At most eight series.
pub fn dots(title: &str, axis: &str, series: &[&str], rows: &[DotRow]) -> String {
    let bottom = TOP + ROW * rows.len() as f64;
    let mut svg = Svg::new((ACROSS.1 + 20.0, bottom + 60.0));
    svg.heading((ACROSS.0, 26.0), title);
    for (place, (name, pen)) in series.iter().zip(PENS).enumerate() {
        let (column, line) = ((place % 3) as f64, (place / 3) as f64);
        let (x, y) = (ACROSS.0 + 240.0 * column, 52.0 + 20.0 * line);
        svg.line(&[(x, y - 4.0), (x + 20.0, y - 4.0)], pen);
        svg.text((x + 26.0, y), name, Anchor::Start);
    }
    let values = || rows.iter().flat_map(|row| row.values.iter().flatten().copied());
    let (least, most) = (values().fold(f64::MAX, f64::min), values().fold(1.0, f64::max));
    let x = Scale::logarithmic((least.min(most), most), ACROSS);
    svg.frame((ACROSS.0, TOP), (ACROSS.1, bottom));
    for (at, label) in x.ticks() {
        svg.faint((at, TOP), (at, bottom));
        svg.text((at, bottom + 18.0), &label, Anchor::Middle);
    }
    svg.text((f64::midpoint(ACROSS.0, ACROSS.1), bottom + 40.0), axis, Anchor::Middle);
    for (place, row) in rows.iter().enumerate() {
        let y = TOP + ROW * (place as f64 + 0.5);
        svg.text((ACROSS.1 - 6.0, y - 2.0), &row.name, Anchor::End);
        for (value, pen) in row.values.iter().zip(PENS) {
            if let Some(value) = value {
                let at = x.place(*value);
                svg.line(&[(at, y + 2.0), (at, y + 15.0)], pen);
            }
        }
    }
    svg.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_a_mark_and_the_picture_is_sound() {
        let row = |values: [Option<f64>; 2]| DotRow {
            name: "a <step>".to_owned(),
            values: values.to_vec(),
        };
        let rows = [row([Some(1.2), Some(1.0)]), row([None, Some(8.0)])];
        let svg = dots("title", "over the bound", &["theirs", "ours"], &rows);
        super::super::tests::check(&svg);
        assert!(svg.contains("a &lt;step&gt;") && svg.contains("theirs"));
        // Two lines of the legend and three marks.
        assert_eq!(svg.matches("<polyline").count(), 5);
    }
}
