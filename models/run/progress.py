"""What a person at a terminal, or a log file, sees of the training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import keras

from models.run.unit_counts import PREFIX

# Metrics of an epoch's line behind those of the task, if the logs have them:
# name, format, unit.
_COLUMNS = (
    ("bits_per_element", "{:.2f}", "bits/element"),
    ("zero_fraction", "{:.1%}", "zeros"),
    ("zero_rows", "{:.1%}", "zero rows"),
    ("zero_columns", "{:.1%}", "zero columns"),
)
_TERMINAL_SECONDS = 0.2
_LOG_SECONDS = 10.0


class Progress(keras.callbacks.Callback):
    """One line per epoch, and between them where the epoch stands.

    On a terminal one line is written over and over; elsewhere a new line
    comes every ten seconds, for logs are no place for carriage returns.

    Args:
      epochs: number of epochs of the whole run.
      steps_per_epoch: number of steps of an epoch.
      batch_size: units of a step, of all workers together.
      write: takes text, such as `sys.stdout.write`.
      is_terminal: whether `write` writes to one.
      first_epoch: number of epochs done before this call of `fit`.
      steps: number of steps of the whole run; None is all epochs.
      unit: what the rate counts.
      columns: (metric, format) of what the task measures.
    """

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        batch_size: int,
        write: Callable[[str], object],
        is_terminal: bool = False,
        first_epoch: int = 0,
        steps: int | None = None,
        unit: str = "images",
        columns: Sequence[tuple[str, str]] = (),
    ):
        super().__init__()
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.batch_size = batch_size
        self.steps = steps or epochs * steps_per_epoch
        self._rate = f"{unit}_per_second"
        self._columns = (
            *((name, form, "") for name, form in columns),
            (self._rate, "{:,.0f}", f"{unit}/s"),
            *_COLUMNS,
        )
        self._write = write
        self._is_terminal = is_terminal
        self._interval = _TERMINAL_SECONDS if is_terminal else _LOG_SECONDS
        self._first_step = self._done = first_epoch * steps_per_epoch
        self._width = 0
        self._begin = self._epoch_begin = self._shown = 0.0

    def on_train_begin(self, logs=None):
        self._begin = time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch_begin = self._shown = time.perf_counter()
        self._name = f"epoch {epoch + 1}/{self.epochs}"

    def on_train_batch_end(self, batch, logs=None):
        self._done += 1
        now = time.perf_counter()
        if now - self._shown < self._interval:
            return
        self._shown = now
        step = (self._done - 1) % self.steps_per_epoch + 1
        seconds = now - self._epoch_begin
        logs = dict(logs or {})
        logs[self._rate] = step * self.batch_size / seconds
        self._line(
            f"{self._name}  step {step}/{self.steps_per_epoch}  "
            + self._text(logs),
            stays=False,
        )

    def on_epoch_end(self, epoch, logs=None):
        self._line(f"{self._name}  " + self._text(logs or {}), stays=True)

    def _text(self, logs: dict) -> str:
        parts = []
        for name, form, unit in self._columns:
            if name in logs:
                # A unit says what the number is; a name is needed otherwise.
                value = form.format(float(logs[name]))
                parts.append(f"{value} {unit}" if unit else f"{name} {value}")
        units = [str(n) for key, n in logs.items() if key.startswith(PREFIX)]
        if units:
            parts.append(f"{'-'.join(units)} units")
        left = self.steps - self._done
        if left > 0:
            elapsed = time.perf_counter() - self._begin
            per_step = elapsed / (self._done - self._first_step)
            parts.append(f"{_duration(left * per_step)} left")
        return "  ".join(parts)

    def _line(self, text: str, stays: bool) -> None:
        if not self._is_terminal:
            self._write(f"{text}\n")
            return
        self._write("\r" + text.ljust(self._width) + ("\n" if stays else ""))
        self._width = 0 if stays else len(text)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{seconds:02d}"
    return f"{minutes}:{seconds:02d}"
