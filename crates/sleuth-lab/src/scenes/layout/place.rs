use super::super::dice::Dice;
use super::{Object, Sign, Size};

/// What is odd about a layout.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// One object partly covers another.
    pub(super) overlap: bool,
    /// One large object is cut by the image's edge.
    pub(super) cut: bool,
}

/// Left, top, right, bottom.
type Bounds = [f32; 4];

/// Least gap between the boxes of two things, of the side.
const GAP: f32 = 0.025;
/// Least gap between a box and the image's edge, of the side.
const EDGE: f32 = 0.015;
/// Tries for each thing; what finds no place is left out.
const TRIES: usize = 60;
/// At most this share of an object's box is beyond the edge.
const MOST_CUT: f32 = 0.22;
/// At most this share of an object's box is covered by another's.
const MOST_COVERED: f32 = 0.28;

/// Gives everything a place, the largest things first; an object that finds none is left out.
/// Objects end in random order, but what covers another comes after it.
pub(super) fn place(
    objects: &mut Vec<Object>,
    sign: Option<&mut Sign>,
    plan: Plan,
    dice: &mut Dice,
) {
    let mut taken: Vec<Bounds> = Vec::with_capacity(objects.len() + 1);
    if let Some(sign) = sign {
        let extent = sign.extent();
        (sign.x, sign.y) = inside(extent, dice);
        taken.push(around((sign.x, sign.y), extent));
    }
    objects.sort_by(|a, b| b.extent.total_cmp(&a.extent));
    let mut cut = plan.cut;
    objects.retain_mut(|object| {
        let cut_now = std::mem::take(&mut cut) && object.size == Size::Large;
        let square = (object.extent, object.extent);
        let found = (0..TRIES).find_map(|_| {
            let at = if cut_now { at_edge(object.extent, dice) } else { inside(square, dice) };
            let bounds = around(at, square);
            taken.iter().all(|t| apart(t, &bounds)).then_some((at, bounds))
        });
        if let Some((at, bounds)) = found {
            (object.x, object.y) = at;
            taken.push(bounds);
        }
        found.is_some()
    });
    dice.shuffle(objects);
    if plan.overlap && objects.len() > 2 {
        cover(objects, &taken, dice);
    }
}

/// Moves the last object, which is drawn in front, partly over another one.
fn cover(objects: &mut [Object], taken: &[Bounds], dice: &mut Dice) {
    let Some((front, others)) = objects.split_last_mut() else { return };
    let own = front.bounds();
    for _ in 0..TRIES {
        let behind = &others[dice.below(others.len())];
        let reach = f32::midpoint(front.extent, behind.extent);
        // Far enough along one axis that only a strip of the box behind is covered.
        let depth = dice.between(0.35, 1.0) * MOST_COVERED * behind.extent;
        let along = reach - depth;
        let across = dice.between(-0.3, 0.3) * behind.extent;
        let sign = if dice.chance(0.5) { 1.0 } else { -1.0 };
        let at = if dice.chance(0.5) {
            (behind.x + sign * along, behind.y + across)
        } else {
            (behind.x + across, behind.y + sign * along)
        };
        let bounds = around(at, (front.extent, front.extent));
        let covered = behind.bounds();
        let clear = taken
            .iter()
            .filter(|t| !same(t, &own) && !same(t, &covered))
            .all(|t| apart(t, &bounds));
        if clear && bounds[0] >= 0.0 && bounds[1] >= 0.0 && bounds[2] <= 1.0 && bounds[3] <= 1.0 {
            (front.x, front.y) = at;
            return;
        }
    }
}

fn around((x, y): (f32, f32), (width, height): (f32, f32)) -> Bounds {
    [x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0]
}

fn inside((width, height): (f32, f32), dice: &mut Dice) -> (f32, f32) {
    let mut along = |length: f32| {
        let edge = length / 2.0 + EDGE;
        dice.between(edge, 1.0 - edge)
    };
    (along(width), along(height))
}

/// A place where one side of the box is beyond the edge.
fn at_edge(extent: f32, dice: &mut Dice) -> (f32, f32) {
    let beyond = dice.between(0.3, 1.0) * MOST_CUT * extent;
    let near = extent / 2.0 - beyond;
    let along = dice.between(extent / 2.0, 1.0 - extent / 2.0);
    match dice.below(4) {
        0 => (near, along),
        1 => (1.0 - near, along),
        2 => (along, near),
        _ => (along, 1.0 - near),
    }
}

fn apart(a: &Bounds, b: &Bounds) -> bool {
    a[0] >= b[2] + GAP || b[0] >= a[2] + GAP || a[1] >= b[3] + GAP || b[1] >= a[3] + GAP
}

fn same(a: &Bounds, b: &Bounds) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6)
}

#[cfg(test)]
mod tests {
    use super::super::super::{Scene, Split};
    use super::*;

    fn common(a: &Bounds, b: &Bounds) -> f32 {
        let along = |i: usize| (a[i + 2].min(b[i + 2]) - a[i].max(b[i])).max(0.0);
        along(0) * along(1)
    }

    #[test]
    fn things_keep_apart_but_for_one_that_covers_a_strip_of_another() {
        let (mut covering, mut cut) = (0, 0);
        for index in 0..3000 {
            let scene = Scene::draw(Split::Test, 1, index);
            let mut touching = 0;
            for (i, front) in scene.objects.iter().enumerate() {
                let own = front.bounds();
                let outside = 1.0 - common(&own, &[0.0, 0.0, 1.0, 1.0]) / front.extent.powi(2);
                assert!(outside <= MOST_CUT + 1e-4, "{outside}");
                cut += usize::from(outside > 1e-4);
                if let Some(sign) = &scene.sign {
                    assert!(common(&own, &around((sign.x, sign.y), sign.extent())) < 1e-6);
                }
                for behind in &scene.objects[..i] {
                    let share = common(&own, &behind.bounds()) / behind.extent.powi(2);
                    assert!(share <= MOST_COVERED + 1e-4, "{share}");
                    touching += usize::from(share > 1e-6);
                }
            }
            assert!(touching <= 1);
            covering += touching;
        }
        assert!((100..700).contains(&covering), "{covering}");
        assert!((60..400).contains(&cut), "{cut}");
    }
}
