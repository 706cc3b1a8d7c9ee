use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::kernel::{Lane, Panels, WIDTH};
use super::rows::Rows;
use super::team::Buffer;
use super::weights::padded;

/// Keys of a page.
pub(super) const PAGE: usize = 64;

/// The type that keys and values are stored in. Attention always reads what was stored, so a
/// prefix gives the same bits computed or cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvType {
    /// Exact.
    #[default]
    F32,
    /// Half the memory. Values beyond ±65504 become infinite, and the item fails as not finite.
    F16,
}

/// How keys and values are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KvLayout {
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) dim: usize,
    pub(super) kind: KvType,
}

/// Keys and values of one sequence in some layers. Clones share pages until one of them writes.
#[derive(Clone, Debug)]
pub(super) struct SequenceKv {
    layout: KvLayout,
    /// `layers` lists of pages.
    pages: Vec<Vec<Arc<Page>>>,
    rows: usize,
}

/// Keys and values of an image and a prompt in every layer: what all responses to them share.
/// Immutable; shared as `Arc<PrefixKv>`.
///
/// Of a model whose layers look at the image it holds the image's too, which prefixes share.
#[derive(Debug)]
pub struct PrefixKv {
    pub(super) own: SequenceKv,
    pub(super) image: Option<ImageKv>,
}

/// Keys and values of an image in every layer that looks at it: they depend on no text, so all
/// prompts and responses share them. Clones are of the same.
#[derive(Clone, Debug)]
pub struct ImageKv(Arc<ImageKvInner>);

#[derive(Debug)]
struct ImageKvInner {
    kv: SequenceKv,
    /// The first rows, which text behind the image sees.
    seen: usize,
    /// The first rows that text before the image sees.
    blind: usize,
}

/// Keys and values of the tokens of one response so far, behind its prefix.
#[derive(Debug)]
pub struct SuffixKv {
    pub(super) prefix: Arc<PrefixKv>,
    pub(super) own: SequenceKv,
}

/// Keys and values of [`PAGE`] rows of all heads. Of each head the keys first, as panels of sixteen
/// keys that are `dim` deep, then the values, as panels of sixteen columns that are [`PAGE`] deep.
#[derive(Clone, Debug)]
enum Page {
    F32(Box<[f32]>),
    F16(Box<[f16]>),
}

// === impl KvType ===

impl KvType {
    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }

    /// `f32` or `f16`, as in a model's version.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }
}

// === impl KvLayout ===

impl KvLayout {
    /// Elements of one head's keys in a page.
    const fn keys(self) -> usize {
        PAGE * self.dim
    }

    /// Elements of one head's keys and values in a page.
    const fn head(self) -> usize {
        self.keys() + PAGE * padded(self.dim)
    }

    /// Bytes that `rows` rows take in all layers.
    pub(super) const fn bytes(self, rows: usize) -> u64 {
        let elements = self.layers * rows.div_ceil(PAGE) * self.heads * self.head();
        (elements * self.kind.bytes()) as u64
    }
}

// === impl SequenceKv ===

impl SequenceKv {
    pub(super) fn new(layout: KvLayout) -> Self {
        Self { layout, pages: (0..layout.layers).map(|_| Vec::new()).collect(), rows: 0 }
    }

    /// Rows that every layer holds; counted by [`Self::grow`].
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> u64 {
        let pages: usize = self.pages.iter().map(Vec::len).sum();
        (pages * self.layout.heads * self.layout.head() * self.layout.kind.bytes()) as u64
    }

    /// A pass over `rows` more rows has ended.
    pub(super) fn grow(&mut self, rows: usize) {
        self.rows += rows;
    }

    /// Writes keys and values `[rows, heads · dim]` of layer `layer` behind the rows held.
    pub(super) fn write(&mut self, layer: usize, key: Rows<'_>, value: Rows<'_>) {
        let layout = self.layout;
        let end = self.rows + key.count();
        let pages = &mut self.pages[layer];
        while pages.len() * PAGE < end {
            pages.push(Arc::new(Page::new(layout)));
        }
        for row in 0..key.count() {
            let at = self.rows + row;
            let page = Arc::make_mut(&mut pages[at / PAGE]);
            page.write(layout, at % PAGE, key.row(row), value.row(row));
        }
    }

