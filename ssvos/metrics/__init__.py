"""Metrics of predicted masks: region similarity J, contour accuracy F, and the protocols of the benchmarks."""

from ssvos.metrics.contour import contour_accuracy
from ssvos.metrics.davis import (
    evaluate_davis2016,
    evaluate_davis2017,
    evaluate_davis2017_unsupervised,
    score_sequence,
    summarize,
)
from ssvos.metrics.object_scores import PresenceMeans, SequenceScores, present_absent_means
from ssvos.metrics.region import region_similarity
from ssvos.metrics.youtube_vos import evaluate_youtube_vos

__all__ = [
    "PresenceMeans",
    "SequenceScores",
    "contour_accuracy",
    "evaluate_davis2016",
    "evaluate_davis2017",
    "evaluate_davis2017_unsupervised",
    "evaluate_youtube_vos",
    "present_absent_means",
    "region_similarity",
    "score_sequence",
    "summarize",
]
