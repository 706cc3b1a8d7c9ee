//! Mllama's layout of an image: a canvas of whole tiles, chosen by the image's shape.

/// Rows and columns of a canvas, in tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Canvas {
    pub(crate) rows: u32,
    pub(crate) columns: u32,
}

/// How an image of `height` by `width` pixels lies on its canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    pub(crate) canvas: Canvas,
    /// Size that the image is resized to; the rest, below and at the right, is padding.
    pub(crate) height: u32,
    pub(crate) width: u32,
}

// === impl Fit ===

impl Fit {
    /// The canvas of at most `most` tiles of `side` pixels that needs the least enlargement, or where
    /// all need shrinking the least of that; of equals the smallest, of those the first in the order
    /// of rows and then columns.
    ///
    /// The same sums in the same order as transformers' `get_optimal_tiled_canvas` and
    /// `get_image_size_fit_to_canvas`: another one could round to another size.
    pub(crate) fn of(height: u32, width: u32, side: u32, most: u32) -> Self {
        let canvases = || {
            (1..=most)
                .flat_map(|rows| (1..=most / rows).map(move |columns| Canvas { rows, columns }))
        };
        let scale = |canvas: Canvas| {
            let down = f64::from(canvas.rows * side) / f64::from(height);
            let across = f64::from(canvas.columns * side) / f64::from(width);
            if across > down { down } else { across }
        };
        let up = canvases().map(scale).filter(|s| *s >= 1.0).reduce(f64::min);
        let best = up.or_else(|| canvases().map(scale).reduce(f64::max)).unwrap_or(1.0);
        #[expect(clippy::float_cmp, reason = "the chosen scale is one of these, to the bit")]
        let chosen = canvases().filter(|canvas| scale(*canvas) == best);
        let canvas = chosen
            .min_by_key(|canvas| canvas.rows * canvas.columns)
            .unwrap_or(Canvas { rows: 1, columns: 1 });
        Self::on(canvas, height, width, side)
    }

    fn on(canvas: Canvas, height: u32, width: u32, side: u32) -> Self {
        let target_width = width.clamp(side, canvas.columns * side);
        let target_height = height.clamp(side, canvas.rows * side);
        let down = f64::from(target_height) / f64::from(height);
        let across = f64::from(target_width) / f64::from(width);
        let shrunk = |length: u32, scale: f64, most: u32| {
            ((f64::from(length) * scale) as u32).clamp(1, most)
        };
        if across < down {
            Self { canvas, height: shrunk(height, across, target_height), width: target_width }
        } else {
            Self { canvas, height: target_height, width: shrunk(width, down, target_width) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canvas(height: u32, width: u32) -> (u32, u32) {
        let canvas = Fit::of(height, width, 448, 4).canvas;
        (canvas.rows, canvas.columns)
    }

    #[test]
    fn an_image_gets_the_canvas_of_its_shape() {
        assert_eq!(canvas(448, 448), (1, 1));
        assert_eq!(canvas(100, 400), (1, 1));
        assert_eq!(canvas(449, 449), (2, 2));
        assert_eq!(canvas(300, 1300), (1, 3));
        assert_eq!(canvas(5000, 900), (4, 1));
        assert_eq!(canvas(10, 20_000), (1, 4));
    }

    #[test]
    fn canvases_and_sizes_are_those_of_transformers() {
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/mllama_images.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let golden = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let numbers: Vec<u32> = golden
            .tensor("fits")
            .unwrap()
            .data()
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        let mut checked = 0;
        for row in numbers.chunks_exact(8) {
            let [side, most, height, width, canvas_height, canvas_width, h, w] = *row else {
                panic!("{row:?}")
            };
            let Fit { canvas, height: got_h, width: got_w } = Fit::of(height, width, side, most);
            let got = [canvas.rows * side, canvas.columns * side, got_h, got_w];
            assert_eq!(got, [canvas_height, canvas_width, h, w], "{row:?}");
            checked += 1;
        }
        assert!(checked >= 1500, "{checked}");
    }
}
