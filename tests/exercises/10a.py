"""Chapter 10a: wrong answers, and what the checks say of them."""

HALVE = """
    class Halve:
        def __init__(self, n):
            self.n = n

        def on_epoch_end(self, run):
            {}
    """

WRONG = {
    "counts": {
        "the rest of the rows is a batch, too": "counts = [2250, 3500, 4, 15]",
        "the rest of the rows is a batch, too; the factor forgets it as well": "counts = [2250, 3500, 4, 900 / 56]",
        "these are the steps of one epoch": "counts = [9, 15, 4, 15]",
        "the factor: compare shares, of the batches and of the rows": "counts = [2250, 3750, 4, 16]",
        "not yet, and no mistake that is known here": "counts = [2250, 3750, 36, 15]",
    },
    "Halve": {
        "halved after every epoch": HALVE.format("run.optimizer.lr /= 2"),
        "halved once only: after *each* n epochs": HALVE.format("run.optimizer.lr /= 1 + (run.epoch == self.n)"),
        "after epoch 1, 1 + n, ...: epochs count from 1": HALVE.format(
            "run.optimizer.lr /= 1 + ((run.epoch - 1) % self.n == 0)"
        ),
        "an epoch late": HALVE.format("run.optimizer.lr /= 1 + (run.epoch > 1 and run.epoch % self.n == 1)"),
        "one first rate for all: halve the rate that is there": HALVE.format(
            "run.optimizer.lr = 0.4 * 0.5 ** (run.epoch // self.n)"
        ),
        "halved after 10 epochs, whatever n is": HALVE.format("run.optimizer.lr /= 1 + (run.epoch % 10 == 0)"),
        "not yet, and no mistake that is known here": HALVE.format("run.optimizer.lr = 0.1"),
        "not yet: ValueError: a training was stopped: return nothing": HALVE.format("return True"),
    },
    "one_class_at_a_time": {
        "each row's number must be there once: argsort, not sort": """
            def one_class_at_a_time(target):
                return target.argmax(-1).sort().values
            """,
        "the last loss is not small: do the rows of a class stand together?": """
            def one_class_at_a_time(target):
                return torch.randperm(len(target))
            """,
    },
}

LINES = ["for run.epoch in range(1, epochs + 1):", "run.optimizer.step()"]
