"""Chapter 10b: wrong answers, and what the checks say of them."""

WARM_UP = """
    class WarmUp(Schedule):
        def __init__(self, n):
            self.n = n

        def begin(self, run):
            super().begin(run)
            {}

        def rate(self, first, k):
            return first * {}
    """
START, RATE = "run.optimizer.lr = self.rate(self.first, 0)", "min(1, (k + 1) / self.n)"

WRONG = {
    "answers": {
        "an equal loss is not better": "answers = [3, 2, 8, 8, 8, 8, 0.4, 0.341421, 0.2, 0.0585786, 0]",
        "a patience of p ends with the p-th epoch in vain": (
            "answers = [6, 4, 8, 8, 8, 8, 0.4, 0.341421, 0.2, 0.0585786, 0]"
        ),
        "the wave begins with k = 0": "answers = [3, 2, 7, 4, 8, 8, 0.341421, 0.2, 0.0585786, 0, 0.0585786]",
        "not yet: expected the shape (11,), got (6,)": "answers = [3, 2, 7, 4, 8, 8]",
        "not yet, and no mistake that is known here": "answers = [3, 2, 7, 4, 8, 8, 0.4, 0.3, 0.2, 0.1, 0]",
    },
    "WarmUp": {
        "the first epoch is not slow: begin": WARM_UP.format("pass", RATE),
        "an epoch late: k epochs are done": WARM_UP.format("run.optimizer.lr /= self.n", "min(1, k / self.n)"),
        "k epochs are done, so the next is k + 1": WARM_UP.format(START, "min(1, k / self.n)"),
        "it starts over after a resume: k is not run.epoch": WARM_UP.format(START, RATE)
        + """
        def on_epoch_end(self, run):
            super().on_epoch_end(run)
            run.optimizer.lr = self.rate(self.first, run.epoch)
    """,
        "not yet, and no mistake that is known here": WARM_UP.format("run.optimizer.lr = 0.05", "min(1, (k + 1) / 4)"),
        "not yet: AttributeError: 'WarmUp' object has no attribute 'start'": WARM_UP.format(START, "self.start"),
    },
    "watching": {
        "an honest judge: no step sees these rows": "watching = val_x, val_t",
        "an honest judge: most of these rows no step sees": "watching = x, target",
        "not yet: ValueError: batches: expected as many targets as inputs, 30, got 9": "watching = few_x, few_t[:9]",
    },
}

LINES = ["run.optimizer.lr = self.rate(self.first, self.epochs)", "return self.waited >= self.patience"]
