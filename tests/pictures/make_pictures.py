"""Draws the twenty pictures of this folder and writes pairs.json: for each, two pairs of a right and a wrong text.

    .venv/bin/python make_pictures.py           # write
    .venv/bin/python make_pictures.py --check   # verify

Nothing here is shared with `sleuth scenes`: other drawing code (Pillow's polygons and ellipses, with outlines), other
shades, woven and noisy backgrounds, soft shadows, JPEG. The words are those that the model's tokenizer knows.
"""

from __future__ import annotations

import io
import json
import math
import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

HERE = Path(__file__).parent
SIDE, SCALE = 224, 4
SHADES = {
    "red": (188, 24, 58), "green": (74, 168, 44), "blue": (34, 104, 188), "yellow": (250, 226, 92),
    "purple": (150, 78, 188), "orange": (236, 122, 58), "white": (230, 229, 223), "black": (44, 45, 50),
}
LARGE, SMALL = 66, 35  # extent in pixels of 224: 29 % and 16 %


def ngon(n: int, r: float, turn: float = 0.0, inner: float | None = None) -> list[tuple[float, float]]:
    radii = [r] if inner is None else [r, inner]
    count = n * len(radii)
    angle = lambda i: 2 * math.pi * i / count + turn - math.pi / 2
    return [(radii[i % len(radii)] * math.cos(angle(i)), radii[i % len(radii)] * math.sin(angle(i))) for i in range(count)]


class Brush:
    """Draws in units of half an extent around a centre."""

    def __init__(self, draw: ImageDraw.ImageDraw, centre: tuple[float, float], extent: float, fill, line):
        self.draw, self.centre, self.half, self.fill, self.line = draw, centre, extent / 2, fill, line

    def at(self, x: float, y: float) -> tuple[float, float]:
        return (self.centre[0] + x * self.half, self.centre[1] + y * self.half)

    def polygon(self, points, fill=None) -> None:
        self.draw.polygon([self.at(*p) for p in points], fill=fill or self.fill, outline=self.line, width=SCALE)

    def ellipse(self, x0, y0, x1, y1, fill=None) -> None:
        self.draw.ellipse([*self.at(x0, y0), *self.at(x1, y1)], fill=fill or self.fill, outline=self.line, width=SCALE)

    def box(self, x0, y0, x1, y1, fill=None) -> None:
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill)


def heart(b: Brush) -> None:
    curve = [i / 60 * 2 * math.pi for i in range(60)]
    b.polygon([(0.92 * math.sin(t) ** 3,
                -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16.5) for t in curve])


def crescent(b: Brush) -> None:
    outer = [(0.9 * math.cos(t), 0.9 * math.sin(t)) for t in (math.radians(a) for a in range(50, 311, 6))]
    inner = [(0.35 + 0.72 * math.cos(t), 0.72 * math.sin(t)) for t in (math.radians(a) for a in range(290, 69, -6))]
    b.polygon(outer + inner)


def car(b: Brush) -> None:
    b.polygon([(-0.9, 0.35), (-0.9, 0.0), (-0.5, -0.08), (-0.3, -0.5), (0.35, -0.5), (0.55, -0.05), (0.92, 0.05), (0.92, 0.35)])
    for x in (-0.5, 0.5):
        b.ellipse(x - 0.22, 0.15, x + 0.22, 0.59, fill=(40, 40, 44))


def tree(b: Brush) -> None:
    b.box(-0.14, 0.3, 0.14, 0.95, fill=(112, 78, 50))
    b.ellipse(-0.72, -0.95, 0.72, 0.4)


def house(b: Brush) -> None:
    b.box(-0.68, -0.1, 0.68, 0.9)
    b.polygon([(-0.88, -0.1), (0.0, -0.92), (0.88, -0.1)])
    b.box(-0.16, 0.35, 0.16, 0.9, fill=(96, 66, 44))


def fish(b: Brush) -> None:
    b.polygon([(0.35, 0.0), (0.95, -0.5), (0.95, 0.5)])
    b.ellipse(-0.92, -0.45, 0.55, 0.45)
    b.ellipse(-0.66, -0.16, -0.52, -0.02, fill=(20, 20, 20))


def boat(b: Brush) -> None:
    b.polygon([(-0.92, 0.3), (0.92, 0.3), (0.55, 0.8), (-0.6, 0.8)])
    b.box(-0.05, -0.9, 0.05, 0.3)
    b.polygon([(0.08, -0.85), (0.08, 0.15), (0.75, 0.15)])


def flower(b: Brush) -> None:
    b.box(-0.05, 0.1, 0.05, 0.95, fill=(60, 120, 60))
    for x, y in ngon(6, 0.42):
        b.ellipse(x - 0.26, y - 0.68, x + 0.26, y - 0.16)
    b.ellipse(-0.2, -0.62, 0.2, -0.22, fill=(120, 90, 40))


