"""minidl: a small deep-learning framework, derived by hand in the notebooks of `chapters/`."""

from minidl import init
from minidl.activations import ELU, SELU, LeakyReLU, ReLU, Sigmoid, Tanh
from minidl.callbacks import (
    Callback,
    ClipGradNorm,
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
from minidl.module import Chain, Module, Part, Sequential
from minidl.optim import SGD, Adam, AdamW, Optimizer
from minidl.replicas import Copies, Each, each, measure_each, own, predict_each, stack, unstack
from minidl.sweeps import bootstrap, choose, describe, grid, seeds_needed, sweep
from minidl.train import History, accuracy, error_rate, fit, predict, summary

__version__ = "0.1.0"

__all__ = [
    *("Chain", "Dropout", "Linear", "Module", "Part", "Sequential"),
    *("ELU", "LeakyReLU", "ReLU", "SELU", "Sigmoid", "Tanh"),
    *("BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "L1Loss", "MSELoss"),
    *("Adam", "AdamW", "Optimizer", "SGD", "init"),
    *("History", "accuracy", "error_rate", "fit", "load", "predict", "save", "summary"),
    *("Callback", "ClipGradNorm", "CosineAnnealingLR", "EarlyStopping"),
    *("RestartWhenStuck", "Statistics", "StepLR", "clip_grad_norm_"),
    *("Copies", "Each", "each", "measure_each", "own", "predict_each", "stack", "unstack"),
    *("bootstrap", "choose", "describe", "grid", "seeds_needed", "sweep"),
    *("batches", "circle", "one_hot", "split", "standardize"),
    *("check_close", "gradcheck", "numeric_grad"),
]
