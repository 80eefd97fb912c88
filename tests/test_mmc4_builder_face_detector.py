"""RetinaFace through its library, with random weights of the real architecture: boxes as the library finds them."""

import hashlib
import io
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from mmc4_builder import face_detector
from mmc4_builder.face_detector import Detector, Face, detect, find, load
from mmc4_builder.warc import Record, read_records
from mmc4_builder.weights_file import WeightsFileError

pytest.importorskip("retinaface")

RGB = npt.NDArray[np.uint8]
THIN = (8, 500), (500, 8)  # (height, width): what the library scales to 1980 px is then quick to look at


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as its authors publish it, but for the numbers: scores spread, boxes of all shapes."""
    from retinaface.model.retinaface_pth_model import RetinaFace

    torch.manual_seed(11)
    model = RetinaFace()
    for stride in (32, 16, 8):
        head: Any = getattr(model, f"face_rpn_stride{stride}")
        head.cls_score.weight.data *= 60
        head.bbox_pred.weight.data *= 4
    path = tmp_path_factory.mktemp("retinaface") / "retinaface.pth"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def detector(weights: Path) -> Detector:
    return load(str(weights), device="cpu")


def pictures(count: int, size: tuple[int, int], seed: int = 0) -> list[RGB]:
    """Smooth noise, so that a little scaling changes it little; channels differ."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, max(1, size[0] // 4), max(1, size[1] // 4), 3), dtype=np.uint8)
    return [np.asarray(cv2.resize(one, size[::-1]), dtype=np.uint8) for one in coarse]


def png(rgb: RGB) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "PNG")
    return stream.getvalue()


def strict(picture: RGB, detector: Detector, count: int = 12) -> float:
    """A threshold that a handful of boxes pass: the library's suppression is slow with many."""
    scores = sorted((face.score for face in detect([picture], detector, 0.0)[0]), reverse=True)
    return scores[min(count, len(scores) - 1)]


def by_library(picture: RGB, detector: Detector, threshold: float) -> list[Face]:
    with warnings.catch_warnings():  # the package switches all warnings off
        from retinaface import RetinaFace
    found = RetinaFace.detect_faces(picture[:, :, ::-1], threshold=threshold, model=detector.model)
    corners = [(tuple(int(side) for side in face["facial_area"]), face["score"]) for face in found.values()]
    return sorted((Face(box=box, score=float(score)) for box, score in corners), key=lambda face: face.box)


@pytest.mark.parametrize("size", THIN)
def test_boxes_are_the_librarys_own(size: tuple[int, int], detector: Detector) -> None:
    (picture,) = pictures(1, size)
    threshold = strict(picture, detector)
    expected = by_library(picture, detector, threshold)
    found = detect([picture], detector, threshold)[0]
    assert len(expected) >= 5 and found == expected


def test_encoded_is_decoded(detector: Detector) -> None:
    (picture,) = pictures(1, THIN[0])
    threshold = strict(picture, detector)
    assert detect([png(picture)], detector, threshold) == detect([picture], detector, threshold)


def test_red_is_not_blue(detector: Detector) -> None:
    (picture,) = pictures(1, THIN[0])
    mirrored = np.ascontiguousarray(picture[:, :, ::-1])
    threshold = strict(picture, detector)
    assert detect([picture], detector, threshold) != detect([mirrored], detector, threshold)


def test_groups_change_nothing(weights: Path, detector: Detector) -> None:
    """Pictures of many sizes, in any order; and in real batches, as on a GPU, the same boxes."""
    mixed = [one for pair in zip(pictures(2, (2, 400)), pictures(2, (400, 2)), strict=True) for one in pair]
    threshold = strict(mixed[0], detector)
    alone = [detect([one], detector, threshold)[0] for one in mixed]
    assert detect(mixed, detector, threshold) == alone and any(alone)
    batches = Detector(name="x", sha256="", device="cpu", batch_size=2, model=detector.model)
    together = detect(mixed, batches, threshold * 0.999)
    for one, other in zip(alone, together, strict=True):
        assert {face.box for face in one} <= {face.box for face in other}


