"""What holds for all tests."""

from hypothesis import settings

settings.register_profile("minidl", deadline=None)  # a busy machine is slow, and not wrong
settings.load_profile("minidl")
