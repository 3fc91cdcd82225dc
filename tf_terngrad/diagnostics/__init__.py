"""What clipping and ternarizing do to the gradients of a run.

`tg.callbacks.GradientDiagnostics` measures and records while a model trains;
`python -m tf_terngrad.diagnostics --workdir=RUN` draws the records.
"""

from tf_terngrad.diagnostics import measure, records, summaries

__all__ = ["measure", "records", "summaries"]
