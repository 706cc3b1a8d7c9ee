//! Outlines as tests of points; `u` points right, `v` down, -1..1 on both.

/// A disc around (`x`, `y`).
#[inline]
pub(super) fn disc(u: f32, v: f32, x: f32, y: f32, radius: f32) -> bool {
    let (u, v) = (u - x, v - y);
    u * u + v * v <= radius * radius
}

/// An ellipse around (`x`, `y`) with half axes `a` and `b`.
#[inline]
pub(super) fn ellipse(u: f32, v: f32, (x, y): (f32, f32), (a, b): (f32, f32)) -> bool {
    let (u, v) = ((u - x) / a, (v - y) / b);
    u * u + v * v <= 1.0
}

/// A ring around (`x`, `y`).
#[inline]
pub(super) fn ring(u: f32, v: f32, (x, y): (f32, f32), (inner, outer): (f32, f32)) -> bool {
    disc(u, v, x, y, outer) && !disc(u, v, x, y, inner)
}

/// An upright rectangle.
#[inline]
pub(super) fn block(u: f32, v: f32, (left, right): (f32, f32), (top, bottom): (f32, f32)) -> bool {
    (left..=right).contains(&u) && (top..=bottom).contains(&v)
}

/// A trapezium around the vertical `x`: half as wide as `above` at `top`, as `below` at `bottom`.
#[inline]
pub(super) fn taper(
    u: f32,
    v: f32,
    x: f32,
    (top, bottom): (f32, f32),
    (above, below): (f32, f32),
) -> bool {
    (top..=bottom).contains(&v)
        && (u - x).abs() <= above + (below - above) * (v - top) / (bottom - top)
}

/// A pentagram with its inner pentagon: the points inside at least four of its five lines.
#[inline]
pub(super) fn star(u: f32, v: f32) -> bool {
    /// Distance of a line from the centre, for points at radius 1.05: cos 72° of it.
    const INNER: f32 = 0.3245;
    const NORMALS: [(f32, f32); 5] = [
        (0.0, -1.0),
        (0.951_056_5, -0.309_017),
        (-0.951_056_5, -0.309_017),
        (0.587_785_25, 0.809_017),
        (-0.587_785_25, 0.809_017),
    ];
    let v = v - 0.05;
    NORMALS.iter().filter(|(a, b)| a * u + b * v <= INNER).count() >= 4
}

/// The curve (x² + y² - 1)³ = x² y³, scaled into the square.
#[inline]
pub(super) fn heart(u: f32, v: f32) -> bool {
    let x = 1.16 * u;
    let y = 0.12 - 1.12 * v;
    let (xx, yy) = (x * x, y * y);
    let a = xx + yy - 1.0;
    a * a * a <= xx * yy * y
}
