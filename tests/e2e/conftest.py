import pytest

import jailtest


@pytest.fixture(scope="session", autouse=True)
def network():
    """The whole test process lives in a network namespace of its own."""
    jailtest.own_network()
