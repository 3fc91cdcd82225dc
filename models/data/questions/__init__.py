"""Questions whose answers are spans of a text, in SQuAD's format."""

from models.data.questions.cloze import cloze
from models.data.questions.glove import read_vectors
from models.data.questions.span_metric import exact_match, f1, score
from models.data.questions.spans import SpanBatches
from models.data.questions.squad import Example, Skipped, read, read_json
from models.data.questions.vocabulary import Vocabulary

__all__ = [
    "Example",
    "Skipped",
    "SpanBatches",
    "Vocabulary",
    "cloze",
    "exact_match",
    "f1",
    "read",
    "read_json",
    "read_vectors",
    "score",
]
