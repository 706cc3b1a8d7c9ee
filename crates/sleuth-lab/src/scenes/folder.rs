use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageError};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::artefacts::jpeg;
use super::{Response, Scene, SceneExample, Split, example, question_example, render};
use crate::data::{DATA_FILE, DataError, Record, write_records};

/// Side of the written pictures, in pixels.
pub const IMAGE_SIDE: u32 = 256;
/// Captions of a scene: half clean, half perturbed.
pub const CAPTIONS: usize = 8;
/// Answers to one question about a scene: half right, half wrong.
pub const ANSWERS: usize = 4;

/// The file by which a folder is known to be written here.
const MARKER: &str = "scenes.json";
const IMAGES: &str = "images";
/// Scenes drawn and encoded at once; bounds memory.
const CHUNK: u64 = 64;

/// What a folder of scenes holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Which world.
    pub split: String,
    /// The seed.
    pub seed: u64,
    /// Pictures.
    pub images: u64,
    /// Pictures that hold a (kind, colour) pair kept out of training.
    pub held_out_images: u64,
    /// Records.
    pub responses: u64,
    /// Records without a false word.
    pub clean_responses: u64,
    /// Perturbed captions and answers of each taxonomy.
    pub by_taxonomy: BTreeMap<String, u64>,
}

/// Why a folder could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The folder holds something else.
    #[error("`{0}` is not empty and was not written by this command")]
    NotOurs(PathBuf),
    /// A file could not be read or written.
    #[error("cannot write `{path}`")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A picture could not be encoded.
    #[error("cannot encode picture {index}")]
    Encode {
        /// Which scene.
        index: u64,
        /// Why.
        source: ImageError,
    },
    /// The records could not be written.
    #[error("cannot write the records")]
    Data(#[from] DataError),
}

/// One scene, ready to be written.
struct Page {
    file: String,
    bytes: Vec<u8>,
    records: Vec<Record>,
    held_out: bool,
}

/// Writes `count` scenes of a split as a data folder: pictures of [`IMAGE_SIDE`] pixels under
/// `images/` (PNG, or JPEG where the scene has its artefacts), and for each of them [`CAPTIONS`] captions and [`ANSWERS`]
/// answers to a question, half of them perturbed, in `data.jsonl`.
///
/// `progress` is called with the number of scenes written so far. Equal arguments give equal bytes.
/// A folder that holds anything not written here is refused; one that was is replaced.
/// `data.jsonl` appears last and whole.
pub fn write_folder(
    split: Split,
    seed: u64,
    count: u64,
    out: &Path,
    mut progress: impl FnMut(u64),
) -> Result<Summary, FolderError> {
    claim(out)?;
    let mut summary = Summary {
        split: split.name().to_owned(),
        seed,
        images: count,
        held_out_images: 0,
        responses: 0,
        clean_responses: 0,
        by_taxonomy: BTreeMap::new(),
    };
    let partial = out.join(format!("{DATA_FILE}.partial"));
    let file = fs::File::create(&partial).map_err(at(&partial))?;
    let mut lines = BufWriter::new(file);
    let mut first = 0;
    while first < count {
        let end = count.min(first + CHUNK);
        let pages: Vec<Page> =
            (first..end).into_par_iter().map(|i| page(split, seed, i)).collect::<Result<_, _>>()?;
        for page in pages {
            let path = out.join(&page.file);
            fs::write(&path, &page.bytes).map_err(at(&path))?;
            summary.responses += write_records(&mut lines, &page.records, summary.responses + 1)?;
            for name in page.records.iter().filter_map(|r| r.labels.first()?.taxonomy.clone()) {
                *summary.by_taxonomy.entry(name).or_default() += 1;
            }
            summary.clean_responses += page.records.iter().filter(|r| r.is_clean()).count() as u64;
            summary.held_out_images += u64::from(page.held_out);
        }
        first = end;
        progress(first);
    }
    lines.flush().map_err(at(&partial))?;
    drop(lines);
    mark(out, &summary)?;
    let data = out.join(DATA_FILE);
    fs::rename(&partial, &data).map_err(at(&data))?;
    Ok(summary)
}

/// Makes the folder ours: refuses one that holds anything else, empties one of ours.
fn claim(out: &Path) -> Result<(), FolderError> {
    fs::create_dir_all(out).map_err(at(out))?;
    let mut entries = fs::read_dir(out).map_err(at(out))?;
    let is_empty = entries.next().is_none();
    let marker = out.join(MARKER);
    if !is_empty && !marker.is_file() {
        return Err(FolderError::NotOurs(out.to_owned()));
    }
    let data = out.join(DATA_FILE);
    if data.exists() {
        fs::remove_file(&data).map_err(at(&data))?;
    }
    fs::write(&marker, b"{}\n").map_err(at(&marker))?;
    let images = out.join(IMAGES);
    fs::create_dir_all(&images).map_err(at(&images))?;
    for entry in fs::read_dir(&images).map_err(at(&images))? {
        let entry = entry.map_err(at(&images))?;
        if is_our_image(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path()).map_err(at(&images))?;
        }
    }
    Ok(())
}

