"""What TensorFlow raises where another worker is lost, and what it raises otherwise."""

from __future__ import annotations

import pytest
import tensorflow as tf

from tlkit.errors import TrainingError
from tlkit.exchange import lost_workers_told

RESTARTED = (
    "RecvBuf expects a different device incarnation: 7 vs. 8. Your worker job "
    '("/job:worker/replica:0/task:1") was probably restarted. Check your worker job for the reason.'
)
ABORTED = "Collective ops is aborted by: connection reset by peer\nThe error could be from a previous op."
LOST = [
    tf.errors.UnavailableError(None, None, "failed to connect to all addresses"),
    tf.errors.AbortedError(None, None, ABORTED),
    tf.errors.CancelledError(None, None, "Cancelled"),
    tf.errors.FailedPreconditionError(None, None, RESTARTED),
    tf.errors.FailedPreconditionError(
        None, None, "Device a current incarnation doesn't match with one in the group."
    ),
    tf.errors.DeadlineExceededError(None, None, "Collective has timed out waiting for other workers."),
]
OTHER = [
    tf.errors.FailedPreconditionError(None, None, "Could not find variable dense/kernel."),
    tf.errors.FailedPreconditionError(None, None, "/data/a.tfrecord; Is a directory"),
    tf.errors.DeadlineExceededError(None, None, "Timed out while reading /data/a.tfrecord"),
    tf.errors.InvalidArgumentError(None, None, "Incompatible shapes"),
]


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
def test_a_lost_worker_is_told(error):
    with pytest.raises(TrainingError, match="Another worker stopped") as caught, lost_workers_told():
        raise error
    assert "\n" not in str(caught.value)
    assert ("(connection reset by peer)" in str(caught.value)) == (error.message == ABORTED)


@pytest.mark.parametrize("error", OTHER, ids=lambda error: type(error).__name__)
def test_what_has_another_cause_stays_as_it_is(error):
    with pytest.raises(type(error)) as caught, lost_workers_told():
        raise error
    assert caught.value is error


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
def test_who_runs_alone_has_lost_nobody(error):
    with pytest.raises(type(error)), lost_workers_told(several=False):
        raise error
