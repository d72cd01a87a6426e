"""Progress: bars and messages, which are seen when, and by whom."""

import logging

import pytest

from skdfb import _progress
from skdfb._progress import LaterWork, later_work, progress, progress_bar, say, warn_once


@pytest.fixture
def no_logging(monkeypatch):
    """A user who has configured no logging: pytest itself has."""
    monkeypatch.setattr(logging.getLogger("skdfb"), "propagate", False)


class TestBars:
    @pytest.mark.parametrize(("verbose", "is_long"), [(0, True), (1, False)])
    def test_hidden(self, verbose, is_long, capfd):
        with progress(verbose), progress_bar(3, "reading", is_long=is_long) as bar:
            bar.update(3)
        assert capfd.readouterr() == ("", "")

    def test_hidden_outside(self, capfd):
        with progress_bar(3, "reading") as bar:
            bar.update(3)
        assert list(progress_bar(2, over="ab")) == ["a", "b"]
        assert capfd.readouterr() == ("", "")

    def test_shown_on_standard_error(self, capfd):
        with progress(1), progress_bar(3, "reading", unit="step", initial=1) as bar:
            bar.update(2)
        out, err = capfd.readouterr()
        assert out == ""
        assert "reading: 100%" in err
        assert "3/3" in err
        assert "step" in err

    def test_over_something(self, capfd):
        with progress(True), progress_bar(2, "reading", over="ab") as bar:
            assert list(bar) == ["a", "b"]
        assert "2/2" in capfd.readouterr().err

    def test_the_outer_label_and_the_greatest_verbose_hold(self, capfd):
        with progress(1, "making the masks"), progress(0, "classifying"), progress_bar(1):
            pass
        with progress(0), progress(1, "classifying"), progress_bar(1):
            pass
        with progress(1), progress_bar(1):
            pass
        shown = capfd.readouterr().err
        for label in ("making the masks", "classifying", "running the network"):
            assert shown.count(f"{label}:") >= 1
        with progress_bar(1, "after"):
            pass
        assert capfd.readouterr().err == ""

    @pytest.mark.parametrize(
        ("environment", "shown"),
        [
            ({"TORCHELASTIC_RUN_ID": "a", "RANK": "0"}, True),
            ({"TORCHELASTIC_RUN_ID": "a", "RANK": "1"}, False),
            ({"RANK": "1"}, True),
        ],
    )
    def test_one_of_several_processes_speaks(self, environment, shown, monkeypatch, capfd, no_logging):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with progress(1), progress_bar(1, "reading"):
            say("a message")
        err = capfd.readouterr().err
        assert ("reading" in err) == ("a message" in err) == shown


class TestMessages:
    def test_they_are_logged(self, caplog):
        with caplog.at_level(logging.INFO, logger="skdfb"):
            say("a message")
        assert [(record.name, record.levelname, record.message) for record in caplog.records] == [
            ("skdfb", "INFO", "a message")
        ]

    @pytest.mark.usefixtures("no_logging")
    def test_without_logging_verbose_shows_them(self, capfd):
        say("unseen")
        with progress(1):
            say("a message")
        assert capfd.readouterr() == ("", "a message\n")

    def test_with_logging_they_are_seen_once(self, caplog, capfd):
        with caplog.at_level(logging.INFO, logger="skdfb"), progress(1):
            say("a message")
        assert caplog.messages == ["a message"]
        assert capfd.readouterr() == ("", "")

    def test_logging_of_warnings_only_is_no_reason_to_hide_what_verbose_shows(self, caplog, capfd):
        with caplog.at_level(logging.WARNING), progress(1):
            say("a message")
        assert caplog.messages == []
        assert capfd.readouterr().err == "a message\n"

    def test_a_warning_is_seen_without_verbose(self, caplog):
        warn_once("slow")
        assert [record.levelname for record in caplog.records] == ["WARNING"]

    def test_one_warning_in_each_outermost_block(self, caplog):
        for _ in range(2):
            with progress():
                warn_once("first")
                with progress(1, "inside"):
                    warn_once("second")
        assert caplog.messages == ["first", "first"]
        assert _progress._NOTHING.warned == []

    def test_quiet_is_quiet(self, caplog, capfd):
        with progress(0), progress_bar(1, "reading"):
            say("a message")
        assert caplog.messages == []
        assert capfd.readouterr() == ("", "")


def test_later_work():
    assert later_work(5, None) is None
    with progress(later=lambda n, network: LaterWork(n, 2 * n)), progress(1):
        assert later_work(5, None) == LaterWork(5, 10)
    assert later_work(5, None) is None


def test_the_setting_is_restored_after_an_error(capfd):
    with pytest.raises(ZeroDivisionError), progress(1):
        raise ZeroDivisionError
    with progress_bar(1, "after"):
        pass
    assert capfd.readouterr().err == ""
