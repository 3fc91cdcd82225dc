"""Training over several workers with gradients of three levels.

Reference: Wen et al., "TernGrad: Ternary Gradients to Reduce Communication in
Distributed Deep Learning", NIPS 2017.
"""

from tf_terngrad import callbacks, collectives, elastic
from tf_terngrad.agreement import check_agreement
from tf_terngrad.callbacks.learning_rate_warmup import scaled_learning_rate
from tf_terngrad.collectives import init, local_rank, local_size, rank, size
from tf_terngrad.error_feedback import ErrorFeedback
from tf_terngrad.exchange import exchange
from tf_terngrad.float_compression import FP16, NoCompression
from tf_terngrad.horovod_compression import Compression, HorovodTernGrad
from tf_terngrad.link import Link, measure_link
from tf_terngrad.local_workers import LocalWorkers
from tf_terngrad.optimizer import DistributedOptimizer
from tf_terngrad.sharpness import loss_line, plot_loss_line, sharpness
from tf_terngrad.smooth_out import SmoothOut, smooth
from tf_terngrad.tape import DistributedGradientTape
from tf_terngrad.ternary import clip, scaler, ternarize
from tf_terngrad.terngrad import TernGrad

__all__ = [
    "Compression",
    "DistributedGradientTape",
    "DistributedOptimizer",
    "ErrorFeedback",
    "FP16",
    "HorovodTernGrad",
    "Link",
    "LocalWorkers",
    "NoCompression",
    "SmoothOut",
    "TernGrad",
    "callbacks",
    "check_agreement",
    "clip",
    "collectives",
    "elastic",
    "exchange",
    "init",
    "local_rank",
    "local_size",
    "loss_line",
    "measure_link",
    "plot_loss_line",
    "rank",
    "scaled_learning_rate",
    "scaler",
    "sharpness",
    "size",
    "smooth",
    "ternarize",
]
