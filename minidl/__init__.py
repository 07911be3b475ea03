"""minidl: a small deep-learning framework, derived by hand in the notebooks of `chapters/`."""

from minidl import init
from minidl.activations import ELU, SELU, LeakyReLU, ReLU, Sigmoid, Tanh
from minidl.callbacks import (
    CosineAnnealingLR,
    EarlyStopping,
    RestartWhenStuck,
    Statistics,
    StepLR,
    clip_grad_norm_,
    load,
    save,
)
from minidl.checks import check_close, gradcheck, numeric_grad
from minidl.data import batches, circle, one_hot, split, standardize
from minidl.dropout import Dropout
from minidl.linear import Linear
from minidl.losses import BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, L1Loss, MSELoss
from minidl.module import Module, Sequential
from minidl.optim import SGD, Adam, AdamW, Optimizer
from minidl.replicas import bootstrap, choose, describe, grid, seeds_needed, stack, sweep, unstack
from minidl.train import History, accuracy, error_rate, fit, predict, summary

__version__ = "0.1.0"

__all__ = [
    *("Dropout", "Linear", "Module", "Sequential"),
    *("ELU", "LeakyReLU", "ReLU", "SELU", "Sigmoid", "Tanh"),
    *("BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "L1Loss", "MSELoss"),
    *("Adam", "AdamW", "Optimizer", "SGD", "init"),
    *("History", "accuracy", "error_rate", "fit", "load", "predict", "save", "summary"),
    *("CosineAnnealingLR", "EarlyStopping", "RestartWhenStuck", "Statistics", "StepLR", "clip_grad_norm_"),
    *("bootstrap", "choose", "describe", "grid", "seeds_needed", "stack", "sweep", "unstack"),
    *("batches", "circle", "one_hot", "split", "standardize"),
    *("check_close", "gradcheck", "numeric_grad"),
]
