"""A step recorded once and replayed: on a GPU one launch instead of some 250.

Small nets leave a GPU waiting for the next kernel. A CUDA graph holds all kernels of a step, so
that the host has nothing to do between two steps but to say which images come next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from searchae.training.step import EagerStep

log = logging.getLogger(__name__)

Run = Callable[[], None]
Record = Callable[[Run], Run]
"""Takes what is to be recorded, and returns what replays it, on the same tensors."""

_WARM_UP = 3
_TOLERANCE = 0.1


class RecordedStep:
    """The eager step, replayed wherever a batch is full; see ``Step``.

    Before a recording is used, one of its steps is compared with an eager one. Where it differs,
    or cannot be made, all goes on eagerly, with a warning.

    Args:
        eager: What is recorded.
        batch_size: Images in a full batch; other batches are run eagerly.
        record: How; ``cuda_graph`` on a GPU.
    """

    def __init__(self, eager: EagerStep, *, batch_size: int, record: Record) -> None:
        self._eager, self._batch_size, self._record = eager, batch_size, record
        self._recordings: dict[bool, _Recording | None] = {}

    def __call__(self, indices: Tensor, *, noise: Tensor | None) -> Tensor:
        """See ``Step``."""
        if len(indices) != self._batch_size:
            return self._eager(indices, noise=noise)
        noisy = noise is not None
        if noisy not in self._recordings:
            self._recordings[noisy] = self._recorded(indices, noise)
        recording = self._recordings[noisy]
        if recording is None:
            return self._eager(indices, noise=noise)
        return recording(indices, noise)

    def _recorded(self, indices: Tensor, noise: Tensor | None) -> _Recording | None:
        state, weights = self._eager.tensors(), self._eager.weights()
        before, start = _copies(state), _copies(weights)
        expected = self._eager(indices, noise=noise).clone()
        wanted = _copies(weights)
        _put(state, before)
        try:
            recording = _Recording(self._eager, indices, noise)
            recording.replay = self._record(recording.run)
            _put(state, before)  # making a recording may take steps
            found = recording(indices, noise).clone()
            same = _alike(found, expected, start=start, wanted=wanted, got=weights)
        except RuntimeError as e:  # a full memory too: the eager step has just fitted
            _put(state, before)
            log.warning("a step could not be recorded (%s): training goes on without", e)
            return None
        _put(state, before)
        if not same:
            log.warning("a recorded step differs from a plain one: training goes on without")
            return None
        return recording


class _Recording:
    """Inputs and result of a recorded step, which stay where they are."""

    def __init__(self, eager: EagerStep, indices: Tensor, noise: Tensor | None) -> None:
        self._eager = eager
        self._indices = indices.clone()
        self._noise = None if noise is None else noise.clone()
        self._mse = torch.zeros((), device=indices.device)
        self.replay: Run | None = None

    def run(self) -> None:
        self._mse.copy_(self._eager(self._indices, noise=self._noise))

    def __call__(self, indices: Tensor, noise: Tensor | None) -> Tensor:
        self._indices.copy_(indices)
        if self._noise is not None and noise is not None:
            self._noise.copy_(noise)
        assert self.replay is not None
        self.replay()
        return self._mse


def cuda_graph(run: Run, *, device: torch.device) -> Run:
    """Records ``run`` in a CUDA graph, as torch's notes on CUDA graphs describe it.

    Args:
        run: Reads and writes the same tensors each time and waits for nothing. It is run a few
            times first, so that libraries choose their algorithms outside the recording.
        device: Where those tensors are.
    """
    with torch.cuda.device(device):
        return _captured(run)


def _captured(run: Run) -> Run:
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def _copies(tensors: list[Tensor]) -> list[Tensor]:
    return [t.detach().clone() for t in tensors]


@torch.no_grad()
def _put(tensors: list[Tensor], values: list[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def _alike(
    found: Tensor, expected: Tensor, *, start: list[Tensor], wanted: list[Tensor], got: list[Tensor]
) -> bool:
    """Whether two steps from the same weights went the same way.

    Not to the bit: a library may choose other algorithms, and Adam's first steps turn the sign of
    a gradient of nearly nothing into a whole step.
    """
    if not torch.allclose(found, expected, rtol=1e-2):
        return False
    return _distance(got, wanted) <= _TOLERANCE * _distance(wanted, start)


def _distance(these: list[Tensor], those: list[Tensor]) -> float:
    squares = [(a - b).double().square().sum() for a, b in zip(these, those, strict=True)]
    return float(torch.stack(squares).sum().sqrt())