/// Whether a file name is one that [`image_file`] makes.
fn is_our_image(name: &str) -> bool {
    let Some((stem, extension)) = name.rsplit_once('.') else { return false };
    let Some((split, index)) = stem.split_once('-') else { return false };
    matches!(extension, "png" | "jpg")
        && split.parse::<Split>().is_ok()
        && !index.is_empty()
        && index.bytes().all(|b| b.is_ascii_digit())
}

fn mark(out: &Path, summary: &Summary) -> Result<(), FolderError> {
    let path = out.join(MARKER);
    let mut text = serde_json::to_vec_pretty(summary)
        .map_err(|e| FolderError::Io { path: path.clone(), source: io::Error::other(e) })?;
    text.push(b'\n');
    fs::write(&path, text).map_err(at(&path))
}

fn page(split: Split, seed: u64, index: u64) -> Result<Page, FolderError> {
    let SceneExample { scene, items: captions } = example(split, seed, index, CAPTIONS);
    let answers = question_example(split, seed, index, ANSWERS).items;
    let (file, bytes) = encode(&scene, index)?;
    let named = |group: &'static str, items: Vec<Response>| {
        let (file, group_id) = (file.clone(), format!("{split}-{seed}-{index}-{group}"));
        items.into_iter().enumerate().map(move |(i, item)| Record {
            id: format!("{group_id}{i}"),
            image: file.clone(),
            prompt: item.prompt,
            response: item.text,
            labels: item.labels,
            group_id: Some(group_id.clone()),
            split: Some(split.name().to_owned()),
        })
    };
    let records = named("caption", captions).chain(named("answer", answers)).collect();
    Ok(Page { bytes, records, held_out: scene.has_held_out_pair(), file })
}

/// The picture's file name and bytes: a JPEG where the scene's artefacts say so, else a PNG.
fn encode(scene: &Scene, index: u64) -> Result<(String, Vec<u8>), FolderError> {
    let pixels = render(scene, IMAGE_SIDE);
    let failed = |source| FolderError::Encode { index, source };
    if let Some(quality) = scene.artefacts.jpeg_quality {
        let bytes = jpeg(&pixels, IMAGE_SIDE, quality).map_err(failed)?;
        return Ok((image_file(scene.split, index, "jpg"), bytes));
    }
    let mut bytes = Vec::new();
    let written = PngEncoder::new(&mut bytes).write_image(
        &pixels,
        IMAGE_SIDE,
        IMAGE_SIDE,
        ExtendedColorType::Rgb8,
    );
    written.map_err(failed)?;
    Ok((image_file(scene.split, index, "png"), bytes))
}

fn image_file(split: Split, index: u64, extension: &str) -> String {
    format!("{IMAGES}/{split}-{index:06}.{extension}")
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Records;

    fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut out = Vec::new();
        for folder in [folder.to_owned(), folder.join(IMAGES)] {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    out.push((path.file_name().unwrap().into(), fs::read(&path).unwrap()));
                }
            }
        }
        out.sort();
        out
    }

    #[test]
    fn equal_arguments_give_equal_bytes_and_a_folder_of_ours_is_replaced() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write_folder(Split::Train, 1, 9, one.path(), |_| {}).unwrap();
        let summary = write_folder(Split::Test, 2, 5, one.path(), |_| {}).unwrap();
        assert_eq!(summary, write_folder(Split::Test, 2, 5, two.path(), |_| {}).unwrap());
        assert_eq!(files(one.path()), files(two.path()));
        assert_eq!((summary.images, summary.responses, summary.clean_responses), (5, 60, 30));
    }

    #[test]
    fn every_record_reads_back_with_an_image_that_decodes() {
        let out = tempfile::tempdir().unwrap();
        let mut seen = Vec::new();
        write_folder(Split::Validation, 3, 70, out.path(), |n| seen.push(n)).unwrap();
        assert_eq!(seen, [64, 70]);
        let records: Vec<Record> =
            Records::open(out.path()).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(records.len(), 70 * 12);
        for record in records.iter().step_by(12) {
            let bytes = fs::read(out.path().join(&record.image)).unwrap();
            let picture = image::load_from_memory(&bytes).unwrap();
            assert_eq!((picture.width(), picture.height()), (IMAGE_SIDE, IMAGE_SIDE));
        }
        let mut ids: Vec<&str> = records.iter().map(|r| r.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), records.len());
    }

    #[test]
    fn a_folder_of_others_is_left_alone() {
        let out = tempfile::tempdir().unwrap();
        fs::write(out.path().join("notes.txt"), "mine").unwrap();
        let refused = write_folder(Split::Test, 1, 1, out.path(), |_| {});
        assert!(matches!(refused, Err(FolderError::NotOurs(_))));
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
    }
}
