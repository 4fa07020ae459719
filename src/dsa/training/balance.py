"""How much each of several losses counts that teach the same parameters: those of layers that share an indexer."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

Total = Callable[[Tensor], Tensor]
"""Sum over the processes of a distributed run."""


class Balance(nn.Module):
    """Weights of some losses, learned beside what the losses teach, by Adam at a rate of their own.

    Its state is made of buffers: no optimiser of the run moves it, every checkpoint holds it.

    Args:
        count: of the losses.

    Attributes:
        rate: of Adam; a step moves a logarithm of a weight by about as much.
    """

    rate: ClassVar[float] = 0.025
    learned: Tensor
    means: Tensor
    squares: Tensor
    steps: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        for name in ("learned", "means", "squares"):
            self.register_buffer(name, torch.zeros(count))
        self.register_buffer("steps", torch.zeros(()))

    @abstractmethod
    def weights(self) -> Float[Tensor, "value"]:
        """How much each loss counts; 1 before the first step."""

    @abstractmethod
    def gradient(self, losses: Float[Tensor, "value"], norms: Float[Tensor, "value"]) -> Float[Tensor, "value"]:
        """Of what the balance minimises by `learned`.

        Args:
            losses: of a step, unweighted.
            norms: of their gradients, unweighted.
        """

    def learn(self, losses: Float[Tensor, "value"], norms: Float[Tensor, "value"]) -> None:
        """A step of Adam."""
        gradient = self.gradient(losses, norms)
        self.steps += 1
        self.means.lerp_(gradient, 0.1)
        self.squares.lerp_(gradient**2, 0.001)
        mean, square = self.means / (1 - 0.9**self.steps), self.squares / (1 - 0.999**self.steps)
        self.learned -= self.rate * mean / (square.sqrt() + 1e-8)


class GradNorm(Balance):
    """Every loss is to pull as hard as it lags behind (Chen et al. 2018, arXiv:1711.02257).

    Minimised is sum_i |w_i g_i - c_i|, where g_i is the norm of loss i's gradient and the constant c_i = mean(w g) *
    r_i^1.5, r_i being how much of its first value loss i still has, over the mean of that. The weights are the number
    of losses times softmax(learned): positive, and of mean 1, as the paper's are after its renormalisation.
    """

    asymmetry: ClassVar[float] = 1.5  # the paper's alpha, on its dense predictions
    first: Tensor

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.register_buffer("first", torch.zeros(count))

    def weights(self) -> Float[Tensor, "value"]:
        return len(self.learned) * self.learned.softmax(0)

    def gradient(self, losses: Float[Tensor, "value"], norms: Float[Tensor, "value"]) -> Float[Tensor, "value"]:
        if not self.steps:
            self.first.copy_(losses)
        left = losses / self.first
        weights = self.weights()
        pulls = weights * norms
        above = torch.sign(pulls - pulls.mean() * (left / left.mean()) ** self.asymmetry)
        slope = above * pulls  # by log w; through the softmax:
        return slope - weights / len(weights) * slope.sum()


class Uncertainty(Balance):
    """A loss counts by how well it can be fitted (Kendall et al. 2018, arXiv:1705.07115, of a likelihood by softmax).

    Minimised is sum_i exp(-s_i) L_i + s_i / 2, s_i being the logarithm of the loss's variance, which is learned. At its
    minimum a loss counts 1 / (2 L_i).
    """

    def weights(self) -> Float[Tensor, "value"]:
        return (-self.learned).exp()

    def gradient(self, losses: Float[Tensor, "value"], norms: Float[Tensor, "value"]) -> Float[Tensor, "value"]:
        return 0.5 - self.weights() * losses


BALANCES: dict[str, type[Balance]] = {"gradnorm": GradNorm, "uncertainty": Uncertainty}
"""How losses are balanced; with `fixed` each counts 1."""


class Balanced(nn.Module):
    """The mean of a loss over sites, in which the losses of sites that share an indexer are balanced.

    Args:
        kind: of the balance.
        of: number of each site's indexer.
        parameters: of each indexer, by its number.
    """

    def __init__(self, kind: type[Balance], of: Sequence[int], parameters: Sequence[list[nn.Parameter]]) -> None:
        super().__init__()
        self.sites = {n: [site for site, own in enumerate(of) if own == n] for n in sorted(set(of))}
        self.parameters_of = parameters
        self.shared = nn.ModuleDict({str(n): kind(len(sites)) for n, sites in self.sites.items() if len(sites) > 1})
        self.seen: dict[str, tuple[Tensor, Tensor]] = {}

    def balances(self) -> list[tuple[int, Balance]]:
        """Those there are, with the number of the indexer that the losses teach."""
        return [(int(name), one) for name, one in self.shared.items() if isinstance(one, Balance)]

    def mean(self, losses: Sequence[Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """Its value is the plain mean, its gradient that of the weighted losses' mean.

        Args:
            losses: of all sites, in their order; what the balances learn from, until they do.
        """
        weighted = list(losses)
        for number, balance in self.balances():
            own = [losses[site] for site in self.sites[number]]
            found = torch.stack(own).detach(), torch.stack([self.pull(number, loss) for loss in own])
            before = self.seen.get(str(number))
            self.seen[str(number)] = found if before is None else (before[0] + found[0], before[1] + found[1])
            for site, weight in zip(self.sites[number], balance.weights(), strict=True):
                weighted[site] = losses[site] * weight
        taught = torch.stack(weighted).mean()
        return taught + (torch.stack(list(losses)).mean() - taught).detach()

    def pull(self, number: int, loss: Float[Tensor, ""]) -> Float[Tensor, "value"]:
        """The gradient of a loss by all of an indexer's parameters."""
        parameters = self.parameters_of[number]
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        pairs = zip(found, parameters, strict=True)
        return torch.cat([torch.zeros_like(p).flatten() if x is None else x.flatten() for x, p in pairs])

    def learn(self, total: Total, parts: int) -> dict[int, float]:
        """The balances learn from the step that is over.

        Args:
            total: over the processes of the run.
            parts: in which the batch came, over all processes.

        Returns: how much the losses of the sites that share an indexer counted in the step, by number of the site.
        """
        counted: dict[int, float] = {}
        for number, balance in self.balances():
            losses, pulls = (total(x) / parts for x in self.seen.pop(str(number)))
            counted |= dict(zip(self.sites[number], balance.weights().tolist(), strict=True))
            balance.learn(losses, pulls.norm(dim=1))
        return counted
