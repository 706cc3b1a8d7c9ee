//! What each kind is drawn of.

use super::Kind;
use super::outline::{block, disc, ellipse, heart, ring, star, taper};

/// A piece of a shape.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Part {
    /// Whether a point is inside it.
    pub(in super::super) holds: fn(f32, f32) -> bool,
    pub(in super::super) paint: Paint,
}

/// How a part is painted.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Paint {
    /// In the object's colour and pattern.
    Body,
    /// In the object's colour, darker by this factor.
    Darker(f32),
    /// In a colour of its own, sRGB.
    Fixed([u8; 3]),
}

const DARK: Paint = Paint::Fixed([52, 48, 50]);
const LIGHT: Paint = Paint::Fixed([214, 222, 226]);
const BROWN: Paint = Paint::Fixed([104, 74, 48]);
const CREAM: Paint = Paint::Fixed([222, 212, 188]);
const LEAF: Paint = Paint::Fixed([72, 110, 62]);

const fn body(holds: fn(f32, f32) -> bool) -> Part {
    Part { holds, paint: Paint::Body }
}

const fn part(paint: Paint, holds: fn(f32, f32) -> bool) -> Part {
    Part { holds, paint }
}

pub(super) const fn of(kind: Kind) -> &'static [Part] {
    match kind {
        Kind::Circle => CIRCLE,
        Kind::Square => SQUARE,
        Kind::Triangle => TRIANGLE,
        Kind::Star => STAR,
        Kind::Ring => RING,
        Kind::Cross => CROSS,
        Kind::Diamond => DIAMOND,
        Kind::Heart => HEART,
        Kind::Crescent => CRESCENT,
        Kind::Arrow => ARROW,
        Kind::House => HOUSE,
        Kind::Tree => TREE,
        Kind::Cup => CUP,
        Kind::Fish => FISH,
        Kind::Car => CAR,
        Kind::Boat => BOAT,
        Kind::Flower => FLOWER,
        Kind::Mushroom => MUSHROOM,
        Kind::Umbrella => UMBRELLA,
        Kind::Key => KEY,
        Kind::Bottle => BOTTLE,
        Kind::Snowman => SNOWMAN,
        Kind::Chair => CHAIR,
        Kind::Butterfly => BUTTERFLY,
    }
}

const CIRCLE: &[Part] = &[body(|u, v| u * u + v * v <= 1.0)];
const SQUARE: &[Part] = &[body(|u, v| u.abs() <= 0.9 && v.abs() <= 0.9)];
const TRIANGLE: &[Part] = &[body(|u, v| v <= 0.86 && 1.78 * u.abs() <= v + 0.92)];
const STAR: &[Part] = &[body(star)];
const RING: &[Part] = &[body(|u, v| ring(u, v, (0.0, 0.0), (0.55, 1.0)))];
const CROSS: &[Part] = &[body(|u, v| u.abs().min(v.abs()) <= 0.32 && u.abs().max(v.abs()) <= 1.0)];
const DIAMOND: &[Part] = &[body(|u, v| u.abs() / 0.75 + v.abs() <= 1.0)];
const HEART: &[Part] = &[body(heart)];
const CRESCENT: &[Part] =
    &[body(|u, v| disc(u, v, 0.1, 0.0, 0.95) && !disc(u, v, 0.5, -0.1, 0.72))];
