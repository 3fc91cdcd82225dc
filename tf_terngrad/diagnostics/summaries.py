"""Records of diagnostics as TensorBoard summaries."""

import numpy as np
import tensorflow as tf
from tensorboard.plugins.histogram import metadata

from tf_terngrad.diagnostics import measure, records


def write(writer: tf.summary.SummaryWriter, record: dict) -> None:
    """Writes histograms and scalars of one record.

    Tags: `gradients_<kind>/<variable>` (histograms), `zero_fraction/...`,
    `scaler/...`, `sigma/...`, `clipping_length_ratio/...`,
    `clipping_angle/...` (degrees) for each variable, and `bounds/<bound>` over
    all of them.

    Args:
        writer: From `tf.summary.create_file_writer`.
        record: From `records.make`.
    """
    # Another callback may have turned summaries off for this step.
    with writer.as_default(int(record["step"])), tf.summary.record_if(True):
        for i, name in enumerate(record["names"]):
            for kind in records.KINDS:
                _histogram(
                    f"gradients_{kind}/{name}",
                    record[f"{kind}_counts"][i],
                    record[f"{kind}_limit"][i],
                )
            for tag, key in (
                ("zero_fraction", "zero_fraction"),
                ("average_zero_fraction", "average_zero_fraction"),
                ("scaler", "scaler"),
                ("sigma", "sigma"),
                ("clipping_length_ratio", "length_ratio"),
                ("clipping_angle", "angle"),
            ):
                tf.summary.scalar(f"{tag}/{name}", record[key][i])
        totals = record["bounds"].sum(axis=1)
        for bound, total in zip(measure.BOUNDS, totals, strict=True):
            tf.summary.scalar(f"bounds/{bound}", total)
        tf.summary.scalar(
            "clipping_length_ratio/all", record["total_length_ratio"]
        )
        tf.summary.scalar("clipping_angle/all", record["total_angle"])
    writer.flush()


def _histogram(tag, counts, limit) -> None:
    """A histogram that is counted already: rows (left, right, count)."""
    edges = np.linspace(-limit, limit, counts.size + 1)
    tf.summary.write(
        tag,
        tf.constant(np.stack([edges[:-1], edges[1:], counts], 1), tf.float64),
        metadata=metadata.create_summary_metadata(None, None),
    )
