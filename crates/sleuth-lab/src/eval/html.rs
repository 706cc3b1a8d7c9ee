use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Calibration, Evaluation, Judged, Report, Row};

/// What a page of results shows.
#[derive(Debug)]
pub struct Page<'a> {
    /// Its heading.
    pub title: &'a str,
    /// The table of comparison.
    pub rows: &'a [Row],
    /// Measurements of the model.
    pub report: &'a Report,
    /// The reliability curve, where wanted.
    pub calibration: Option<&'a Calibration>,
    /// Most responses that are shown one by one.
    pub items: usize,
}

/// Widest and highest a picture is shown, in pixels.
const PICTURE: u32 = 180;
const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/page.js");

/// One self-contained HTML page: tables, the reliability curve, and responses with their pictures,
/// each token coloured by its reward. `image` gives a picture's file; one that is missing is left
/// out.
pub fn page(
    page: &Page<'_>,
    evaluation: &Evaluation,
    mut image: impl FnMut(&str) -> Option<Vec<u8>>,
) -> String {
    let mut out = String::with_capacity(1 << 16);
    let title = escape(page.title);
    push(
        &mut out,
        format_args!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head><body><main><h1>{title}</h1>\n"
        ),
    );
    comparison(&mut out, page.rows);
    taxonomies(&mut out, page.report);
    if let Some(calibration) = page.calibration {
        reliability(&mut out, calibration);
    }
    let threshold = page.report.threshold;
    let shown = choose(evaluation.judged(), threshold, page.items);
    filters(&mut out, &shown, evaluation.judged().len());
    for judged in shown {
        let picture = image(&judged.record.image);
        item(&mut out, judged, threshold, picture.as_deref());
    }
    push(&mut out, format_args!("</main><script>{SCRIPT}</script></body></html>\n"));
    out
}

/// Writing to a string does not fail.
fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

fn comparison(out: &mut String, rows: &[Row]) {
    out.push_str(
        "<table><thead><tr><th>%</th><th>token</th><th>sentence</th><th>response</th>\
         <th>mAP(neg)</th><th>mAP(pos)</th></tr></thead><tbody>",
    );
    for row in rows {
        let cells = row.cells().join("</td><td>");
        push(out, format_args!("<tr><th>{}</th><td>{cells}</td></tr>", escape(&row.name)));
    }
    out.push_str("</tbody></table>\n");
}

fn taxonomies(out: &mut String, report: &Report) {
    out.push_str(
        "<table><thead><tr><th>taxonomy</th><th>responses</th><th>caught, %</th>\
         <th>mAP(neg), %</th></tr></thead><tbody>",
    );
    for (name, t) in &report.by_taxonomy {
        let map = t.map_neg.map_or_else(|| "-".to_owned(), |m| format!("{:.1}", 100.0 * m));
        push(
            out,
            format_args!(
                "<tr><th>{}</th><td>{}</td><td>{:.1}</td><td>{map}</td></tr>",
                escape(name),
                t.responses,
                100.0 * t.response_accuracy
            ),
        );
    }
    out.push_str("</tbody></table>\n");
}

/// Reward against share of good tokens, as an inline SVG.
fn reliability(out: &mut String, calibration: &Calibration) {
    const SIDE: f64 = 220.0;
    let at = |x: f64, y: f64| format!("{:.1},{:.1}", 30.0 + SIDE * x, 10.0 + SIDE * (1.0 - y));
    let curve = |bins: &[super::Bin]| {
        bins.iter().map(|b| at(b.mean_reward, b.good)).collect::<Vec<_>>().join(" ")
    };
    push(
        out,
        format_args!(
            "<figure><svg viewBox=\"0 0 270 260\" width=\"270\" height=\"260\" role=\"img\" \
         aria-label=\"reliability curve\"><polyline class=\"even\" points=\"{} {}\"/>\
         <polyline class=\"curve\" points=\"{}\"/>",
            at(0.0, 0.0),
            at(1.0, 1.0),
            curve(&calibration.equal_width.bins)
        ),
    );
    for bin in &calibration.equal_width.bins {
        let (x, y) = (30.0 + SIDE * bin.mean_reward, 10.0 + SIDE * (1.0 - bin.good));
        push(
            out,
            format_args!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{} tokens: mean reward {:.3}, \
             good {:.3}</title></circle>",
                bin.tokens, bin.mean_reward, bin.good
            ),
        );
    }
    push(
        out,
        format_args!(
            "<text x=\"140\" y=\"256\">mean reward</text></svg><figcaption>Share of good tokens by \
         reward. Expected calibration error {:.4} (equal width), {:.4} (equal mass); Brier score \
         {:.4}; best threshold {:.3}: {:.1} % of responses.</figcaption></figure>\n",
            calibration.equal_width.expected_calibration_error,
            calibration.equal_mass.expected_calibration_error,
            calibration.brier,
            calibration.threshold,
            100.0 * calibration.response_accuracy
        ),
    );
}

/// The responses to show: wrongly judged, rightly flagged and clean ones by turns.
fn choose(judged: &[Judged], threshold: f32, items: usize) -> Vec<&Judged> {
    let sort = |j: &Judged| match (j.is_clean(), j.is_passed(threshold)) {
        (false, false) => 1,
        (true, true) => 2,
        _ => 0,
    };
    let mut sorts: [Vec<&Judged>; 3] = Default::default();
    for j in judged {
        sorts[sort(j)].push(j);
    }
    let longest = sorts.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest)
        .flat_map(|i| sorts.iter().filter_map(move |s| s.get(i).copied()))
        .take(items)
        .collect()
}

