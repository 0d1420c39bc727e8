import collections
import json
import os
import pathlib

import pytest

import jailtest


@pytest.fixture(scope="session", autouse=True)
def network():
    """The whole test process lives in a network namespace of its own."""
    jailtest.own_network()


class Results:
    """What the run of one file says about the services that it puts to work: the file's SERVES names them, and by which
    clients. contrib/service-table makes README's table of all such results."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.serves = {}
        self.outcomes = collections.defaultdict(dict)

    def pytest_collection_modifyitems(self, items):
        for item in items:
            self.serves[item.nodeid.split("::")[0]] = getattr(item.module, "SERVES", {})

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid.split("::")[0]][report.nodeid] = report.outcome

    def pytest_sessionfinish(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        for file, outcomes in self.outcomes.items():
            counted = collections.Counter(outcomes.values())
            result = {"file": pathlib.Path(file).name, "serves": self.serves.get(file, {}), **counted}
            (self.folder / (pathlib.Path(file).stem + ".json")).write_text(json.dumps(result, indent=1) + "\n")


def pytest_configure(config):
    if folder := os.environ.get("JAIL_RESULTS"):
        config.pluginmanager.register(Results(folder))