def test_boxes_lie_in_the_picture_and_in_order(detector: Detector) -> None:
    (picture,) = pictures(1, (6, 300))
    faces = detect([picture], detector, 0.0)[0]
    assert faces == sorted(faces, key=lambda face: (face.box, -face.score))
    for face in faces:
        x1, y1, x2, y2 = face.box
        assert 0 <= x1 <= x2 < 300 and 0 <= y1 <= y2 < 6 and 0 <= face.score <= 1


@pytest.mark.parametrize("size", [(1, 1981), (1, 100_000), (100_000, 1)])
def test_slivers_have_no_face(size: tuple[int, int], detector: Detector) -> None:
    assert detect([np.zeros((*size, 3), np.uint8)], detector) == [[]]


def test_nothing_in_nothing_out(detector: Detector) -> None:
    assert detect([], detector) == []


def test_hostile_candidates_are_cut(monkeypatch: pytest.MonkeyPatch, detector: Detector) -> None:
    monkeypatch.setattr(face_detector, "MAX_CANDIDATES", 3)
    (picture,) = pictures(1, (4, 400))
    assert 1 <= len(detect([picture], detector, 0.0)[0]) <= 3


def test_weights_that_answer_no_numbers_are_named(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    state["conv0.weight"] *= torch.nan
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(WeightsFileError, match="nan.pth .*answers what is no number"):
        detect(pictures(1, (4, 400)), load(str(tmp_path / "nan.pth"), device="cpu"))


def test_a_detector_says_what_it_is(weights: Path, detector: Detector) -> None:
    assert detector.name == str(weights) and detector.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (detector.device, detector.batch_size) == ("cpu", 1)


@pytest.mark.parametrize("content", [{"conv0.weight": torch.zeros(1)}, [1], None])
def test_other_files_are_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(b"<html>") if content is None else torch.save(content, path)
    with pytest.raises(WeightsFileError, match="other.pth holds no weights of RetinaFace.*mmc4-build.faces") as caught:
        load(str(path), device="cpu")
    assert "weights_only" not in str(caught.value)


def test_a_checksum_is_checked(weights: Path) -> None:
    with pytest.raises(WeightsFileError, match="expected abab"):
        find(f"{weights}#sha256={'ab' * 32}")


def test_released_is_where_the_library_keeps_it(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    place = tmp_path / ".deepface" / "weights" / "retinaface.pth"
    place.parent.mkdir(parents=True)
    os.link(weights, place)
    assert find() == place
    assert load(face_detector.RELEASED, device="cpu").name == "released"
    assert capsys.readouterr().out == ""


def test_without_a_network_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from retinaface.model import retinaface_pth_model

    with socket.socket() as closed:  # bound, not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/retinaface.pth"
        monkeypatch.setattr(retinaface_pth_model, "WEIGHTS_URLS", [url])
        monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
        with pytest.raises(
            WeightsFileError, match=f"(?s){url}.*copy it to {tmp_path}.*give the path of retinaface.pth"
        ):
            find()
    assert capsys.readouterr().out == ""


def test_importing_it_leaves_warnings_alone() -> None:
    script = (
        "import warnings\n"
        "from mmc4_builder import face_detector\n"
        "before = list(warnings.filters)\n"
        "face_detector._library()\n"
        "assert warnings.filters == before\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[1])


def test_a_real_face_arrives_whole(manuals: Path) -> None:
    """Where real weights are out of reach: what the model would see still holds a face, to a detector that runs."""
    wanted = "/_images/sphx_glr_plot_rgb_to_gray_001.png"
    with manuals.open("rb") as stream:
        records = (one for one in read_records(stream, "") if isinstance(one, Record))
        data = next(one.payload for one in records if one.url.endswith(wanted))
    rows, scale = face_detector._prepare(face_detector._decoded(data))
    seen = cv2.cvtColor(rows[0].astype(np.uint8), cv2.COLOR_RGB2GRAY)
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    found = cascade.detectMultiScale(seen, 1.1, 10, minSize=(60, 60))
    boxes = sorted(tuple(round(side / scale) for side in box) for box in found)
    for (x, y, width, _), (left, top) in zip(boxes, ((166, 73), (558, 72)), strict=True):
        assert abs(x - left) < 15 and abs(y - top) < 15 and 45 < width < 90
