"""Hypothesis draws anew at every run, but for CI, where the same commit gets the same answer."""

import os

from hypothesis import settings

pytest_plugins = ["pytester"]

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
