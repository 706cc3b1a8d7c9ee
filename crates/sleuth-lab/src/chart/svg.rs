use std::fmt::Write;

/// Of all texts and axes: of middle lightness, to be read on white and on black.
const INK: &str = "#7d8590";

/// Writes a scalable picture; positions are (x, y) from the top left.
#[derive(Debug)]
pub(crate) struct Svg(String);

/// How a line is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pen {
    pub(crate) colour: &'static str,
    pub(crate) width: f64,
    /// Lengths of dashes and gaps, or `none`.
    pub(crate) dashes: &'static str,
}

/// Which point of a text is placed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

// === impl Svg ===

impl Svg {
    pub(crate) fn new((width, height): (f64, f64)) -> Self {
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\" \
             fill=\"{INK}\">\n"
        ))
    }

    /// The picture's name, also for those who do not see it.
    pub(crate) fn heading(&mut self, at: (f64, f64), text: &str) {
        let (x, y) = at;
        let text = escaped(text);
        self.put(&format!("<title>{text}</title>"));
        self.put(&format!("<text x=\"{x}\" y=\"{y}\" font-size=\"16\">{text}</text>"));
    }

    pub(crate) fn text(&mut self, (x, y): (f64, f64), text: &str, anchor: Anchor) {
        let anchor = anchor.name();
        let text = escaped(text);
        self.put(&format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    /// A text that reads upwards around its middle.
    pub(crate) fn upright(&mut self, (x, y): (f64, f64), text: &str) {
        let text = escaped(text);
        self.put(&format!(
            "<text transform=\"translate({x:.1} {y:.1}) rotate(-90)\" \
             text-anchor=\"middle\">{text}</text>"
        ));
    }

    pub(crate) fn frame(&mut self, from: (f64, f64), to: (f64, f64)) {
        let ((x, y), (width, height)) = (from, (to.0 - from.0, to.1 - from.1));
        self.put(&format!(
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"none\" \
             stroke=\"{INK}\"/>"
        ));
    }

    /// A line of the grid.
    pub(crate) fn faint(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.put(&format!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" \
             stroke=\"{INK}\" stroke-opacity=\"0.25\"/>"
        ));
    }

    /// A line through all the points; none where there are none.
    pub(crate) fn line(&mut self, points: &[(f64, f64)], pen: Pen) {
        if points.is_empty() {
            return;
        }
        let mut places = String::new();
        for (x, y) in points {
            // Writing to a string cannot fail.
            let _ = write!(places, "{x:.1},{y:.1} ");
        }
        let Pen { colour, width, dashes } = pen;
        let places = places.trim_end();
        self.put(&format!(
            "<polyline points=\"{places}\" fill=\"none\" stroke=\"{colour}\" \
             stroke-width=\"{width}\" stroke-dasharray=\"{dashes}\" stroke-linejoin=\"round\"/>"
        ));
    }

    pub(crate) fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }

    fn put(&mut self, tag: &str) {
        self.0.push_str(tag);
        self.0.push('\n');
    }
}

// === impl Anchor ===

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// As text of a tag. Control characters, which may not stand in one at all, are left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // These two are no characters of XML either.
            '\u{fffe}' | '\u{ffff}' => {}
            c if c.is_control() => {}
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped() {
        assert_eq!(escaped("a<b> & \"c\"\u{1b}\n"), "a&lt;b&gt; &amp; &quot;c&quot;");
    }
}
