"""The stream of batches: whole, in order, the same for all layouts of processes, and ended with words where it ends."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_data import (
    nearest_number,
    pair_members,
    picture_number,
    write_documents,
    write_pairs,
    write_released,
    write_tar,
    write_videos,
)
from training_tokens import vocabulary

from mmc4_builder.shards import sample_key
from model.config import ConfigError
from train import updates
from train.batch import Batch
from train.config import DatasetConfig, ImagesConfig, InterleavedConfig, Kind, PairsConfig, VideosConfig
from train.loader import Loader, held_out, merge
from train.samples import DataError
from train.updates import LoaderError

WORDS = vocabulary()
PACKED = InterleavedConfig(tokens=48, packed=True, keep_single=1.0)


def dataset(path: Path, kind: Kind = PACKED, **options: Any) -> DatasetConfig:
    return DatasetConfig(**{"name": "data", "path": str(path), "kind": kind, "batch": 4, **options})


def loader(data: DatasetConfig, **options: Any) -> Loader:
    return Loader(data, **{"vocabulary": WORDS, "images": ImagesConfig(), "side": 16, "seed": 3, **options})


def taken(source: Loader, count: int) -> list[tuple[Batch, ...]]:
    try:
        return [next(source) for _ in range(count)]
    finally:
        source.close()


def equal(first: Batch, second: Batch) -> bool:
    pairs = [(getattr(first, field.name), getattr(second, field.name)) for field in fields(Batch)]
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


def same(first: Sequence[tuple[Batch, ...]], second: Sequence[tuple[Batch, ...]]) -> bool:
    return [len(u) for u in first] == [len(u) for u in second] and all(
        equal(a, b) for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True)
    )


def rows(update: Iterable[Batch]) -> list[tuple[Any, ...]]:
    """Each row of an update without its padding: its samples, tokens, labels, phi, and pixels of its pictures."""
    found = []
    for batch in update:
        for row, mask in enumerate(batch.attention_mask.bool()):
            slots = batch.image_rows[row]
            tensors = (batch.input_ids[row, mask], batch.labels[row, mask], batch.phi[row, mask])
            pixels = batch.images[slots[slots >= 0]]
            found.append((batch.keys[row], *(t.tolist() for t in tensors), pixels.numpy().tobytes()))
    return found


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_documents(tmp_path_factory.mktemp("documents"), [9, 5], images=3)


@pytest.fixture(scope="module")
def undisturbed(documents: Path) -> list[tuple[Batch, ...]]:
    return taken(loader(dataset(documents)), 22)


def test_the_images_are_those_of_their_tags_in_order(documents: Path) -> None:
    """Each document's pictures have colours of their own, and its sentences words of their own."""
    keys = [sample_key(shard, position) for shard, count in ((0, 9), (1, 5)) for position in range(count)]
    data = dataset(documents, InterleavedConfig(tokens=128, window="start"))
    for (batch,) in taken(loader(data), 12):
        for row, slots in enumerate(batch.image_rows):
            number = keys.index(batch.keys[row][0])
            seen = [nearest_number(batch.images[slot, 0].numpy()) for slot in slots if slot >= 0]
            assert seen == [picture_number(number, image) for image in range(len(seen))] and seen
            assert len(seen) == (batch.input_ids[row] == WORDS.image).sum()
            assert batch.phi[row].max() == len(seen)


def test_it_goes_on_from_every_update(documents: Path, undisturbed: list[tuple[Batch, ...]]) -> None:
    first = loader(dataset(documents))
    for at, wanted in enumerate(undisturbed):
        assert same(taken(loader(dataset(documents), state=merge([first.state()])), 1), [wanted]), at
        assert same([next(first)], [wanted])


@pytest.mark.parametrize("at", (1, 13))
def test_it_goes_on_for_long(documents: Path, undisturbed: list[tuple[Batch, ...]], at: int) -> None:
    first, second = loader(dataset(documents)), loader(dataset(documents))
    taken(first, at)
    second.resume([first.state()])
    assert same(taken(second, 22 - at), undisturbed[at:])