def mushroom(b: Brush) -> None:
    b.box(-0.24, 0.0, 0.24, 0.9, fill=(222, 208, 180))
    b.draw.pieslice([*b.at(-0.9, -0.85), *b.at(0.9, 0.95)], 180, 360, fill=b.fill, outline=b.line, width=SCALE)


def bottle(b: Brush) -> None:
    b.polygon([(-0.16, -0.95), (0.16, -0.95), (0.16, -0.4), (0.42, -0.1), (0.42, 0.95), (-0.42, 0.95), (-0.42, -0.1), (-0.16, -0.4)])


def arrow(b: Brush) -> None:
    b.polygon([(-0.92, -0.2), (0.15, -0.2), (0.15, -0.62), (0.95, 0.0), (0.15, 0.62), (0.15, 0.2), (-0.92, 0.2)])


def cross(b: Brush) -> None:
    a, e = 0.3, 0.9
    b.polygon([(-a, -e), (a, -e), (a, -a), (e, -a), (e, a), (a, a), (a, e), (-a, e), (-a, a), (-e, a), (-e, -a), (-a, -a)])


DRAW = {
    "circle": lambda b: b.ellipse(-0.9, -0.9, 0.9, 0.9),
    "square": lambda b: b.box(-0.82, -0.82, 0.82, 0.82),
    "triangle": lambda b: b.polygon([(0, -0.9), (0.95, 0.8), (-0.95, 0.8)]),
    "star": lambda b: b.polygon(ngon(5, 0.98, inner=0.42)),
    "diamond": lambda b: b.polygon([(0, -0.98), (0.66, 0), (0, 0.98), (-0.66, 0)]),
    "heart": heart, "crescent": crescent, "car": car, "tree": tree, "house": house, "fish": fish, "boat": boat,
    "flower": flower, "mushroom": mushroom, "bottle": bottle, "arrow": arrow, "cross": cross,
}

# Objects: kind, colour, size, centre of 224. Texts: right, wrong.
PICTURES = [
    ([("star", "red", LARGE, (60, 70)), ("circle", "blue", SMALL, (165, 150))],
     [("There is a red star.", "There is a green star."), ("The image shows two objects.", "The image shows four objects.")]),
    ([("house", "yellow", LARGE, (150, 140)), ("tree", "green", LARGE, (55, 90))],
     [("A yellow house is present.", "A yellow car is present."), ("The tree is green.", "The tree is red.")]),
    ([("fish", "orange", LARGE, (110, 60)), ("heart", "purple", SMALL, (60, 165)), ("square", "black", SMALL, (170, 170))],
     [("The fish is above the heart.", "The fish is below the heart."), ("There are three objects.", "There are five objects.")]),
    ([("car", "blue", LARGE, (75, 150)), ("flower", "red", LARGE, (165, 70))],
     [("The car is blue and the flower is red.", "The car is red and the flower is blue."), ("The flower is large.", "The flower is small.")]),
    ([("boat", "white", LARGE, (120, 120))],
     [("There is one object.", "There are three objects."), ("A white boat is in the image.", "A white house is in the image.")]),
    ([("mushroom", "red", LARGE, (60, 150)), ("mushroom", "purple", SMALL, (160, 60))],
     [("There are two mushrooms.", "There are three mushrooms."), ("The large mushroom is red.", "The large mushroom is black.")]),
    ([("crescent", "yellow", LARGE, (165, 60)), ("diamond", "green", LARGE, (70, 140))],
     [("The crescent is yellow.", "The crescent is blue."), ("There is a green diamond.", "There is a green heart.")]),
    ([("arrow", "black", LARGE, (70, 60)), ("cross", "orange", LARGE, (150, 150))],
     [("The arrow is black.", "The arrow is white."), ("There is no blue star.", "There is a blue star.")]),
    ([("bottle", "green", LARGE, (60, 110)), ("cross", "red", SMALL, (160, 110))],
     [("The cross is right of the bottle.", "The cross is left of the bottle."), ("The red cross is small.", "The red cross is large.")]),
    ([("triangle", "blue", LARGE, (112, 60)), ("circle", "yellow", LARGE, (60, 160)), ("circle", "yellow", LARGE, (165, 160))],
     [("The number of yellow objects is two.", "The number of yellow objects is one."), ("A blue triangle is present.", "A blue square is present.")]),
    ([("heart", "red", LARGE, (70, 70)), ("star", "white", SMALL, (160, 160))],
     [("You can see a large red heart.", "You can see a large red circle."), ("The star is small.", "The star is large.")]),
    ([("tree", "orange", LARGE, (160, 130)), ("fish", "blue", SMALL, (60, 60))],
     [("The tree is orange.", "The tree is purple."), ("A small blue fish is in the image.", "A small black fish is in the image.")]),
    ([("square", "purple", LARGE, (60, 60)), ("square", "green", LARGE, (160, 60)), ("star", "yellow", LARGE, (110, 160))],
     [("There are two squares.", "There are four squares."), ("The star is below the purple square.", "The star is above the purple square.")]),
    ([("car", "red", LARGE, (110, 150)), ("crescent", "white", SMALL, (60, 50))],
     [("There is a red car.", "There is a red fish."), ("A green bottle is absent.", "A red car is absent.")]),
    ([("flower", "purple", LARGE, (60, 100)), ("house", "blue", LARGE, (160, 130))],
     [("The house is blue.", "The house is yellow."), ("A purple flower is present.", "A purple arrow is present.")]),
    ([("diamond", "black", SMALL, (60, 60)), ("diamond", "red", SMALL, (160, 60)), ("diamond", "blue", SMALL, (110, 160))],
     [("There are three diamonds.", "There are two diamonds."), ("A small black diamond is in the image.", "A small orange diamond is in the image.")]),
    ([("boat", "red", LARGE, (80, 70)), ("fish", "green", LARGE, (150, 165))],
     [("The boat is above the fish.", "The boat is below the fish."), ("The fish is green.", "The fish is white.")]),
    ([("circle", "green", LARGE, (165, 165)), ("arrow", "yellow", LARGE, (60, 60))],
     [("The circle is in the bottom right corner.", "The circle is in the top left corner."), ("The arrow is yellow.", "The arrow is purple.")]),
    ([("bottle", "purple", LARGE, (110, 110))],
     [("The image shows no heart.", "The image shows no bottle."), ("The colour of the bottle is purple.", "The colour of the bottle is green.")]),
    ([("cross", "blue", LARGE, (60, 160)), ("triangle", "orange", LARGE, (160, 60)), ("heart", "black", SMALL, (160, 165))],
     [("There is a large blue cross.", "There is a large blue tree."), ("The number of objects is three.", "The number of objects is six.")]),
]