    /// The panels of page `page`'s keys, for the first `rows` of them at least.
    pub(super) fn keys<'a>(
        &'a self,
        (layer, head, page): (usize, usize, usize),
        rows: usize,
        room: &'a mut Buffer,
    ) -> Panels<'a> {
        let start = head * self.layout.head();
        let len = rows.div_ceil(WIDTH) * self.layout.dim * WIDTH;
        let lanes = self.pages[layer][page].lanes(start, len, room);
        Panels::new(lanes, self.layout.dim, self.layout.dim)
    }

    /// The panels of page `page`'s values, over its first `rows` rows.
    pub(super) fn values<'a>(
        &'a self,
        (layer, head, page): (usize, usize, usize),
        rows: usize,
        room: &'a mut Buffer,
    ) -> Panels<'a> {
        let start = head * self.layout.head() + self.layout.keys();
        let len = PAGE * padded(self.layout.dim);
        let lanes = self.pages[layer][page].lanes(start, len, room);
        Panels::new(lanes, PAGE, rows)
    }
}

// === impl PrefixKv ===

impl PrefixKv {
    /// Rows: image tokens and prompt tokens.
    pub fn rows(&self) -> usize {
        self.own.rows()
    }

    /// Bytes of all keys and values. The image's count in full, whoever else holds them: what is
    /// held is never more than what is counted.
    pub fn bytes(&self) -> u64 {
        self.own.bytes() + self.image.as_ref().map_or(0, ImageKv::bytes)
    }
}

// === impl ImageKv ===

impl ImageKv {
    /// All of `kv`, of which text behind the image sees the first `seen` rows, and text before it the
    /// first `blind`.
    pub(super) fn new(kv: SequenceKv, seen: usize, blind: usize) -> Self {
        Self(Arc::new(ImageKvInner { kv, seen, blind }))
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.0.kv.bytes()
    }

    pub(super) fn kv(&self) -> &SequenceKv {
        &self.0.kv
    }

    pub(super) fn seen_rows(&self) -> usize {
        self.0.seen
    }

    pub(super) fn blind_rows(&self) -> usize {
        self.0.blind
    }
}

// === impl SuffixKv ===

impl SuffixKv {
    /// The prefix it stands behind.
    pub fn prefix(&self) -> &Arc<PrefixKv> {
        &self.prefix
    }

    /// Response tokens it holds.
    pub fn rows(&self) -> usize {
        self.own.rows()
    }

    /// Bytes of its own keys and values, without the prefix's.
    pub fn bytes(&self) -> u64 {
        self.own.bytes()
    }

    /// The same so far, to go on in another way. Full pages stay shared; the page that the next
    /// token goes to is copied when one of them writes it.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { prefix: Arc::clone(&self.prefix), own: self.own.clone() }
    }
}

// === impl Page ===

impl Page {
    fn new(layout: KvLayout) -> Self {
        let len = layout.heads * layout.head();
        match layout.kind {
            KvType::F32 => Self::F32(vec![0.0; len].into()),
            KvType::F16 => Self::F16(vec![f16::ZERO; len].into()),
        }
    }

    fn write(&mut self, layout: KvLayout, row: usize, key: &[f32], value: &[f32]) {
        match self {
            Self::F32(page) => scatter(page, layout, row, key, value, |x| x),
            Self::F16(page) => scatter(page, layout, row, key, value, f16::from_f32),
        }
    }

    /// Elements as f32 lanes: in place, or converted into `room`.
    fn lanes<'a>(&'a self, start: usize, len: usize, room: &'a mut Buffer) -> &'a [Lane] {
        let values = match self {
            Self::F32(page) => &page[start..start + len],
            Self::F16(page) => {
                let room = room.room(len);
                page[start..start + len].convert_to_f32_slice(room);
                room
            }
        };
        values.as_chunks().0
    }
}

