"""What the suites of checks share: how to demand, how to report, and the checks that hold for any object."""
