"""Training steps recorded in a CUDA graph and replayed: one launch instead of about 250.

With small nets a GPU waits for the host to launch the next kernel. A CUDA graph holds all kernels
of a step, so that the host has only to copy the indices of the next images.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from searchae.training.draws import NO_DRAWS, StepDraws
from searchae.training.step import EagerStep

log = logging.getLogger(__name__)

Run = Callable[[], None]
Record = Callable[[Run], Run]
"""Records a function's work and returns a function that replays it on the same tensors."""

_WARM_UP = 3  # runs before the recording
_TOLERANCE = 0.1  # difference of two updates, relative to the update's size


class RecordedStep:
    """A ``Step`` that replays a recording of an eager step for every full batch.

    Before a recording is used, one of its steps is compared with an eager one. If they differ, or
    if no recording can be made, all batches run eagerly, and a warning is logged.

    Args:
        eager: The step to record.
        batch_size: Images in a full batch; batches of another size run eagerly.
        record: How to record; ``cuda_graph`` on a GPU.
    """

    def __init__(self, eager: EagerStep, *, batch_size: int, record: Record) -> None:
        self._eager, self._batch_size, self._record = eager, batch_size, record
        self._recordings: dict[frozenset[str], _Recording | None] = {}
        self._constants = eager.constants

    def __call__(self, indices: Tensor, draws: StepDraws = NO_DRAWS) -> Tensor:
        """See ``Step``."""
        if len(indices) != self._batch_size:
            return self._eager(indices, draws)
        if self._constants != self._eager.constants:  # a recording holds their values
            self._constants = self._eager.constants
            self._recordings.clear()
        kinds = frozenset(draws.given())  # not always the same: noise may begin after some epochs
        if kinds not in self._recordings:
            self._recordings[kinds] = self._make_recording(indices, draws)
        recording = self._recordings[kinds]
        if recording is None:
            return self._eager(indices, draws)
        return recording(indices, draws)

    def _make_recording(self, indices: Tensor, draws: StepDraws) -> _Recording | None:
        state, weights = self._eager.tensors(), self._eager.weights()
        before, start = _copies(state), _copies(weights)
        expected = self._eager(indices, draws).clone()
        wanted = _copies(weights)
        _restore(state, before)
        try:
            recording = _Recording(self._eager, indices, draws)
            recording.replay = self._record(recording.run)
            _restore(state, before)  # recording may have run steps
            found = recording(indices, draws).clone()
            same = _steps_agree(found, expected, start=start, wanted=wanted, got=weights)
        except RuntimeError as e:  # out of memory too: the eager step did fit
            _restore(state, before)
            log.warning("a step could not be recorded (%s): training goes on without", e)
            return None
        _restore(state, before)
        if not same:
            log.warning("a recorded step differs from a plain one: training goes on without")
            return None
        return recording


class _Recording:
    """A recorded step with its input and result tensors, whose addresses must not change."""

    def __init__(self, eager: EagerStep, indices: Tensor, draws: StepDraws) -> None:
        self._eager = eager
        self._indices = indices.clone()
        self._draws = {name: tensor.clone() for name, tensor in draws.given().items()}
        self._mse = torch.zeros((), device=indices.device)
        self.replay: Run | None = None

    def run(self) -> None:
        """Runs the step eagerly on the input tensors; this is what is recorded."""
        self._mse.copy_(self._eager(self._indices, StepDraws(**self._draws)))

    def __call__(self, indices: Tensor, draws: StepDraws) -> Tensor:
        """Replays the step on new input."""
        self._indices.copy_(indices)
        for name, tensor in draws.given().items():
            self._draws[name].copy_(tensor)
        assert self.replay is not None
        self.replay()
        return self._mse


def cuda_graph(run: Run, *, device: torch.device) -> Run:
    """Records a function in a CUDA graph, as the PyTorch documentation describes it.

    See "CUDA Graphs" in https://pytorch.org/docs/stable/notes/cuda.html.

    Args:
        run: Reads and writes the same tensors each time and never synchronizes. It is run a few
            times first, so that libraries choose their algorithms before the recording.
        device: The CUDA device of those tensors.

    Returns:
        A function that replays the work of ``run``.
    """
    with torch.cuda.device(device):
        return _captured(run, _recording_stream(torch.cuda.current_device()))


@cache
def _recording_stream(device: int) -> torch.cuda.Stream:
    """Returns the stream that all recordings on a device are made on.

    It is always the same: for each stream that cuBLAS has run on, torch keeps a workspace until the
    process ends, of 32 MiB on an H100.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _captured(run: Run, stream: torch.cuda.Stream) -> Run:
    outside = torch.cuda.current_stream()
    graph = torch.cuda.CUDAGraph()
    stream.wait_stream(outside)
    try:
        # The outer block makes ``outside`` current again. ``torch.cuda.graph`` alone does not when
        # the recording fails.
        with torch.cuda.stream(outside):
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP):
                    run()
            # Not on torch's own stream for recordings, which is the first device's.
            with torch.cuda.graph(graph, stream=stream):
                run()
    finally:
        # After a failure too: what has been started here writes to the weights, which the caller
        # then restores.
        outside.wait_stream(stream)
    return graph.replay


def _copies(tensors: list[Tensor]) -> list[Tensor]:
    return [t.detach().clone() for t in tensors]


@torch.no_grad()
def _restore(tensors: list[Tensor], values: list[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def _steps_agree(
    found: Tensor, expected: Tensor, *, start: list[Tensor], wanted: list[Tensor], got: list[Tensor]
) -> bool:
    """Whether two steps from the same weights had the same result, up to ``_TOLERANCE``.

    They need not be equal to the bit: libraries may choose other algorithms, and Adam's first
    steps turn the sign of a tiny gradient into a full step.

    Args:
        found: The recorded step's loss.
        expected: The eager step's loss.
        start: The weights before the steps.
        wanted: The weights after the eager step.
        got: The weights after the recorded step.
    """
    if not torch.allclose(found, expected, rtol=1e-2):
        return False
    return _distance(got, wanted) <= _TOLERANCE * _distance(wanted, start)


def _distance(these: list[Tensor], those: list[Tensor]) -> float:
    squares = [(a - b).double().square().sum() for a, b in zip(these, those, strict=True)]
    return float(torch.stack(squares).sum().sqrt())
