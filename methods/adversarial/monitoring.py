"""What a training notes about itself: monitors over time, and alarms, each said once."""

from __future__ import annotations

import csv
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from methods.adversarial.monitors import MonitorLog
from methods.adversarial.processes import rank

MONITORS = "monitors.csv"
ALARMS = "alarms.csv"


COLUMNS = ("iteration", "tap", "alarm")


class Monitoring:
    """The files ``monitors.csv`` and ``alarms.csv`` of a training's folder.

    Args:
        folder: where they are written; None writes none.
        resumed: whether the training continues one, whose rows up to its first step then stay.
    """

    def __init__(self, folder: Path | None, resumed: bool = False) -> None:
        self.folder = folder
        self.resumed = resumed
        self.latest: dict[str, dict[str, float]] = {}
        self.alarms: dict[tuple[str, str], dict[str, Any]] = {}
        self._log: MonitorLog | None = None

    def begin(self, step: int) -> None:
        """Open the files; only the first call does."""
        if self.folder is None or self._log is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._log = MonitorLog(self.folder / MONITORS, step - 1 if self.resumed else None)
        path = self.folder / ALARMS
        rows: list[dict[str, str]] = []
        if self.resumed and path.is_file():
            with path.open(newline="") as file:
                # Rows of later steps will be written again.
                rows = [row for row in csv.DictReader(file) if int(row["iteration"]) < step]
        with path.open("w", newline="") as file:
            csv.writer(file).writerow(COLUMNS)
        for row in rows:
            self._count(int(row["iteration"]), row["tap"], row["alarm"])

    def record(self, step: int, tap: str, monitors: Mapping[str, float]) -> None:
        """Write numbers measured in a step."""
        self.latest[tap] = {name: v for name, v in monitors.items() if not math.isnan(v)}
        if self._log is not None:
            self._log.write(step, monitors, tap)

    def alarm(self, step: int, tap: str, sentence: str) -> None:
        """Write something worrying down, and say it at its first time.

        Sentences that differ in numbers alone are the same alarm.
        """
        if self._count(step, tap, sentence) == 1 and rank() == 0:
            print(f"{tap}, step {step}: {sentence}", file=sys.stderr)

    def notes(self) -> dict[str, Any]:
        """For the weights' header: each alarm with its first and last step, and the monitors."""
        return {"alarms": list(self.alarms.values()), "monitors": self.latest}

    def _count(self, step: int, tap: str, sentence: str) -> int:
        """Note an alarm; returns how often it was raised."""
        kind = re.sub(r"[\d.]+", "", sentence)
        known = self.alarms.setdefault((tap, kind), {"tap": tap, "first": step, "times": 0})
        known |= {"last": step, "times": known["times"] + 1, "alarm": sentence}
        if self.folder is not None:
            with (self.folder / ALARMS).open("a", newline="") as file:
                csv.writer(file).writerow((step, tap, sentence))
        return int(known["times"])
