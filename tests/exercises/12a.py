"""Chapter 12a: wrong answers, and what the checks say of them."""

WRONG = {
    "answer_1": {
        "the output has an axis of networks, too": "answer_1 = [35, 90, 30]",
        "the table has a row for each loss": "answer_1 = [105, 30, 30]",
        "no path leads from a loss to another network's weight": "answer_1 = [105, 90, 90]",
        "that is one network's part; each loss has its own block": "answer_1 = [105, 90, 10]",
        "not yet, and no mistake that is known here": "answer_1 = [105, 90, 45]",
    },
    "norms": {
        "squares: the root is missing": """
            def norms(tensors):
                return sum(t.flatten(1).square().sum(1) for t in tensors)
            """,
        "lengths were added: add squares, one root at the end": """
            def norms(tensors):
                return sum(t.flatten(1).norm(dim=1) for t in tensors)
            """,
        "one length for the whole stack": """
            def norms(tensors):
                return sum(t.square().sum() for t in tensors).sqrt().expand(3)
            """,
        "not yet, and no mistake that is known here": """
            def norms(tensors):
                return sum(t.flatten(1).sum(1) for t in tensors)
            """,
    },
    "answer_3": {
        "gradients are right before they are clipped": "answer_3 = [1, 1, 0, 0]",
        "(b): a network's step hangs on its neighbours": "answer_3 = [1, 1, 1, 1]",
        "(a): each network has a length of its own": "answer_3 = [1, 0, 1, 0]",
        "gradcheck cannot see what comes after backward": "answer_3 = [0, 1, 0, 0]",
        "not yet, and no mistake that is known here": "answer_3 = [0, 1, 0, 1]",
    },
}
LINES = ["lengths = [g.flatten(1).norm(dim=1) for g in grads]"]
