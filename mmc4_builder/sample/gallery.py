"""A few pictures of scenes that nothing was trained on, named by what they show.

python -m mmc4_builder.sample.gallery build/pictures
mmc4-caption --checkpoint runs/tiny/model.safetensors build/pictures/*.jpg
"""

import argparse
import random
from pathlib import Path

from mmc4_builder.sample.draw import draw_scene
from mmc4_builder.sample.scenes import Scene, random_scene

SEED = 2022
SIZE = (320, 240)


def scenes(count: int) -> list[Scene]:
    """From the sample's side of the split, which training of the shipped models never saw; in plain weather."""
    rng = random.Random(SEED)
    found: list[Scene] = []
    while len(found) < count:
        scene = random_scene(rng, for_sample=True)
        if scene.other is None and scene.weather == "clear" and scene.time == "day":
            found.append(scene)
    return found


def write(folder: Path, count: int) -> list[Path]:
    """`01-red-boat-sea.jpg`, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, scene in enumerate(scenes(count), 1):
        path = folder / f"{number:02d}-{scene.main.colour}-{scene.main.kind}-{scene.place}.jpg"
        draw_scene(scene, *SIZE).save(path, "JPEG", quality=90)
        paths.append(path)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=6)
    given = parser.parse_args()
    write(given.folder, given.count)


if __name__ == "__main__":
    main()