@pytest.mark.parametrize("workers", (1, 3))
def test_workers_change_nothing(documents: Path, undisturbed: list[tuple[Batch, ...]], workers: int) -> None:
    """Two tars, three workers; and the state is that of the update handed out, not of what workers have ready."""
    made = loader(dataset(documents), workers=workers)
    assert same(taken(made, 11), undisturbed[:11])
    alone = loader(dataset(documents))
    taken(alone, 11)
    assert made.state() == alone.state() and made.skipped == alone.skipped
    assert same(taken(loader(dataset(documents), workers=workers, state=made.state()), 4), undisturbed[11:15])


@pytest.mark.parametrize("world", (1, 2, 4))
@pytest.mark.parametrize("micro_batch", (0, 1, 3))
def test_ranks_share_the_same_rows(
    documents: Path, undisturbed: list[tuple[Batch, ...]], world: int, micro_batch: int
) -> None:
    """Whatever ranks there are, before and after a stop in the middle."""
    ranks = [loader(dataset(documents), rank=rank, world=world, micro_batch=micro_batch) for rank in range(world)]
    shares = [taken(rank, 10) for rank in ranks]
    wanted = [rows(update) for update in undisturbed]
    for number in range(10):
        assert [row for share in shares for row in rows(share[number])] == wanted[number]
        assert all(len(share[number]) == (1 if not micro_batch else -(-4 // world // micro_batch)) for share in shares)
    states = [rank.state() for rank in ranks]
    for after in (1, 2):
        shares = [taken(loader(dataset(documents), rank=r, world=after, state=merge(states)), 3) for r in range(after)]
        for number in range(3):
            assert [row for share in shares for row in rows(share[number])] == wanted[10 + number]


@pytest.mark.parametrize(
    ("kind", "write"),
    (
        (PairsConfig(), lambda path: write_pairs(path, [5, 4])),
        (VideosConfig(frames=2), lambda path: write_videos(path, [4], seconds=3)),
        (InterleavedConfig(keep_single=1.0), lambda path: write_released(path, [6], missing=[2])),
        (replace(PACKED, look_ahead=0.5), lambda path: write_documents(path, [6], fmt="openflamingo")),
    ),
)
def test_every_kind_resumes(tmp_path: Path, kind: Kind, write: Any) -> None:
    write(tmp_path)
    whole = taken(loader(dataset(tmp_path, kind)), 10)
    first = loader(dataset(tmp_path, kind))
    taken(first, 4)
    assert same(taken(loader(dataset(tmp_path, kind), state=first.state()), 6), whole[4:])
    batch = whole[0][0]
    assert batch.images.shape[1] == (2 if isinstance(kind, VideosConfig) else 1)
    assert (batch.image_rows >= 0).sum() == len(batch.images) == (batch.input_ids == WORDS.image).sum()


def test_an_epoch_has_every_training_sample_once(tmp_path: Path) -> None:
    write_pairs(tmp_path, [20, 20])
    data = dataset(tmp_path, PairsConfig(), held_out=5)
    keys = [key for update in taken(loader(data), 16) for batch in update for row in batch.keys for key in row]
    kept = {f"{number:09d}" for number in range(4, 40, 5)}
    assert sorted(keys[:32]) == sorted(keys[32:]) == sorted({f"{number:09d}" for number in range(40)} - kept)
    assert keys[:32] != keys[32:]
    found = [key for batch in held_out(data, **VALIDATION) for row in batch.keys for key in row]
    assert sorted(found) == sorted(kept)


VALIDATION: dict[str, Any] = {"vocabulary": WORDS, "images": ImagesConfig(), "side": 16}


def test_epochs_draw_anew(tmp_path: Path) -> None:
    """One document of many pictures: its windows and mirror images differ from epoch to epoch."""
    write_documents(tmp_path, [1], images=8)
    (batch,) = next(loader(dataset(tmp_path, InterleavedConfig(tokens=24, keep_single=1.0), batch=16)))
    assert len({tuple(row.tolist()) for row in batch.input_ids}) > 4


# What is broken


def test_what_is_broken_is_counted_and_nothing_else_is_lost(tmp_path: Path) -> None:
    members = {number: pair_members(number) for number in range(12)}
    members[2][0] = ("000000002.jpg", b"\xff\xd8\xff broken")
    members[5] = members[5][:1]
    members[7] = members[7][1:]
    write_tar(tmp_path / "0.tar", [member for listed in members.values() for member in listed])
    source = loader(dataset(tmp_path, PairsConfig(), batch=1))
    keys = Counter(update[0].keys[0][0] for update in taken(source, 45))
    assert set(keys) == {f"{number:09d}" for number in set(range(12)) - {2, 5, 7}}
    # Five epochs; a lane that skips is a little ahead of the others.
    assert all(4 <= count <= 6 for count in keys.values())
    assert {"bad_image", "no_caption", "no_picture"} == set(source.skipped)
    assert all(4 <= count <= 6 for count in source.skipped.values())


def spoilt(path: Path, name: str, data: bytes) -> None:
    """One member of a tar gets other bytes."""
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    with tarfile.open(path, "w") as tar:
        for member, old in members:
            new = data if member.name == name else old
            member.size = len(new)
            tar.addfile(member, io.BytesIO(new))


@pytest.mark.parametrize("image", (0, 1, 2))
def test_a_broken_picture_takes_its_tag_with_it(tmp_path: Path, image: int) -> None:
    write_documents(tmp_path, [1], images=3)
    key = sample_key(0, 0)
    spoilt(tmp_path / "shards" / "00000.tar", f"{key}.{image:02d}.jpg", b"\xff\xd8\xff broken")
    data = dataset(tmp_path, InterleavedConfig(tokens=128, window="start"), batch=1)
    ((batch,),) = taken(loader(data), 1)
    assert [nearest_number(picture[0].numpy()) for picture in batch.images] == [
        picture_number(0, other) for other in range(3) if other != image
    ]
    assert (batch.input_ids == WORDS.image).sum() == 2 and batch.skipped == {"bad_image": 1}


def test_a_damaged_tar_is_used_up_to_its_damage(tmp_path: Path) -> None:
    write_documents(tmp_path, [6, 6])
    path = tmp_path / "shards" / "00000.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = loader(dataset(tmp_path))
    keys = {key for update in taken(source, 20) for batch in update for row in batch.keys for key in row}
    assert source.skipped["damaged_shard"] == 1 and 6 < len(keys) < 12


@pytest.mark.parametrize("workers", (0, 1))
def test_data_without_one_good_sample_ends_the_run(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates, "LEAST_SKIPS", 20)
    write_documents(tmp_path, [2])
    source = loader(dataset(tmp_path, InterleavedConfig(min_similarity=0.9)), workers=workers)
    with pytest.raises(LoaderError, match=r"data: \d+ samples .*no_image \d+.*min_similarity"):
        next(source)
    with pytest.raises(LoaderError, match="closed"):
        next(source)


def test_a_killed_worker_ends_the_run(documents: Path) -> None:
    source = loader(dataset(documents), workers=2)
    next(source)
    (victim,) = source._making[1]._workers  # type: ignore[index,attr-defined]
    os.kill(victim.pid, signal.SIGKILL)
    with pytest.raises(LoaderError, match=r"data: a worker .* died.*shm"):
        for _ in range(40):
            next(source)
    source.close()


def test_workers_outlive_sigterm_and_not_their_loader(documents: Path) -> None:
    """A cluster sends SIGTERM to all processes; the trainer has to finish its update."""
    source = loader(dataset(documents), workers=1)
    next(source)
    (worker,) = source._making[0]._workers  # type: ignore[index,attr-defined]
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker.pid, number)
    for _ in range(12):
        next(source)
    assert worker.is_alive()
    source.close()
    deadline = time.monotonic() + 30
    while worker.is_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not worker.is_alive()


SCRIPT = """
import os, sys
from test_train_loader import dataset, loader
from pathlib import Path
if __name__ == "__main__":
    source = loader(dataset(Path(sys.argv[1])), workers=1)
    next(source)
    print(source._making[0]._workers[0].pid, flush=True)
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ("kill", "exit"))
def test_no_worker_is_left_behind(tmp_path: Path, documents: Path, how: str) -> None:
    """By a trainer that is killed, or that ends without closing its loader."""
    (tmp_path / "script.py").write_text(SCRIPT)
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here}:{here.parent}"}
    command = [sys.executable, str(tmp_path / "script.py"), str(documents), how]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=100)
    assert done.returncode == (-9 if how == "kill" else 0), done.stderr.decode()
    folder = Path("/proc") / done.stdout.decode().split()[-1]
    deadline = time.monotonic() + 10
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not folder.exists()


def test_workers_leave_the_random_numbers_of_the_model_alone(documents: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    taken(loader(dataset(documents), workers=1), 2)
    assert torch.equal(before, torch.get_rng_state())


# What cannot be


def test_more_workers_than_streams_are_too_many(documents: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = loader(dataset(documents), workers=9)
    assert len(iter(source)._making or []) == 8
    source.close()
    assert "9 workers" in caplog.text


def test_the_batch_must_fit_the_ranks(documents: Path) -> None:
    with pytest.raises(ConfigError, match="data: batch 4 .* 3 ranks"):
        loader(dataset(documents), world=3)


def test_another_batch_cannot_resume(documents: Path) -> None:
    state = loader(dataset(documents)).state()
    with pytest.raises(ConfigError, match=r"\(8, 4\) lanes, batch 2 needs \(8, 2\)"):
        loader(dataset(documents, batch=2)).resume([state])


def test_states_of_different_updates_are_no_checkpoint(documents: Path) -> None:
    ranks = [loader(dataset(documents), rank=rank, world=2) for rank in range(2)]
    next(ranks[0])
    with pytest.raises(LoaderError, match=r"\[0, 1\]"):
        merge([rank.state() for rank in ranks])


def test_look_ahead_is_for_models_that_see_one_image(documents: Path) -> None:
    with pytest.raises(ConfigError, match="look_ahead"):
        loader(dataset(documents, replace(PACKED, look_ahead=0.5)), see_all_previous=True)
    ((batch,),) = taken(loader(dataset(documents), see_all_previous=True), 1)
    assert batch.phi.shape == (*batch.input_ids.shape, 2)


def test_nothing_is_held_out_of_too_little(tmp_path: Path) -> None:
    write_pairs(tmp_path, [3])
    with pytest.raises(DataError, match="every 5th of 3"):
        list(held_out(dataset(tmp_path, PairsConfig(), held_out=5), **VALIDATION))
    assert not list(held_out(dataset(tmp_path, PairsConfig()), **VALIDATION))


# Validation


def test_validation_is_the_same_for_all_and_each_time(documents: Path) -> None:
    data = dataset(documents, replace(PACKED, keep_single=0.0, look_ahead=1.0), held_out=2)

    def passed(**options: Any) -> list[Batch]:
        return list(held_out(data, **VALIDATION, **options))

    once = passed()
    assert same([tuple(once)], [tuple(passed())])
    assert len([key for batch in once for key in batch.keys]) == 7
    for world in (2, 3):
        ranks = [passed(rank=rank, world=world, micro_batch=1) for rank in range(world)]
        assert len({len(found) for found in ranks}) == 1  # sharded models take each step together
        shared = [row for found in ranks for row in rows(found) if row[0]]
        assert sorted(map(str, shared)) == sorted(str(row) for row in rows(once))


def test_a_validation_batch_whose_samples_are_all_skipped_is_still_a_step(tmp_path: Path) -> None:
    write_documents(tmp_path, [8])
    data = dataset(tmp_path, InterleavedConfig(min_similarity=0.9), held_out=2)
    (batch,) = held_out(data, **VALIDATION)
    assert batch.targets == 0 and batch.skipped == {"no_image": 4}


def states(source: Loader) -> Iterator[Mapping[str, Any]]:
    while True:
        yield source.state()
        next(source)


def test_the_state_is_what_json_holds(documents: Path) -> None:
    import json

    for state, _ in zip(states(loader(dataset(documents))), range(3), strict=False):
        assert json.loads(json.dumps(state)) == state