fn filters(out: &mut String, shown: &[&Judged], all: usize) {
    let mut names: Vec<&str> =
        shown.iter().flat_map(|j| j.taxonomies.iter().map(String::as_str)).collect();
    names.sort_unstable();
    names.dedup();
    push(out, format_args!("<h2>{} of {all} responses</h2><nav>", shown.len()));
    for name in ["all", "right", "wrong", "clean"].into_iter().chain(names) {
        let name = escape(name);
        push(out, format_args!("<button data-show=\"{name}\">{name}</button>"));
    }
    out.push_str(
        "</nav><p class=\"legend\"><span class=\"r0\">reward 0</span><span class=\"r2\">0.25</span>\
         <span class=\"r5\">0.5</span><span class=\"r7\">0.75</span><span class=\"r9\">1</span> \
         <u>underlined: labelled bad</u></p>\n",
    );
}

fn item(out: &mut String, judged: &Judged, threshold: f32, picture: Option<&[u8]>) {
    let right = judged.is_clean() == judged.is_passed(threshold);
    let (verdict, truth) = (
        if judged.is_passed(threshold) { "passed" } else { "flagged" },
        if judged.is_clean() { "clean" } else { "perturbed" },
    );
    let sorts: Vec<String> = [if right { "right" } else { "wrong" }, truth]
        .into_iter()
        .chain(judged.taxonomies.iter().map(String::as_str))
        .map(escape)
        .collect();
    push(out, format_args!("<article data-is=\"{}\">", sorts.join(" ")));
    if let Some(bytes) = picture {
        push(
            out,
            format_args!(
                "<img alt=\"\" loading=\"lazy\" width=\"{PICTURE}\" src=\"data:{};base64,{}\">",
                media_type(&judged.record.image),
                STANDARD.encode(bytes)
            ),
        );
    }
    push(
        out,
        format_args!(
            "<div><p class=\"prompt\">{}</p><p class=\"text\">",
            escape(&judged.record.prompt)
        ),
    );
    tokens(out, judged);
    push(out, format_args!("</p><p class=\"badges\"><b class=\"{}\">{verdict}</b>", sorts[0]));
    for name in &sorts[1..] {
        push(out, format_args!("<i>{name}</i>"));
    }
    push(out, format_args!("<small>{}</small></p></div></article>\n", escape(&judged.record.id)));
}

/// The response's text with a span for each token; bytes between tokens stay plain.
fn tokens(out: &mut String, judged: &Judged) {
    let text = &judged.record.response;
    let mut done = 0;
    for (token, &good) in judged.tokens.iter().zip(&judged.truth) {
        let range = token.span.start() as usize..token.span.end() as usize;
        // Byte-fallback tokens of one character share its span: the first one shows it.
        let (Some(before), Some(own)) = (text.get(done..range.start), text.get(range.clone()))
        else {
            continue;
        };
        let shade = (token.reward.clamp(0.0, 1.0) * 9.0).round() as u8;
        let mark = if good { "span" } else { "u" };
        push(
            out,
            format_args!(
                "{}<{mark} class=\"r{shade}\" title=\"{:.3}\">{}</{mark}>",
                escape(before),
                token.reward,
                escape(own)
            ),
        );
        done = range.end;
    }
    out.push_str(&escape(text.get(done..).unwrap_or_default()));
}

fn media_type(path: &str) -> &'static str {
    let extension = Path::new(path).extension().and_then(|e| e.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        _ => "image/png",
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::add;
    use super::super::row;
    use super::*;

    fn made(texts: &[&str]) -> String {
        let mut evaluation = Evaluation::new();
        for text in texts {
            let logits: Vec<f32> =
                text.chars().map(|c| if c == 'B' { -3.0 } else { 3.0 }).collect();
            add(&mut evaluation, text, &logits);
        }
        let report = evaluation.report(0.5);
        let calibration = evaluation.calibration();
        let shown = Page {
            title: "a <title>",
            rows: &[row("this & that", &report)],
            report: &report,
            calibration: calibration.as_ref(),
            items: 3,
        };
        page(&shown, &evaluation, |_| Some(vec![1, 2, 3]))
    }

    #[test]
    fn foreign_text_is_escaped_and_nothing_is_loaded_from_elsewhere() {
        let html = made(&["<script>alert(1)</script>&'\""]);
        assert!(!html.contains("<script>alert") && html.contains("a &lt;title&gt;"));
        assert!(html.contains("this &amp; that") && html.contains("data:image/png;base64,AQID"));
        assert!(!html.contains("http://") && !html.contains("https://"));
    }

    #[test]
    fn tokens_show_reward_and_truth_and_the_text_is_whole() {
        let html = made(&["aB."]);
        assert!(html.contains("<u class=\"r0\" title=\"0.047\">B</u>"), "{html}");
        assert!(html.contains("<span class=\"r9\" title=\"0.953\">a</span>"));
        assert!(html.contains("data-is=\"right perturbed counting\""));
    }

    #[test]
    fn at_most_so_many_are_shown_and_wrong_ones_are_among_them() {
        // `C` is labelled bad and passed: wrongly judged.
        let html = made(&["a", "b", "c", "d", "C"]);
        assert_eq!(html.matches("<article").count(), 3);
        assert!(html.contains("data-is=\"wrong perturbed counting\""));
    }
}
