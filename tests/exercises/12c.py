"""Chapter 12c: wrong answers, and what the checks say of them."""

WRONG = {
    "answer_1": {
        "nobody needs the gradient for the data": "answer_1 = [37_800_000, 48, 200 / (200 + 1890)]",
        "backward has two products for each layer": "answer_1 = [12_600_000, 48, 200 / (200 + 630)]",
        "only the inner layers grow a hundredfold": "answer_1 = [40_000_000, 48, 200 / (200 + 2000)]",
        "a call does not know how large its matrices are": "answer_1 = [37_750_000, 480, 200 / (200 + 1887.5)]",
        "each layer has more than one call": "answer_1 = [37_750_000, 8, 200 / (200 + 1887.5)]",
        "the share of the two together: divide by their sum": "answer_1 = [37_750_000, 48, 200 / 1887.5]",
        "that share is the arithmetic's": "answer_1 = [37_750_000, 48, 1887.5 / (200 + 1887.5)]",
        "the share is in percent": "answer_1 = [37_750_000, 48, 20_000 / (200 + 1887.5)]",
        "not yet: expected the shape (3,), got (2,)": "answer_1 = [37_750_000, 48]",
        "not yet, and no mistake that is known here": "answer_1 = [4_000_000, 48, 0.5]",
    },
    "tanh_back": {
        "right, but by PyTorch's own kernel: do it in two calls": """
            def tanh_back(y, dy):
                return torch.ops.aten.tanh_backward(dy, y)
            """,
        "right": """
            from minidl.activations import ONE
            def tanh_back(y, dy):
                return ONE.to(y).addcmul(y, y, value=-1).mul_(dy)
            """,
        "right numbers, three calls": """
            def tanh_back(y, dy):
                return torch.ones_like(y).addcmul_(y, y, value=-1).mul_(dy)
            """,
        "right numbers, four calls": """
            def tanh_back(y, dy):
                return dy * (torch.ones_like(y) - y * y)
            """,
        "dy was overwritten, and it is the caller's": """
            def tanh_back(y, dy):
                return dy.addcmul_(dy * y, y, value=-1)
            """,
        "dy was overwritten, and that in three calls": """
            def tanh_back(y, dy):
                return dy.mul_(1 - y * y)
            """,
        "not yet: ValueError: y was overwritten, and the next layer has it": """
            def tanh_back(y, dy):
                return torch.addcmul(dy, dy, y.square_(), value=-1)
            """,
        "y is the output: it needs no second tanh": """
            def tanh_back(y, dy):
                return dy * (1 - y.tanh().square())
            """,
        "dy is missing": """
            def tanh_back(y, dy):
                return 1 - y * y
            """,
        "not yet, and no mistake that is known here": """
            def tanh_back(y, dy):
                return dy * y
            """,
    },
    "answer_3": {
        "the one column of the target was spread over both of the output": "answer_3 = [100, 2]",
        "gradients are added until zero_grad": "answer_3 = [200, 1]",
        "neither is right: look at both again": "answer_3 = [100, 1]",
        "not yet, and no mistake that is known here": "answer_3 = [200, 4]",
    },
}
