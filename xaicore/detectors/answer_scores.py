r"""Scores of the network's answer alone: what any detector has to be better than.

With the logits :math:`z` of K classes. Nothing needs to be fitted for the scores, but for a threshold. An attack that
goes on until the network is sure makes an image *less* suspicious than clean ones by all three.
"""

import abc

from torch import Tensor

from xaicore.detectors.base import Detector


class AnswerScore(Detector):
    """A score that depends on the logits alone; other arguments and attributes are those of every detector."""

    differentiable = True

    @staticmethod
    @abc.abstractmethod
    def of(logits: Tensor) -> Tensor:
        """Return the scores (N,) of logits (N, K), differentiable."""

    def _score(self, images: Tensor) -> Tensor:
        return self.of(self._logits(images).cpu().double())


class MaxSoftmax(AnswerScore):
    r"""How improbable the most probable class is: :math:`-\log \max_k \mathrm{softmax}(z)_k`, in nats, from 0 to log K.

    The logarithm keeps the order of the probabilities, and tells those apart that round to 1: it is
    :math:`\log(1 + \sum_{k} e^{z_k - z_{(1)}})` over all classes but the first.

    References:
        Hendrycks and Gimpel, A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural Networks,
        ICLR 2017.
    """

    @staticmethod
    def of(logits: Tensor) -> Tensor:
        """Return the scores (N,) of logits (N, K)."""
        ordered = logits.sort(dim=1, descending=True).values
        return (ordered[:, 1:] - ordered[:, :1]).exp().sum(1).log1p()


class Margin(AnswerScore):
    r"""How little the first logit leads the second, :math:`z_{(2)} - z_{(1)}`, at most 0."""

    @staticmethod
    def of(logits: Tensor) -> Tensor:
        """Return the scores (N,) of logits (N, K)."""
        first, second = logits.topk(2, dim=1).values.unbind(1)
        return second - first


class Energy(AnswerScore):
    r"""The free energy :math:`-\log \sum_k e^{z_k}`, at a temperature of 1.

    References:
        Liu, Wang, Owens and Li, Energy-based Out-of-distribution Detection, NeurIPS 2020, Eq. 4.
    """

    @staticmethod
    def of(logits: Tensor) -> Tensor:
        """Return the scores (N,) of logits (N, K)."""
        return -logits.logsumexp(1)
