"""Many minimisers side by side, and one pass of the model for all of them.

A minimiser such as scipy's asks for the value at one point after the other, while a model is fastest when it is
asked for many points at once. Here each minimiser runs in a thread of its own until it asks, and waits. When
all of them wait, the caller's thread answers all questions together, and on they run. What a minimiser is
answered, and in which order, is what it would be alone; only the caller's thread touches the model.

Between two rounds every thread sends exactly one message, a question or its end. Counting the messages is all
the synchronisation there is.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Outcome = TypeVar("Outcome")


def in_lockstep(
    jobs: Sequence[Callable[[Callable[[Question], Answer]], Outcome]],
    answer: Callable[[list[Question]], Sequence[Answer]],
    *,
    width: int,
) -> list[Outcome]:
    """Run ``jobs``, at most ``width`` at a time, and answer the questions of all that run together.

    Args:
        jobs: each is called in a thread of its own with ``ask``, which gives the answer to a question, and may
            call it in that thread only. Grad mode and the like belong to a thread: jobs leave the model to
            ``answer``.
        answer: from the questions of one round, at least one and at most ``width``, in the order of the jobs,
            to their answers; called in the caller's thread.
        width: how many jobs run at a time, at least 1. When one ends, the next takes its place before the
            questions are answered.

    Returns:
        What the jobs returned, in their order.

    Raises:
        BaseException: what a job or ``answer`` raised, or an interrupt; of several jobs that fail before the
            same round, what the first of them raised. All threads have ended by then: a job that waits, or
            asks later, leaves through an exception that ``except Exception`` does not catch.
        ValueError: ``answer`` did not give one answer to each question, or ``width`` is below 1.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1, not {width}")
    messages: SimpleQueue[None] = SimpleQueue()
    running: dict[int, _Runner[Question, Answer, Outcome]] = {}
    outcomes: dict[int, Outcome] = {}
    entered = awaited = 0
    try:
        while len(outcomes) < len(jobs):
            while entered < len(jobs) and len(running) < width:
                runner = running[entered] = _Runner(f"lockstep-{entered}", jobs[entered], messages)
                entered += 1
                awaited += 1
                runner.start()
            for _ in range(awaited):
                messages.get()
            awaited = 0
            failed = [runner for runner in running.values() if runner.failure]
            if failed:
                raise failed[0].failure[0]
            ended = [number for number, runner in running.items() if runner.outcome]
            for number in ended:
                running[number].join()
                outcomes[number] = running.pop(number).outcome[0]
            if ended:
                continue
            answers = answer([runner.question.pop() for runner in running.values()])
            for runner, given in zip(running.values(), answers, strict=True):
                runner.answers.put([given])
            awaited = len(running)
        return [outcomes[number] for number in range(len(jobs))]
    finally:
        for runner in running.values():
            runner.answers.put([])
        for runner in running.values():
            with suppress(RuntimeError):  # it never started
                runner.join()


class _Stop(BaseException):
    """Ends a job whose lockstep has ended."""


class _Runner(threading.Thread, Generic[Question, Answer, Outcome]):
    """The thread of one job. Its lists hold one entry or none, and change hands with a message.

    Attributes:
        question: what it asks.
        outcome: what the job returned.
        failure: what it raised.
        answers: what it is answered, or an empty list to end it.
    """

    def __init__(
        self,
        name: str,
        job: Callable[[Callable[[Question], Answer]], Outcome],
        messages: "SimpleQueue[None]",
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.question: list[Question] = []
        self.outcome: list[Outcome] = []
        self.failure: list[BaseException] = []
        self.answers: SimpleQueue[list[Answer]] = SimpleQueue()
        self._job = job
        self._messages = messages

    def run(self) -> None:
        """Do the job."""
        try:
            with suppress(_Stop):
                self.outcome.append(self._job(self._ask))
        except BaseException as failure:
            self.failure.append(failure)
        finally:
            self._messages.put(None)

    def _ask(self, question: Question) -> Answer:
        self.question.append(question)
        self._messages.put(None)
        given = self.answers.get()
        if not given:
            self.answers.put([])
            raise _Stop
        return given[0]
