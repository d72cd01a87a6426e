"""What the tests of all suites share: classes that are broken on purpose, and the assertion that their check fails."""

import pytest

from skdfb.testing._parametrize import _SUITES


class BrokenClasses:
    """A register of classes, each broken in one way, with the check that must fail for it.

    Parameters
    ----------
    run : callable
        The public function of the suite, such as ``check_fusion``.
    """

    def __init__(self, run):
        self.run, self.suite = run, _SUITES[run]
        self.prefix = f"check_{self.suite.kind}_"
        self.cases = []
        self.every = [check.__name__.removeprefix(self.prefix) for check in self.suite.checks]

    def __call__(self, check, message, *also):
        """Register a class for which a check must fail with a message; the checks in ``also`` may fail, too."""

        def register(broken):
            others = {self.prefix + name for name in also}
            name = f"{check}-{broken.__name__}"
            self.cases.append(pytest.param(broken, self.prefix + check, message, others, id=name))
            return broken

        return register

    def assert_found(self, instance, check, message, also):
        """Assert that the check fails with the message, and that no others fail but those in ``also``."""
        results = {result["check_name"]: result for result in self.run(instance, on_fail=None)}
        assert results[check]["status"] == "failed"
        with pytest.raises(type(results[check]["exception"]), match=message) as raised:
            raise results[check]["exception"]
        if raised.type is AssertionError:
            assert str(raised.value).startswith(type(instance).__name__)
        failed = {name for name, result in results.items() if result["status"] == "failed"}
        assert failed <= {check} | also, "other checks must test other things"

    def assert_every_check_can_fail(self):
        """Assert that each check of the suite has a class for which it fails."""
        assert {case.values[1] for case in self.cases} == {check.__name__ for check in self.suite.checks}


def names_of(run, instance):
    """Names of the checks that apply to an instance."""
    return [result["check_name"] for result in run(instance, on_fail=None)]


def statuses_of(run, instance):
    """Status of each check by its name."""
    return {result["check_name"]: result["status"] for result in run(instance, on_fail=None)}
