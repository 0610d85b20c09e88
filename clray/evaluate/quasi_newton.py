"""L-BFGS for many problems at once: of the last steps of each to the direction of its next one.

Knows neither the functions that are minimised nor when they are.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MEMORY = 5


class Pairs:
    """The last steps of each lane, and what each step did to its gradient.

    The estimated inverse of the Hessian is written as products with all steps at once (Byrd, Nocedal and Schnabel,
    Math. Programming 63, 1994, theorem 2.2, with H_0 = gamma I), since these are few operations for all lanes; the two
    loops of the textbooks are some forty. Each pair is divided by the root of its curvature, so that D there is I.
    """

    def __init__(self, like: Float[Tensor, "lanes dim"]) -> None:
        lanes, dim = like.shape
        self.pairs = like.new_zeros(lanes, 2, MEMORY, dim)
        # R, which is each step times its own change, 1, and those after it; and all changes times all.
        self.products = like.new_zeros(lanes, 2, MEMORY, MEMORY)
        self.products[:, 0].diagonal(dim1=1, dim2=2).fill_(1)
        self.gamma = like.new_ones(lanes, 1, 1)
        self.place = 0

    def times_inverse(self, gradient: Float[Tensor, "lanes dim"]) -> Float[Tensor, "lanes dim"]:
        """The estimated inverse of the Hessian times the gradient."""
        column, pairs = gradient[..., None], self.pairs.flatten(1, 2)
        of_steps, of_changes = (pairs @ column).split(MEMORY, dim=1)
        inverse = torch.linalg.inv(self.products[:, 0])
        p = inverse @ of_steps
        q = inverse.mT @ (p + self.gamma * (self.products[:, 1] @ p - of_changes))
        return (self.gamma * column + pairs.mT @ torch.cat([q, -self.gamma * p], dim=1))[..., 0]

    def add(self, step: Float[Tensor, "lanes dim"], change: Float[Tensor, "lanes dim"]) -> None:
        """A step and what it did to the gradient; without curvature, as where a lane did not move, it says nothing."""
        curvature = torch.linalg.vecdot(step, change)
        tells = curvature > 1e-12
        new = torch.stack([step, change], dim=1) * torch.where(tells, curvature.rsqrt(), 0)[:, None, None]
        self.pairs[:, :, self.place] = new
        products = (self.pairs.flatten(1, 2) @ new[:, 1, :, None]).view(-1, 2, MEMORY)
        self.gamma = torch.where(tells[:, None, None], 1 / products[:, 1:, self.place, None], self.gamma)
        self.products[..., self.place] = products
        self.products[:, 1, self.place] = products[:, 1]
        self.products[:, 0, self.place] = 0
        self.products[:, 0, self.place, self.place] = 1
        self.place = (self.place + 1) % MEMORY

    def rescale(self, ratio: Float[Tensor, "lanes dim"]) -> None:
        """Go over to coordinates that are `ratio` times the former, in which the first guess is the identity."""
        self.pairs = torch.stack([self.pairs[:, 0] * ratio[:, None], self.pairs[:, 1] / ratio[:, None]], dim=1)
        self.products[:, 1] = self.pairs[:, 1] @ self.pairs[:, 1].mT
        self.gamma = torch.ones_like(self.gamma)

    def keep(self, lanes: Bool[Tensor, " lanes"]) -> None:
        self.pairs, self.products, self.gamma = self.pairs[lanes], self.products[lanes], self.gamma[lanes]
