"""Settings that all tests share."""

from hypothesis import HealthCheck, settings

# The same examples on every machine and in every run; nothing is stored between runs.
settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, max_examples=40,
    suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")
