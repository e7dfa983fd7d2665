"""in_lockstep: order, company, and no thread left behind however it ends."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from xaicore.attacks import lockstep
from xaicore.attacks.lockstep import in_lockstep

Ask = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def counting(number: int, rounds: int) -> Callable[[Ask], tuple[int, list[int]]]:
    """Asks ``rounds`` times, each time for the double of what it was told last."""

    def job(ask: Ask) -> tuple[int, list[int]]:
        told = [number]
        for _ in range(rounds):
            told.append(ask((number, told[-1])))
        return number, told

    return job


def expected(number: int, rounds: int) -> tuple[int, list[int]]:
    return number, [number * 2**i for i in range(rounds + 1)]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 11, 40])
@pytest.mark.parametrize("width", [1, 4, 100])
def test_every_job_gets_its_own_answers(count: int, width: int) -> None:
    lengths = [(7 * number) % 5 for number in range(count)]
    seen: list[list[int]] = []

    def answer(questions: list[tuple[int, int]]) -> list[int]:
        assert threading.current_thread() is threading.main_thread()
        seen.append([number for number, _ in questions])
        return [2 * value for _, value in questions]

    jobs = [counting(number, rounds) for number, rounds in enumerate(lengths)]
    outcomes = in_lockstep(jobs, answer, width=width)
    assert outcomes == [expected(number, rounds) for number, rounds in enumerate(lengths)]
    assert all(1 <= len(numbers) <= width for numbers in seen)
    assert all(numbers == sorted(set(numbers)) for numbers in seen)
    asked = [number for numbers in seen for number in numbers]
    assert [asked.count(number) for number in range(count)] == lengths


def test_passes_are_full_while_jobs_are_left() -> None:
    lengths = [5, 1, 3, 0, 2, 4, 1, 6, 0, 2]
    sizes: list[int] = []

    def answer(questions: list[tuple[int, int]]) -> list[int]:
        sizes.append(len(questions))
        return [0] * len(questions)

    in_lockstep([counting(0, rounds) for rounds in lengths], answer, width=3)
    left = [*lengths]
    entered: list[int] = []
    wanted = []
    while True:  # the definition: those present that still ask, then the next in line
        entered = [job for job in entered if left[job]]
        while len(entered) < 3 and sum(x > 0 for x in left) > len(entered):
            entered.append(next(job for job in range(10) if left[job] and job not in entered))
        if not entered:
            break
        wanted.append(len(entered))
        for job in entered:
            left[job] -= 1
    assert sizes == wanted


def test_rounds_are_the_same_every_time() -> None:
    def rounds() -> list[list[tuple[int, int]]]:
        seen: list[list[tuple[int, int]]] = []

        def job(number: int) -> Callable[[Ask], int]:
            def run(ask: Ask) -> int:
                value = number
                while value % 5:
                    time.sleep(1e-4 * ((value * 7919) % 5))
                    value = ask((number, value))
                return value

            return run

        def answer(questions: list[tuple[int, int]]) -> list[int]:
            seen.append(questions)
            return [value + 3 for _, value in questions]

        in_lockstep([job(number) for number in range(12)], answer, width=4)
        return seen

    first = rounds()
    assert all(rounds() == first for _ in range(5))


def test_jobs_run_side_by_side() -> None:
    barrier = threading.Barrier(4, timeout=20)

    def job(ask: Ask) -> int:
        return barrier.wait() + ask(0)

    assert sorted(in_lockstep([job] * 4, lambda questions: [10] * len(questions), width=4)) == [
        10,
        11,
        12,
        13,
    ]


def test_a_failing_job_ends_all() -> None:
    ended: list[int] = []

    def job(number: int) -> Callable[[Ask], None]:
        def run(ask: Ask) -> None:
            try:
                for step in range(100):
                    with suppress(Exception):
                        ask(number)
                    if step == 2 and number in (3, 5):
                        time.sleep(0.01 * (6 - number))
                        raise ZeroDivisionError(f"job {number}")
            finally:
                ended.append(number)

        return run

    rounds = 0

    def answer(questions: list[int]) -> list[int]:
        nonlocal rounds
        rounds += 1
        return questions

    with pytest.raises(ZeroDivisionError, match="job 3"):
        in_lockstep([job(number) for number in range(9)], answer, width=7)
    assert rounds == 3
    assert sorted(ended) == list(range(7))


@pytest.mark.parametrize("failure", [RuntimeError("boom"), KeyboardInterrupt(), SystemExit(3)])
def test_a_failing_answer_ends_all(failure: BaseException) -> None:
    def answer(questions: list[tuple[int, int]]) -> list[int]:
        if questions[0][1] > 8:
            raise failure
        return [2 * value for _, value in questions]

    with pytest.raises(type(failure)) as caught:
        in_lockstep([counting(number, 50) for number in range(1, 9)], answer, width=4)
    assert caught.value is failure


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C is heard also where a shell that runs this in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("where", ["model", "jobs"])
def test_ctrl_c(where: str) -> None:
    def job(number: int) -> Callable[[Ask], None]:
        def run(ask: Ask) -> None:
            for step in range(1000):
                if where == "jobs" and step == 5 and number == 1:
                    interrupt()
                    time.sleep(0.05)
                ask(step)

        return run

    def answer(questions: list[int]) -> list[int]:
        if where == "model" and questions[0] == 5:
            interrupt()
            time.sleep(1)
        return questions

    with pytest.raises(KeyboardInterrupt):
        in_lockstep([job(number) for number in range(5)], answer, width=3)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_again_does_not_wait_for_jobs_but_they_end() -> None:
    before = set(threading.enumerate())
    release = threading.Event()

    def job(ask: Ask) -> None:
        ask(0)
        interrupt()
        release.wait(20)
        interrupt()
        time.sleep(0.2)
        ask(1)

    threading.Timer(0.2, release.set).start()
    with pytest.raises(KeyboardInterrupt):
        in_lockstep([job], lambda questions: questions, width=1)
    deadline = time.perf_counter() + 20
    while set(threading.enumerate()) != before and time.perf_counter() < deadline:
        time.sleep(0.01)


def test_a_job_that_holds_on_is_ended_all_the_same() -> None:
    def job(ask: Ask) -> int:
        for _ in range(3):
            with suppress(BaseException):
                ask(1)
        return 0

    def answer(questions: list[int]) -> list[int]:
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        in_lockstep([job] * 3, answer, width=3)


@pytest.mark.parametrize("answers", [[], [1], [1, 2, 3]])
def test_one_answer_for_each_question(answers: list[int]) -> None:
    with pytest.raises(ValueError, match="zip"):
        in_lockstep([counting(number, 2) for number in range(2)], lambda _: answers, width=2)


def test_a_thread_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    real = lockstep._Runner.start

    def start(runner: Any) -> None:
        if runner.name == "lockstep-2":
            raise RuntimeError("can't start new thread")
        real(runner)

    monkeypatch.setattr(lockstep._Runner, "start", start)
    with pytest.raises(RuntimeError, match="can't start"):
        in_lockstep([counting(number, 9) for number in range(4)], lambda questions: questions, width=4)


def test_it_runs_in_any_thread_and_inside_itself() -> None:
    def outer(ask: Ask) -> int:
        inner = in_lockstep([counting(1, 3)] * 2, lambda questions: [2 * v for _, v in questions], width=2)
        return ask(inner[1][1][-1])

    assert in_lockstep([outer] * 3, lambda questions: [value + 1 for value in questions], width=2) == [
        9,
        9,
        9,
    ]


@pytest.mark.parametrize("width", [0, -1])
def test_width(width: int) -> None:
    with pytest.raises(ValueError, match="width must be at least 1"):
        in_lockstep([counting(1, 1)], lambda questions: questions, width=width)
