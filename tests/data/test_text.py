import logging
import math

import numpy as np
import pytest

from dsa.data import BPETokenizer, ByteTokenizer, Corpus, RecallSlice, TextFiles, TextSource
from dsa.data.split import Texts
from dsa.data.text import unigram_loss


class Spoken(Corpus):
    """A corpus of given texts that counts how often it is read."""

    description = "spoken"

    def __init__(self, train, validation):
        self.given, self.read = Texts(train, validation), 0

    def key(self):
        return repr(self.given)

    def texts(self):
        self.read += 1
        return self.given


def source(corpus, folder, tokenizer=None, **settings):
    return TextSource(corpus, tokenizer or ByteTokenizer(), cache_dir=str(folder), **settings)


def test_each_document_is_followed_by_the_end_token(tmp_path):
    made = source(Spoken(["ab", "c"], ["d"]), tmp_path)
    assert bytes(made.train) == b"ab\0c\0"
    assert bytes(made.validation) == b"d\0"
    assert made.counts == {
        "train_tokens": 5,
        "validation_tokens": 2,
        "train_documents": 2,
        "validation_documents": 1,
        "train_bytes": 3,
        "validation_bytes": 1,
    }


def test_a_second_start_reads_the_cache_and_finds_the_same(tmp_path):
    corpus = Spoken(["one " * 50], ["two " * 50])
    for tokenizer in (ByteTokenizer, lambda: BPETokenizer(260)):
        corpus.read = 0
        first, second = (source(corpus, tmp_path, tokenizer()) for _ in range(2))
        assert corpus.read == 1
        assert (first.train == second.train).all()
        assert (first.validation == second.validation).all()
        assert (first.fingerprint, first.counts) == (second.fingerprint, second.counts)
        assert first.vocab_size == second.vocab_size
        assert isinstance(second.train, np.memmap)


def test_the_fingerprint_follows_content_tokeniser_split_and_slice(tmp_path):
    a, b = ["one " * 50], ["two " * 50]
    made = [
        source(Spoken(a, b), tmp_path),
        source(Spoken(b, a), tmp_path),
        source(Spoken([*a, *a], b), tmp_path),
        source(Spoken(a, b), tmp_path, BPETokenizer(260)),
        source(Spoken(a, b), tmp_path, recall_slice=RecallSlice(6, 96)),
        source(Spoken(a, b), tmp_path, recall_slice=RecallSlice(6, 32)),
    ]
    assert len({each.fingerprint for each in made}) == len(made)
    assert source(Spoken(a, b), tmp_path / "elsewhere").fingerprint == made[0].fingerprint


def test_bpe_sees_the_training_part_alone(tmp_path):
    train, validation = "abcabcabc " * 100, "xyzxyzxyz " * 1000
    seen = []

    class Watched(BPETokenizer):
        def fit(self, texts):
            seen.extend(texts)
            super().fit(texts)

    made = source(Spoken([train], [validation]), tmp_path, Watched(300))
    assert seen == [train]
    assert "xyz" not in made.tokenizer.engine.get_vocab()
    assert "abc" in made.tokenizer.engine.get_vocab()


def test_unigram_loss_is_the_smoothed_cross_entropy_of_the_validation_part():
    train, validation = np.array([0, 0, 0, 1], np.uint8), np.array([0, 1, 1, 2], np.uint8)
    frequency = {0: 4 / 7, 1: 2 / 7, 2: 1 / 7}  # add one to each of three
    expected = -np.mean([math.log(frequency[token]) for token in validation])
    assert unigram_loss(train, validation, 3) == pytest.approx(expected)


def test_chance_is_the_logarithm_of_the_vocabulary(tmp_path):
    made = source(Spoken(["ab"], ["c"]), tmp_path)
    assert made.chance_loss == pytest.approx(math.log(256))
    assert made.description == "spoken bytes"


def test_one_line_says_tokens_split_and_fingerprint(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "dsa.data"):
        made = source(Spoken(["ab", "c"], ["d"]), tmp_path)
    (line,) = caplog.messages
    assert line == (
        "spoken bytes: 5 training and 2 validation tokens (2 and 1 documents), fingerprint " + made.fingerprint
    )


def test_without_a_cache_dir_the_users_own_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    TextSource(Spoken(["ab"], ["c"]), ByteTokenizer())
    assert list((tmp_path / "dsa").glob("*.npy"))


def test_the_last_tenth_of_one_book_validates(book, tmp_path):
    made = source(TextFiles(str(book)), tmp_path)
    text = book.read_bytes()
    assert bytes(made.train[:-1]) + bytes(made.validation[:-1]) == text
    assert len(made.validation) - 1 == round(len(text) / 10)
