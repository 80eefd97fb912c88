"""Pictures to try a trained model on."""

from pathlib import Path

from PIL import Image

from mmc4_builder.sample.gallery import SIZE, scenes, write
from mmc4_builder.sample.scenes import held_out


def test_unseen_scenes_named_by_what_they_show(tmp_path: Path) -> None:
    paths = write(tmp_path / "a", 6)
    assert [path.read_bytes() for path in write(tmp_path / "b", 6)] == [path.read_bytes() for path in paths]
    for path, scene in zip(paths, scenes(6), strict=True):
        main = scene.main
        assert path.stem.split("-")[1:] == [main.colour, main.kind, scene.place]
        assert held_out(main.kind, main.colour, scene.place)
        with Image.open(path) as picture:
            assert picture.size == SIZE
