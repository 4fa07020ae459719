"""Pictures of a selection."""

from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from dsa.backbones import Backbone, Observation, Pass
from dsa.ops.reference import causal, to_mask

PIXELS = 256  # a longer map is thinned to this many rows and columns


def selection_figure(model: Backbone, tokens: Tensor) -> Figure:
    """One panel a layer: queries downwards, keys across, selected pairs dark; the first row of `tokens` alone."""
    seen: list[Observation] = []
    training = model.training
    model.eval()
    with torch.no_grad():
        model.run(tokens[:1], Pass(observe=seen.append))
    model.train(training)
    length = tokens.shape[1]
    figure = Figure(figsize=(2.6 * len(seen) + 0.6, 3.1), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, layer in zip(figure.subplots(1, len(seen), squeeze=False)[0], seen, strict=True):
        chosen = layer.selection
        mask = causal(length, length) if chosen is None else to_mask(chosen, length)[0, 0].cpu()
        thin = -(-length // PIXELS)
        pooled = torch.nn.functional.max_pool2d(mask[None].float(), thin, ceil_mode=True)[0]
        axis.imshow(pooled, cmap="Blues", vmin=0, vmax=1, extent=(0, length, length, 0), interpolation="nearest")
        axis.set_title(f"layer {layer.layer}", fontsize=9)
        axis.set_xlabel("key position")
        axis.tick_params(labelsize=7)
    figure.axes[0].set_ylabel("query position")
    return figure


def draw_selection(model: Backbone, tokens: Tensor, path: Path) -> None:
    """Write the picture as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    selection_figure(model, tokens).savefig(path, dpi=110)
