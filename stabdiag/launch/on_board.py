"""`run --tensorboard`: the run in TensorBoard while it is recorded, written by the supervisor."""

from __future__ import annotations

from pathlib import Path

from stabdiag.core.diagnosis import Diagnosis
from stabdiag.core.run import Run
from stabdiag.launch.listener import Listener
from stabdiag.render.dashboard import load_dashboard
from stabdiag.render.tensorboard import Board
from stabdiag.store.directory import BOARD

A_LOOK = 20_000
"""Numbers that one look at the run writes, about 0.2 s of a core; a curve keeps its extremes."""


class OnBoard(Listener):
    """Writes what is new at each look into `tensorboard/` in the run directory."""

    name = "--tensorboard"

    def __init__(self) -> None:
        self._board: Board | None = None

    def began(self, run_dir: Path) -> None:
        self._board = Board(run_dir / BOARD, load_dashboard(), A_LOOK)

    def looked(self, run: Run, diagnosis: Diagnosis) -> None:
        if self._board is not None:
            self._board.add(run)
            self._board.tell(run, diagnosis)
            self._board.flush()

    def ended(self, run: Run, diagnosis: Diagnosis) -> None:
        if self._board is not None:
            self._board.add(run, ended=True)
            self._board.tell(run, diagnosis, ended=True)
            self._board.close()
