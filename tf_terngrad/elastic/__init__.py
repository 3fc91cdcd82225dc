"""Training that goes on when workers are lost or added."""

from tf_terngrad.elastic.commit import Commit
from tf_terngrad.elastic.run import run
from tf_terngrad.elastic.state import State, WorkersChanged

__all__ = ["Commit", "State", "WorkersChanged", "run"]
