"""A model belongs to the thread and the process that made it, and gives one turn at a time."""

import os
import threading

import pytest

from offline_tune.errors import UsageError
from offline_tune.llm.request import Turns


def test_one_turn_follows_another():
    turns = Turns()
    with turns.take():
        pass
    with turns.take():
        pass


def test_a_turn_within_a_turn_is_refused_and_the_first_goes_on():
    turns = Turns()
    with turns.take():
        with pytest.raises(
            UsageError, match="a model must be idle to be called, got one in the middle of a call; wait"
        ):
            with turns.take():
                pass
        with pytest.raises(
            UsageError, match="a model must be idle to be closed, got one in the middle of a call; wait"
        ):
            turns.refuse_within("closed")


def test_a_turn_that_fails_gives_way_to_the_next():
    turns = Turns()
    with pytest.raises(ValueError, match="within"), turns.take():
        raise ValueError("within")
    with turns.take():
        pass


def test_another_thread_is_refused_even_while_the_owner_is_idle():
    turns, said = Turns(), []

    def call():
        try:
            with turns.take():
                said.append("taken")
        except UsageError as error:
            said.append(str(error))

    thread = threading.Thread(target=call, name="other")
    thread.start()
    thread.join()
    (message,) = said
    assert message.startswith("a model must be called by the thread that loaded it, got thread 'other'; load one model")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_is_refused():
    """It has the thread's identity, but none of llama.cpp's other threads."""
    turns = Turns()
    child = os.fork()
    if child == 0:
        try:
            with turns.take():
                os._exit(1)
        except UsageError:
            os._exit(0)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
