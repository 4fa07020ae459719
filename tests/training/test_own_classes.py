"""Classes of a user's own are trained as shipped ones are."""

import pytest
from conftest import QUIET, SMALL

from dsa import config, load_run, train
from dsa.spec import spec_of
from training.whole_runs import RUN, start

pytestmark = pytest.mark.slow


def test_an_indexer_of_ones_own_needs_no_more_than_score(outputs, tmp_path, monkeypatch):
    (tmp_path / "mylab.py").write_text(
        "from torch import nn\n"
        "from dsa.indexers import Indexer\n"
        "from dsa.ops import IndexFeatures\n"
        "class Dot(Indexer):\n"
        "    def __init__(self, d_model):\n"
        "        super().__init__()\n"
        "        self.both = nn.Linear(d_model, 12, bias=False)\n"
        "    def score(self, x, rotary):\n"
        "        q, k = self.both(x).chunk(2, -1)\n"
        "        return IndexFeatures(q[:, None, :, None], k[:, None], activation='none')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    cfg = config.compose([*RUN, "allow_targets=[mylab]", f"output_dir={outputs}"])
    cfg.indexer = {"_target_": "mylab.Dot"}
    result = train(spec_of(cfg))
    assert result.params["indexer"] == 2 * 32 * 12
    assert result.flops["indexer"] > 0
    assert load_run(result.folder, allow_targets=["mylab"]).vocab_size == 192
    with pytest.raises(ValueError, match="allow_targets"):
        load_run(result.folder)


def test_ones_own_package_is_admitted_by_name(outputs, tmp_path, monkeypatch):
    package = tmp_path / "mylab"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from dsa.patterns import LocalGlobal\nclass Mine(LocalGlobal):\n    '''Like local_global.'''\n"
    )
    config = tmp_path / "conf" / "pattern"
    config.mkdir(parents=True)
    (config / "mine.yaml").write_text("# Mine.\n_target_: mylab.Mine\nwindow: 4\nbudget: 8\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    arguments = ["--config-dir", str(tmp_path / "conf"), "pattern=mine", *SMALL, *QUIET, "steps=6"]
    refused = start([*arguments, f"output_dir={outputs}"])
    text = refused.communicate()[0]
    assert refused.returncode == 2
    assert "allow_targets=[mylab]" in text
    admitted = start([*arguments, "allow_targets=[mylab]", f"output_dir={outputs}"])
    assert admitted.wait() == 0, admitted.stdout.read()
    assert list((outputs / "runs").glob("h2d32-mine-*/result.json"))
