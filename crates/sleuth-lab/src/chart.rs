//! Scalable pictures of figures: panels with axes, lines and legends.

mod dots;
mod scale;
mod svg;

pub use dots::{DotRow, dots};
pub(crate) use scale::Scale;
pub(crate) use svg::{Anchor, Pen, Svg};

/// Left and right end of every panel.
pub(crate) const ACROSS: (f64, f64) = (70.0, 780.0);

/// A panel's name, its box and what its axes mean.
pub(crate) fn frame(svg: &mut Svg, name: &str, (top, bottom): (f64, f64), (x, y): (&str, &str)) {
    svg.text((ACROSS.0, top - 12.0), name, Anchor::Start);
    svg.frame((ACROSS.0, top), (ACROSS.1, bottom));
    svg.text((f64::midpoint(ACROSS.0, ACROSS.1), bottom + 36.0), x, Anchor::Middle);
    svg.upright((15.0, f64::midpoint(top, bottom)), y);
}

/// Lines and numbers at the ticks of both axes.
pub(crate) fn grid(svg: &mut Svg, x: &Scale, y: &Scale, (top, bottom): (f64, f64)) {
    for (at, label) in x.ticks() {
        svg.faint((at, top), (at, bottom));
        svg.text((at, bottom + 18.0), &label, Anchor::Middle);
    }
    for (at, label) in y.ticks() {
        svg.faint((ACROSS.0, at), (ACROSS.1, at));
        svg.text((ACROSS.0 - 8.0, at + 4.0), &label, Anchor::End);
    }
}

/// The names of lines, from the right.
pub(crate) fn legend(svg: &mut Svg, top: f64, kinds: &[(&str, Pen)]) {
    for (i, (name, pen)) in kinds.iter().rev().enumerate() {
        let right = ACROSS.1 - 90.0 * i as f64;
        svg.line(&[(right - 80.0, top - 16.0), (right - 60.0, top - 16.0)], *pen);
        svg.text((right - 54.0, top - 12.0), name, Anchor::Start);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    /// Fails unless every tag is closed in order, every number is one, and texts are escaped.
    pub(crate) fn check(svg: &str) {
        let mut open = Vec::new();
        let mut rest = svg;
        while let Some((text, tag)) = rest.split_once('<') {
            assert!(!text.contains('>'), "{text}");
            let entities = text.split('&').skip(1);
            assert!(
                entities.clone().all(|e| ["amp;", "lt;", "gt;", "quot;"]
                    .iter()
                    .any(|known| e.starts_with(known)))
            );
            let (inside, after) = tag.split_once('>').expect("a tag ends");
            assert_eq!(inside.matches('"').count() % 2, 0, "{inside}");
            if let Some(name) = inside.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !inside.ends_with('/') {
                open.extend(inside.split_whitespace().next());
            }
            rest = after;
        }
        assert!(open.is_empty() && rest.trim().is_empty());
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
