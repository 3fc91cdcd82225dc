"""Starts training again when workers are lost or added."""

import functools

from absl import logging

from tf_terngrad import collectives, numbering
from tf_terngrad.elastic.state import State, WorkersChanged


def run(train):
    """Decorates a train function so that it survives a change of workers.

    It is called once, and again after each change, with the state of the last
    commit; `tg.size()` and `tg.rank()` are then others. What depends on them
    belongs inside it: shards of the data, `tf.function`s, process sets, scaled
    learning rates. Keras' own train function is made again. No collective may
    run before it, as workers that join later would wait for the others there.

    Needs `horovodrun --host-discovery-script`; started otherwise, it trains as
    ever, and a lost worker is the end.

    Args:
        train: Function of a `State`, and what else it is called with.

    Returns:
        The function; it returns what `train` returns.

    Raises:
        RuntimeError: This worker cannot join the others again.

    Example:
        state = tg.elastic.State(model)

        @tg.elastic.run
        def train(state):
            while state.epoch < 8:
                examples = dataset.shuffle(60000, seed=state.epoch)
                model.fit(
                    state.remaining(examples, batch_size=32),
                    initial_epoch=state.epoch,
                    epochs=state.epoch + 1,
                    callbacks=[tg.elastic.Commit(state, batch_size=32)])

        train(state)

    Departure from Horovod's own wrapper: errors of all of its ops count, those
    of others are raised; a loss while workers synchronize is survived too; and
    the state comes from a worker with the most commits, not from rank 0.
    """

    @functools.wraps(train)
    def wrapper(state, *args, **kwargs):
        if not isinstance(state, State):
            raise TypeError(
                "Invalid type for argument state. Expected tg.elastic.State. "
                f"Received: state={state!r}"
            )
        collectives.init()
        numbers = numbering.mark()
        with collectives.notices(state):
            while True:
                try:
                    state.sync()
                    return train(state, *args, **kwargs)
                except WorkersChanged:
                    logging.info("Workers join or leave.")
                except Exception as error:
                    if not (
                        collectives.is_elastic()
                        and collectives.says_workers_lost(error)
                    ):
                        raise
                    logging.warning(
                        "A worker was lost; going on from the last commit."
                    )
                    state.restore()
                state.forget_notices()
                collectives.rejoin()
                numbering.go_back(numbers)
                state.reset()

    return wrapper