def background(dice: random.Random) -> Image.Image:
    """A weave of two greyish tints with noise."""
    tint = [dice.randint(120, 205) for _ in range(3)]
    period, slant = dice.uniform(9, 26), dice.uniform(-1, 1)
    image = Image.new("RGB", (SIDE * SCALE // 2,) * 2)
    side = image.width
    wave = [[7 * math.sin((x + slant * y) / period) + 7 * math.sin((y - slant * x) / period) for x in range(side)] for y in range(side)]
    image.putdata([tuple(int(min(255, max(0, c + wave[y][x] + dice.gauss(0, 5)))) for c in tint) for y in range(side) for x in range(side)])
    return image.resize((SIDE * SCALE,) * 2, Image.Resampling.BILINEAR)


def picture(index: int, objects) -> bytes:
    dice = random.Random(1000 + index)
    image = background(dice)
    for kind, colour, extent, (x, y) in objects:
        fill = tuple(min(255, max(0, c + dice.randint(-8, 8))) for c in SHADES[colour])
        line = tuple(int(0.62 * c) for c in fill)
        brush = lambda on, off: Brush(ImageDraw.Draw(on), ((x + off) * SCALE, (y + off) * SCALE), extent * SCALE, fill, line)
        shadow = Image.new("RGB", image.size)
        DRAW[kind](brush(shadow, 3))
        mask = shadow.convert("L").point(lambda v: 90 if v else 0).filter(ImageFilter.GaussianBlur(6))
        image.paste((30, 30, 36), mask=mask)
        DRAW[kind](brush(image, 0))
    out = io.BytesIO()
    image.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(out, "JPEG", quality=dice.choice([55, 68, 80, 90]))
    return out.getvalue()


def made() -> dict[str, bytes]:
    files, pairs = {}, []
    for index, (objects, texts) in enumerate(PICTURES):
        name = f"{index:02}.jpg"
        files[name] = picture(index, objects)
        pairs += [{"image": name, "right": right, "wrong": wrong} for right, wrong in texts]
    lines = ",\n".join(" " + json.dumps(pair) for pair in pairs)
    files["pairs.json"] = f"[\n{lines}\n]\n".encode()
    return files


def main() -> None:
    files = made()
    if "--check" in sys.argv:
        wrong = [name for name, data in files.items() if (HERE / name).read_bytes() != data]
        if wrong:
            raise SystemExit(f"differ: {wrong}")
        print("all hold")
        return
    for name, data in files.items():
        (HERE / name).write_bytes(data)


if __name__ == "__main__":
    main()
