"""minidl: a small deep-learning framework, derived by hand in the notebooks of `chapters/`."""

__version__ = "0.1.0"
