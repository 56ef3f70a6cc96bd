"""One Hypothesis profile, one thread a process, and no reading of the user's home."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before anything loads an OpenMP runtime

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "offline_tune", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("offline_tune")


@pytest.fixture(scope="session", autouse=True)
def short_trainings():
    """Networks learn little in 12 epochs, but the same; worker processes train as long as ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("offline_tune.evaluator.families.neural.MOST_EPOCHS", 12)
        patch.setattr("offline_tune.evaluator.families.neural.LEAST_EPOCHS", 12)
        yield


@pytest.fixture(scope="session", autouse=True)
def isolated_home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def one_thread():
    """Networks train with one thread of torch."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
