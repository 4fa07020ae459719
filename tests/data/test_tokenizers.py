import pytest
from tokenizers import Tokenizer as Engine

from dsa.data import BPETokenizer, ByteTokenizer

TEXT = "def naïve(x):\n\treturn  x + 1  # 日本 😀\r\n" * 50


@pytest.fixture(params=[ByteTokenizer, lambda: BPETokenizer(300)])
def tokenizer(request):
    made = request.param()
    made.fit([TEXT])
    return made


def test_any_text_round_trips(tokenizer):
    for text in (TEXT, " leading", "trailing \n", "unseen Ελληνικά ѫ", ""):
        (tokens,) = tokenizer.encode([text])
        assert tokenizer.decode(tokens.tolist()) == text
        assert all(0 <= token < tokenizer.vocab_size for token in tokens)


def test_the_end_token_is_the_nul_character(tokenizer):
    assert tokenizer.decode([tokenizer.end]) == "\0"


def test_a_lone_surrogate_is_no_error():
    ByteTokenizer().encode(["\ud800"])


def test_bpe_is_shorter_than_bytes_and_holds_its_vocabulary():
    bpe = BPETokenizer(300)
    bpe.fit([TEXT])
    assert bpe.vocab_size <= 300
    assert len(bpe.encode([TEXT])[0]) < len(TEXT.encode()) / 2


def test_bpe_training_repeats_and_survives_its_state():
    first, second, third = BPETokenizer(400), BPETokenizer(400), BPETokenizer(400)
    first.fit([TEXT, "other text"])
    second.fit([TEXT, "other text"])
    assert first.state() == second.state()
    third.restore(first.state())
    assert third.vocab_size == first.vocab_size
    assert (third.encode([TEXT])[0] == first.encode([TEXT])[0]).all()


def test_what_a_tokenizer_was_saved_with_neither_cuts_nor_pads_a_text():
    first, saved = BPETokenizer(400), BPETokenizer(400)
    first.fit([TEXT, "other text"])
    engine = Engine.from_str(first.state())
    engine.enable_truncation(3)
    engine.enable_padding(length=9)
    saved.restore(engine.to_str())
    for mine, theirs in zip(saved.encode([TEXT, "o"]), first.encode([TEXT, "o"]), strict=True):
        assert (mine == theirs).all()


def test_a_vocabulary_below_the_bytes_is_refused():
    with pytest.raises(ValueError, match=r"data.source.tokenizer.vocab_size = 256: .* from 257"):
        BPETokenizer(256)