const ARROW: &[Part] = &[
    body(|u, v| block(u, v, (-1.0, 0.2), (-0.26, 0.26))),
    body(|u, v| (0.05..=1.0).contains(&u) && v.abs() <= 0.85 * (1.0 - u) / 0.95),
];
const HOUSE: &[Part] = &[
    body(|u, v| block(u, v, (-0.72, 0.72), (-0.12, 0.96))),
    part(Paint::Darker(0.55), |u, v| taper(u, v, 0.0, (-0.98, -0.1), (0.0, 1.0))),
    part(BROWN, |u, v| block(u, v, (0.08, 0.44), (0.36, 0.96))),
    part(LIGHT, |u, v| block(u, v, (-0.5, -0.14), (0.14, 0.5))),
];
const TREE: &[Part] = &[
    part(BROWN, |u, v| block(u, v, (-0.14, 0.14), (0.5, 1.0))),
    body(|u, v| {
        taper(u, v, 0.0, (-1.0, -0.35), (0.0, 0.44))
            || taper(u, v, 0.0, (-0.6, 0.12), (0.16, 0.62))
            || taper(u, v, 0.0, (-0.15, 0.62), (0.24, 0.8))
    }),
];
const CUP: &[Part] = &[
    body(|u, v| ring(u, v, (0.46, 0.0), (0.24, 0.46)) && u >= 0.36),
    body(|u, v| taper(u, v, -0.22, (-0.72, 0.84), (0.68, 0.5))),
    part(Paint::Darker(0.5), |u, v| ellipse(u, v, (-0.22, -0.68), (0.62, 0.13))),
];
const FISH: &[Part] = &[
    body(|u, v| (0.35..=1.0).contains(&u) && v.abs() <= 0.62 * (u - 0.28) / 0.72),
    part(Paint::Darker(0.6), |u, v| taper(u, v, -0.1, (-0.72, -0.3), (0.1, 0.36))),
    body(|u, v| ellipse(u, v, (-0.2, 0.0), (0.78, 0.5))),
    part(LIGHT, |u, v| disc(u, v, -0.6, -0.12, 0.14)),
    part(DARK, |u, v| disc(u, v, -0.62, -0.12, 0.08)),
];
const CAR: &[Part] = &[
    body(|u, v| taper(u, v, -0.04, (-0.62, 0.0), (0.42, 0.68))),
    part(LIGHT, |u, v| taper(u, v, -0.04, (-0.5, -0.06), (0.34, 0.54)) && (u + 0.04).abs() > 0.06),
    body(|u, v| block(u, v, (-1.0, 1.0), (-0.04, 0.44))),
    part(DARK, |u, v| disc(u, v, -0.55, 0.42, 0.29) || disc(u, v, 0.55, 0.42, 0.29)),
    part(LIGHT, |u, v| disc(u, v, -0.55, 0.42, 0.11) || disc(u, v, 0.55, 0.42, 0.11)),
];
const BOAT: &[Part] = &[
    part(BROWN, |u, v| block(u, v, (-0.05, 0.05), (-1.0, 0.35))),
    body(|u, v| (-0.92..=0.16).contains(&v) && u >= 0.1 && u <= 0.1 + 0.72 * (v + 0.92)),
    part(Paint::Darker(0.72), |u, v| {
        (-0.72..=0.16).contains(&v) && u <= -0.1 && u >= -0.1 - 0.62 * (v + 0.72)
    }),
    body(|u, v| taper(u, v, 0.0, (0.3, 0.86), (1.0, 0.6))),
];
const FLOWER: &[Part] = &[
    part(LEAF, |u, v| {
        block(u, v, (-0.07, 0.07), (0.1, 1.0))
            || ellipse(u, v, (0.26, 0.68), (0.24, 0.11))
            || ellipse(u, v, (-0.26, 0.78), (0.24, 0.11))
    }),
    body(|u, v| {
        disc(u, v, 0.0, -0.7, 0.29)
            || disc(u, v, 0.37, -0.42, 0.29)
            || disc(u, v, 0.23, 0.02, 0.29)
            || disc(u, v, -0.23, 0.02, 0.29)
            || disc(u, v, -0.37, -0.42, 0.29)
    }),
    part(DARK, |u, v| disc(u, v, 0.0, -0.31, 0.2)),
];
const MUSHROOM: &[Part] = &[
    part(CREAM, |u, v| taper(u, v, 0.0, (0.0, 0.96), (0.26, 0.36))),
    body(|u, v| v <= 0.1 && ellipse(u, v, (0.0, 0.1), (1.0, 0.98))),
];
const UMBRELLA: &[Part] = &[
    part(DARK, |u, v| {
        block(u, v, (-0.06, 0.06), (-0.1, 0.78))
            || v >= 0.76 && ring(u, v, (0.18, 0.76), (0.12, 0.24))
    }),
    body(|u, v| {
        v <= 0.06
            && disc(u, v, 0.0, 0.0, 1.0)
            && !(disc(u, v, 0.0, 0.12, 0.26)
                || disc(u, v, 0.62, 0.12, 0.26)
                || disc(u, v, -0.62, 0.12, 0.26))
    }),
];
const KEY: &[Part] = &[body(|u, v| {
    ring(u, v, (-0.56, -0.1), (0.2, 0.44))
        || block(u, v, (-0.2, 1.0), (-0.22, 0.02))
        || block(u, v, (0.48, 0.66), (0.0, 0.4))
        || block(u, v, (0.82, 1.0), (0.0, 0.46))
})];
const BOTTLE: &[Part] = &[
    body(|u, v| {
        block(u, v, (-0.16, 0.16), (-0.85, -0.4))
            || taper(u, v, 0.0, (-0.45, -0.12), (0.16, 0.44))
            || block(u, v, (-0.44, 0.44), (-0.12, 0.98))
    }),
    part(DARK, |u, v| block(u, v, (-0.2, 0.2), (-1.0, -0.8))),
];
const SNOWMAN: &[Part] = &[
    body(|u, v| disc(u, v, 0.0, 0.46, 0.52) || disc(u, v, 0.0, -0.26, 0.36)),
    part(DARK, |u, v| {
        block(u, v, (-0.27, 0.27), (-1.0, -0.54)) || block(u, v, (-0.46, 0.46), (-0.6, -0.48))
    }),
    part(DARK, |u, v| disc(u, v, -0.13, -0.3, 0.06) || disc(u, v, 0.13, -0.3, 0.06)),
];
const CHAIR: &[Part] = &[body(|u, v| {
    block(u, v, (-0.68, -0.44), (-1.0, 1.0))
        || block(u, v, (-0.68, 0.66), (0.06, 0.32))
        || block(u, v, (0.42, 0.66), (0.3, 1.0))
})];
const BUTTERFLY: &[Part] = &[
    body(|u, v| {
        let u = u.abs();
        ellipse(u, v, (0.53, -0.36), (0.46, 0.48)) || ellipse(u, v, (0.4, 0.45), (0.36, 0.42))
    }),
    part(DARK, |u, v| {
        ellipse(u, v, (0.0, 0.02), (0.1, 0.76))
            || (-0.98..=-0.62).contains(&v) && (u.abs() + 0.6 * (v + 0.6)).abs() <= 0.06
    }),
];