fn scatter<T>(
    page: &mut [T],
    layout: KvLayout,
    row: usize,
    key: &[f32],
    value: &[f32],
    convert: impl Fn(f32) -> T,
) {
    let dim = layout.dim;
    for (head, page) in page.chunks_exact_mut(layout.head()).enumerate() {
        let (keys, values) = page.split_at_mut(layout.keys());
        let panel = &mut keys[row / WIDTH * dim * WIDTH..];
        for (d, &x) in key[head * dim..(head + 1) * dim].iter().enumerate() {
            panel[d * WIDTH + row % WIDTH] = convert(x);
        }
        for (d, &x) in value[head * dim..(head + 1) * dim].iter().enumerate() {
            values[(d / WIDTH * PAGE + row) * WIDTH + d % WIDTH] = convert(x);
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "small integers are exact")]
mod tests {
    use super::*;

    fn layout(kind: KvType) -> KvLayout {
        KvLayout { layers: 2, heads: 2, dim: 18, kind }
    }

    #[test]
    fn what_was_written_in_pieces_is_read_back_as_panels() {
        for kind in [KvType::F32, KvType::F16] {
            let mut kv = SequenceKv::new(layout(kind));
            // Small integers are exact in f16.
            let rows: Vec<f32> = (0..70 * 36).map(|i| (i % 1999) as f32).collect();
            for (from, count) in [(0, 5), (5, 60), (65, 5)] {
                let part = Rows::new(&rows, 36, 70).part(from, count, 0);
                kv.write(1, part, part);
                kv.grow(count);
            }
            assert_eq!(kv.rows(), 70);
            let mut room = Buffer::default();
            for (row, head, d) in [(0, 0, 0), (17, 1, 5), (63, 0, 17), (69, 1, 16)] {
                let want = rows[row * 36 + head * 18 + d];
                let at = (1, head, row / PAGE);
                let keys = kv.keys(at, PAGE, &mut room);
                assert_eq!(keys.at(row % PAGE / WIDTH, d)[row % WIDTH], want);
                let values = kv.values(at, PAGE, &mut room);
                assert_eq!(values.at(d / WIDTH, row % PAGE)[d % WIDTH], want);
            }
        }
    }

    #[test]
    fn a_clone_goes_on_without_the_other() {
        let mut one = SequenceKv::new(layout(KvType::F32));
        let rows = |from: usize, count: usize| -> Vec<f32> {
            (from * 36..(from + count) * 36).map(|i| i as f32).collect()
        };
        let write = |kv: &mut SequenceKv, from: usize, count: usize| {
            let rows = rows(from, count);
            let rows = Rows::new(&rows, 36, count);
            kv.write(0, rows, rows);
            kv.grow(count);
        };
        write(&mut one, 0, 65);
        let mut two = one.clone();
        write(&mut two, 500, 1);
        write(&mut one, 900, 1);
        let mut room = Buffer::default();
        for (kv, row, from) in [(&one, 65, 900), (&two, 65, 500), (&one, 64, 64), (&two, 3, 3)] {
            let keys = kv.keys((0, 0, row / PAGE), PAGE, &mut room);
            assert_eq!(keys.at(row % PAGE / WIDTH, 0)[row % WIDTH], (from * 36) as f32);
        }
        assert!(Arc::ptr_eq(&one.pages[0][0], &two.pages[0][0]));
        assert!(!Arc::ptr_eq(&one.pages[0][1], &two.pages[0][1]));
    }

    #[test]
    fn bytes_are_known_before_they_are_held() {
        for kind in [KvType::F32, KvType::F16] {
            let mut kv = SequenceKv::new(layout(kind));
            let rows = vec![0.0; 65 * 36];
            for layer in 0..2 {
                kv.write(layer, Rows::new(&rows, 36, 65), Rows::new(&rows, 36, 65));
            }
            assert_eq!(kv.bytes(), layout(kind).bytes(65));
            assert_eq!(kv.bytes(), (2 * 2 * 2 * 64 * (18 + 32) * kind.bytes()) as u64);
        }
    }
}
