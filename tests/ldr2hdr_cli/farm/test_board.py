"""Who does which chunk, and what becomes of one whose workers die."""

from pathlib import Path, PurePath

import pytest

from ldr2hdr_cli.convert.chunks import Chunk
from ldr2hdr_cli.convert.events import Done, Failed, Skipped
from ldr2hdr_cli.convert.job import Item
from ldr2hdr_cli.farm.board import SLOW_AT_LEAST, TRIES, Board, Finished
from ldr2hdr_cli.media.sources import Input


def photographs(*names: str) -> Chunk:
    items = tuple(
        Item(Input(Path(f"/in/{name}.jpg"), "still", PurePath(name)), Path("/out"), name, ".exr") for name in names
    )
    return Chunk(f"key of {names[0]}", 0, items)


def clip(start: int, end: int | None) -> Chunk:
    item = Item(Input(Path("/in/clip.mov"), "video", PurePath("clip")), Path("/out/clip"), "clip", ".exr")
    return Chunk(f"clip {start}", 0, (item,), item.input.path, start, end)


def done(item: Item, index: int = 0) -> Done:
    return Done(item, item.output(index), item.frame(index), 1.0, 0.0, 1.0, 0, {})


@pytest.fixture
def now():
    return [0.0]


@pytest.fixture
def board(now):
    return Board(clock=lambda: now[0])


def test_a_chunk_is_finished_with_what_was_made_and_what_failed(board):
    chunk = photographs("a", "b")
    board.add(chunk)
    assert board.give("w") is chunk
    failure = Failed(chunk.items[1], "b cannot be read")
    told = [*board.see("w", done(chunk.items[0])), *board.see("w", failure)]
    assert [type(event) for event in told] == [Done, Failed]
    assert board.end("w", chunk.key) == Finished(chunk, 1, [failure])
    assert not board.busy and not board.waiting


def test_what_a_dead_worker_had_told_is_not_told_again(board):
    chunk = photographs("a", "b")
    board.add(chunk)
    board.give("w")
    first, second = chunk.items
    failure = Failed(first, "a cannot be read")
    assert len([*board.see("w", failure), *board.see("w", done(second))]) == 2
    assert board.lose("w", "it died") == []
    assert board.give("v") is chunk
    again = [failure, Skipped(second, second.output(0))]
    assert [one for event in again for one in board.see("v", event)] == []
    assert board.end("v", chunk.key) == Finished(chunk, 1, [failure])


def test_a_chunk_goes_to_the_front_and_those_in_hand_keep_their_order(board):
    chunks = [clip(0, 384), clip(384, 768), clip(768, None)]
    for chunk in chunks:
        board.add(chunk)
    assert [board.give("w"), board.give("w")] == chunks[:2]
    board.give_back("w")
    assert [board.give("v") for _ in chunks] == chunks


def test_a_chunk_that_somebody_died_of_is_done_by_itself(board):
    first, second = clip(0, 384), clip(384, None)
    board.add(first)
    board.give("w")
    board.lose("w", "it died")
    board.add(second)
    assert board.give("v") is first
    assert not board.may_have_more("v") and board.give("v") is None
    assert board.give("u") is second
    board.end("v", first.key)
    assert board.may_have_more("v")


def test_a_clip_on_which_workers_die_without_a_frame_more_is_given_up(board):
    chunk = clip(384, 768)
    board.add(chunk)
    for index in range(5):  # each gets a little further
        board.give(index)
        list(board.see(index, done(chunk.items[0], 400 + index)))
        assert board.lose(index, "it died") == []
    for _ in range(TRIES - 2):
        board.give("w")
        assert board.lose("w", "it died") == []
    board.give("w")
    failed, finished = board.lose("w", "its node has died")
    assert isinstance(failed, Failed) and not failed.ends_run
    assert "/in/clip.mov: nothing of its frames from the 385th on was made" in failed.message
    assert "its node has died" in failed.message
    assert finished == Finished(chunk, 5, [failed])
    assert not board.waiting


def test_one_picture_that_kills_costs_no_other(board):
    """Whoever is given c dies; of all others a file is made."""
    chunk = photographs("a", "b", "c", "d")
    board.add(chunk)
    told, deaths = [], 0
    while (given := board.give("w")) is not None:
        for item in given.items:
            if item.stem == "c":
                deaths += 1
                told += board.lose("w", "it died")
                break
            told += board.see("w", done(item))
        else:
            told += [one for one in [board.end("w", given.key)] if one]
    assert sorted(one.item.stem for one in told if isinstance(one, Done)) == ["a", "b", "d"]
    assert [one.item.stem for one in told if isinstance(one, Failed)] == ["c"]
    assert [one.made for one in told if isinstance(one, Finished)] == [3]
    assert deaths <= TRIES + 1


def test_a_slow_worker_is_found_by_the_others_pace_and_only_once(board, now):
    for start in range(5):
        board.add(clip(start * 384, start * 384 + 384))
    for _ in range(3):
        chunk = board.give("fast")
        now[0] += 2 * SLOW_AT_LEAST
        board.end("fast", chunk.key)
    chunk = board.give("slow")
    now[0] += 3 * SLOW_AT_LEAST
    assert board.straggler() is None  # less than twice what is usual
    now[0] += 2 * SLOW_AT_LEAST
    assert board.straggler() == "slow"
    board.give_back("slow")
    assert board.give("fast") is chunk
    now[0] += 100 * SLOW_AT_LEAST
    assert board.straggler() is None
