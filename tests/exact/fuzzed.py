"""Hypothesis at two depths."""

import pytest
from hypothesis import given, settings

depth = pytest.mark.depth


def fuzzed(*strategies, few=8, many=40):
    """Run a test on a few examples, and on many where it is marked `depth`."""

    def at_two_depths(test):
        @pytest.mark.parametrize("examples", [few, pytest.param(many, marks=depth)])
        def run(examples):
            settings(max_examples=examples)(given(*strategies)(test))()

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return at_two_depths
