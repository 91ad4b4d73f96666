"""Settings shared by all tests."""

from hypothesis import HealthCheck, settings

# The first call of a kernel compiles it, so no example has a deadline; the same examples run every time.
settings.register_profile(
    "fastdil",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("fastdil")
