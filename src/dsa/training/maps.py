"""Pictures of a selection."""

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from dsa.backbones import Backbone, Observation, Pass
from dsa.ops.reference import causal, to_mask

PIXELS = 256  # a longer map is thinned to this many rows and columns


def selection_figure(model: Backbone, tokens: Tensor) -> Figure:
    """Queries downwards, keys across, selected pairs dark; the first row of `tokens` alone. A column a layer, and a row
    of panels for each group of heads with a selection of its own."""
    seen: list[Observation] = []
    training = model.training
    model.eval()
    with torch.no_grad():
        model.run(tokens[:1], Pass(observe=seen.append))
    model.train(training)
    length = tokens.shape[1]
    every = causal(length, length)[None]
    layers = [every if layer.selection is None else to_mask(layer.selection, length)[0].cpu() for layer in seen]
    groups = max(len(masks) for masks in layers)
    figure = Figure(figsize=(2.6 * len(seen) + 0.6, 2.6 * groups + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    thin = -(-length // PIXELS)
    for column, layer, masks in zip(figure.subplots(groups, len(seen), squeeze=False).T, seen, layers, strict=True):
        for group, axis in enumerate(column):
            mask = masks[group * len(masks) // groups]
            pooled = torch.nn.functional.max_pool2d(mask[None].float(), thin, ceil_mode=True)[0]
            axis.imshow(pooled, cmap="Blues", vmin=0, vmax=1, extent=(0, length, length, 0), interpolation="nearest")
            heads = "" if groups == 1 else f", heads {group + 1}/{groups}"
            axis.set_title(f"layer {layer.layer}{heads}", fontsize=9)
            axis.tick_params(labelsize=7)
        column[-1].set_xlabel("key position")
    figure.axes[0].set_ylabel("query position")
    return figure
