#!/usr/bin/env python3
"""Writes image files and what Pillow and transformers make of them.

    python make_images.py            # write every sample
    python make_images.py --check    # verify the committed files

`images/golden.safetensors` holds `<name>.rgb`, u8 [H,W,3]: what `transformers` loads (EXIF
orientation applied, then `convert("RGB")`), and `<name>.resized.<S>`, u8 [S,S,3]: that image
through SigLIP's processor before it is rescaled. See images/README.md.
"""

from __future__ import annotations

import argparse
import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file
from sklearn.datasets import load_sample_image
from transformers.image_utils import load_image
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

ROOT = Path(__file__).resolve().parent / "images"
RESIZED = (32, 64, 100)
ORIENTATION = 0x0112


def random(name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(name.encode()))


# === pictures ===


def noise(h: int, w: int, name: str, channels: int = 3) -> np.ndarray:
    return random(name).integers(0, 256, (h, w, channels), dtype=np.uint8)


def gradient(h: int, w: int) -> np.ndarray:
    y, x = np.mgrid[0:h, 0:w]
    return np.stack([x * 255 // max(w - 1, 1), y * 255 // max(h - 1, 1), (x + y) % 256], -1).astype(np.uint8)


def edges(h: int, w: int) -> np.ndarray:
    """Black on white: bicubic overshoots on both sides and has to be clamped."""
    y, x = np.mgrid[0:h, 0:w]
    ink = ((x // 7 + y // 5) % 3 == 0) | ((x - w / 2) ** 2 + (y - h / 2) ** 2 < (min(h, w) / 4) ** 2)
    return np.repeat(np.where(ink, 0, 255).astype(np.uint8)[..., None], 3, -1)


def corners(h: int, w: int) -> np.ndarray:
    """Another colour in each corner, so that no two orientations agree."""
    picture = np.full((h, w, 3), 128, np.uint8)
    picture[: h // 2, : w // 2] = (220, 30, 40)
    picture[: h // 2, w // 2 :] = (20, 200, 60)
    picture[h // 2 :, : w // 2] = (40, 60, 230)
    return picture


def photo(name: str, size: tuple[int, int], box: tuple[int, int, int, int] | None = None) -> Image.Image:
    return Image.fromarray(load_sample_image(name)).resize(size, Image.Resampling.LANCZOS, box=box)


# === files ===


def png(image: np.ndarray | Image.Image, **options) -> bytes:
    return encoded(image, "PNG", optimize=True, **options)


def jpeg(image: np.ndarray | Image.Image, quality: int = 85, subsampling: str = "4:2:0", **options) -> bytes:
    return encoded(image, "JPEG", quality=quality, subsampling=subsampling, **options)


def encoded(image: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def raw_png(samples: np.ndarray, colour: int, depth: int) -> bytes:
    """A PNG of a kind that Pillow does not write. `samples`: packed rows, u8 or u16."""
    h, w = samples.shape[:2]
    rows = samples.astype(">u2") if depth == 16 else samples
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, 0)), (b"IDAT", zlib.compress(data, 9))]
    body = b"".join(
        struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in [*chunks, (b"IEND", b"")]
    )
    return b"\x89PNG\r\n\x1a\n" + body


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    return exif


def arrays() -> dict[str, bytes]:
    """Plain RGB in PNG: shrinking and enlarging, odd aspect ratios, single rows and columns."""
    return {
        "noise_37x53": png(noise(53, 37, "noise")),
        "gradient_160x90": png(gradient(90, 160)),
        "edges_96x96": png(edges(96, 96)),
        "tall_5x201": png(noise(201, 5, "tall")),
        "wide_300x7": png(gradient(7, 300)),
        "column_1x61": png(noise(61, 1, "column")),
        "row_61x1": png(noise(1, 61, "row")),
        "pixel_1x1": png(noise(1, 1, "pixel")),
        "exact_64x64": png(noise(64, 64, "exact")),
    }


def photos() -> dict[str, bytes]:
    return {
        "china": jpeg(photo("china.jpg", (320, 213)), quality=80),
        "flower": jpeg(photo("flower.jpg", (140, 210), box=(180, 0, 460, 420)), subsampling="4:4:4", progressive=True),
    }


def orientations() -> dict[str, bytes]:
    """Every EXIF orientation, and one in a PNG's eXIf chunk."""
    picture = corners(16, 24)
    out = {
        f"exif_{i}": jpeg(picture, quality=95, subsampling="4:4:4", exif=orientation(i).tobytes()) for i in range(1, 9)
    }
    return {**out, "exif_png_6": png(picture, exif=orientation(6).tobytes())}


def modes() -> dict[str, bytes]:
    """Everything that is not 8-bit RGB."""
    colour = Image.fromarray(gradient(18, 26))
    palette = colour.quantize(17)
    two = Image.fromarray(edges(18, 26)).convert("1")
    cmyk = Image.fromarray(noise(3, 4, "cmyk", 4), "CMYK").resize((26, 18), Image.Resampling.BILINEAR)
    return {
        "mode_rgba": png(noise(18, 26, "rgba", 4)),
        "mode_la": png(Image.fromarray(noise(18, 26, "la", 2), "LA")),
        "mode_l": png(noise(18, 26, "l", 1)[..., 0]),
        "mode_l_transparent": png(noise(18, 26, "lt", 1)[..., 0], transparency=7),
        "mode_rgb_transparent": png(colour, transparency=(0, 0, 0)),
        "mode_p": png(palette),
        "mode_p_transparent": png(palette, transparency=3),
        "mode_p_alphas": png(palette, transparency=bytes(range(0, 170, 10))),
        "mode_p_2bit": png(colour.quantize(4), bits=2),
        "mode_1bit": png(two),
        "mode_l_16bit": raw_png(random("l16").integers(0, 65536, (18, 26), dtype=np.uint16), 0, 16),
        "mode_rgb_16bit": raw_png(random("rgb16").integers(0, 65536, (18, 26, 3), dtype=np.uint16), 2, 16),
        "mode_rgba_16bit": raw_png(random("rgba16").integers(0, 65536, (18, 26, 4), dtype=np.uint16), 6, 16),
        "mode_l_jpeg": jpeg(colour.convert("L")),
        "mode_cmyk_jpeg": jpeg(cmyk, quality=90),
    }


# === golden values ===


def files() -> dict[str, bytes]:
    out = {}
    for name, data in {**arrays(), **photos(), **orientations(), **modes()}.items():
        out[f"{name}.{'png' if data.startswith(b'\x89PNG') else 'jpg'}"] = data
    return out


def sizes(name: str) -> tuple[int, ...]:
    if name.startswith(("mode_", "exif_")):
        return ()
    return (*RESIZED, 224) if name == "china" else RESIZED


def resized(image: Image.Image, size: int) -> np.ndarray:
    """SigLIP's processor up to the u8 image, checked against a plain resize."""
    plain = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
    given = processed(image, size, do_rescale=False, do_normalize=False).transpose(1, 2, 0)
    if not np.array_equal(plain, given):
        raise SystemExit("SigLIP's processor is not a plain bicubic resize of Pillow")
    return plain


def processed(image: Image.Image, size: int, **options) -> np.ndarray:
    processor = SiglipImageProcessorPil(size={"height": size, "width": size}, **options)
    return np.asarray(processor(image, return_tensors="np")["pixel_values"][0])


def golden_of(folder: Path) -> dict[str, np.ndarray]:
    out = {}
    for path in sorted([*folder.glob("*.png"), *folder.glob("*.jpg")]):
        image = load_image(str(path))
        out[f"{path.stem}.rgb"] = np.ascontiguousarray(image)
        for size in sizes(path.stem):
            out[f"{path.stem}.resized.{size}"] = np.ascontiguousarray(resized(image, size))
        if path.stem == "china":
            pixels = np.ascontiguousarray(processed(image, 32), np.float32)
            out["china.pixel_values.32"] = pixels
    return out


def write() -> int:
    ROOT.mkdir(exist_ok=True)
    for old in [*ROOT.glob("*.png"), *ROOT.glob("*.jpg"), *ROOT.glob("*.safetensors")]:
        old.unlink()
    for name, data in files().items():
        (ROOT / name).write_bytes(data)
    save_file(golden_of(ROOT), ROOT / "golden.safetensors")
    total = sum(f.stat().st_size for f in ROOT.iterdir())
    print(f"wrote {len(files())} images ({total / 1000:.0f} kB)")
    return 0


def check() -> int:
    stored, now = load_file(ROOT / "golden.safetensors"), golden_of(ROOT)
    wrong = [name for name, data in files().items() if (ROOT / name).read_bytes() != data]
    wrong += sorted(stored.keys() ^ now.keys())
    wrong += [k for k in stored.keys() & now.keys() if not np.array_equal(stored[k], now[k])]
    upright = stored["exif_1.rgb"].shape
    turned = [i for i in range(1, 9) if stored[f"exif_{i}.rgb"].shape != upright]
    if turned != [5, 6, 7, 8]:
        wrong.append(f"orientations {turned} swap height and width")
    print("\n".join(f"FAILED  {w}" for w in wrong) or "all hold")
    return min(len(wrong), 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="verify instead of writing")
    return check() if parser.parse_args().check else write()


if __name__ == "__main__":
    sys.exit(main())
