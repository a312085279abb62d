from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stabdiag.reference.data import DEFAULT_SIZE, Vocabulary, batches, merge, read


def test_the_default_text_is_this_pythons_standard_library():
    text = read()
    assert 500_000 < len(text) <= DEFAULT_SIZE
    assert b"def " in text
    assert read() == text


def test_a_folder_is_read_in_sorted_order_without_binary_files(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_bytes(b"second")
    (tmp_path / "a.txt").write_bytes(b"first")
    (tmp_path / "sub" / "c.txt").write_bytes(b"third")
    (tmp_path / "image.png").write_bytes(b"\x89\0\0")
    assert read(str(tmp_path)) == b"firstsecondthird"
    assert read(str(tmp_path / "a.txt")) == b"first"


def test_no_text_is_an_error_that_names_the_place(tmp_path):
    with pytest.raises(FileNotFoundError, match=tmp_path.name):
        read(str(tmp_path))


def merged_one_by_one(tokens: list[int], pair: tuple[int, int], new: int) -> list[int]:
    out, i = [], 0
    while i < len(tokens):
        if tuple(tokens[i : i + 2]) == pair:
            out.append(new)
            i += 2
        else:
            out.append(tokens[i])
            i += 1
    return out


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), max_size=40), st.tuples(st.integers(0, 2), st.integers(0, 2)))
def test_a_merge_goes_from_left_to_right_also_in_runs(tokens, pair):
    got = merge(torch.tensor(tokens, dtype=torch.long), pair, 9).tolist()
    assert got == merged_one_by_one(tokens, pair, 9)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_decoding_gives_the_encoded_bytes_back(text):
    vocabulary = Vocabulary.trained(b"the cat sat on the mat, the rat sat on the cat", 270)
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_byte_pairs_shorten_the_text_and_begin_with_the_most_frequent_pair():
    text = b"ababab abab ab " * 20
    vocabulary = Vocabulary.trained(text, 260)
    assert vocabulary.pairs[0] == (ord("a"), ord("b"))
    assert len(vocabulary) == 260
    assert len(vocabulary.encode(text)) < len(text) / 3


def test_a_text_without_repetition_gives_fewer_tokens_than_asked_for():
    assert len(Vocabulary.trained(bytes(range(200)), 300)) == 256


def test_targets_are_the_inputs_one_later_and_a_batch_depends_on_its_index_alone():
    take = batches(torch.arange(1000), batch=4, context=8, seed=1)
    inputs, targets = take(5)
    assert inputs.shape == targets.shape == (4, 8)
    assert torch.equal(targets, inputs + 1)
    take(6)
    assert torch.equal(take(5)[0], inputs)
    assert not torch.equal(take(6)[0], inputs)
    assert not torch.equal(batches(torch.arange(1000), 4, 8, seed=2)(5)[0], inputs)


def test_too_short_a_text_is_refused():
    with pytest.raises(ValueError, match="too short"):
        batches(torch.arange(8), batch=1, context=8, seed=0)
