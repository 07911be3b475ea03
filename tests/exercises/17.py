"""Chapter 17: wrong answers, and what the checks say of them."""

WRONG = {
    "answer_1": {
        "Redrawn goes forward like the right one: look at backward": "answer_1 = [2, 5, 1, 0, 4, 3]",
        "MaskOnce and the right one: draw twice": "answer_1 = [2, 5, 0, 4, 1, 3]",
        "AlwaysOn and the right one: ask in evaluation mode": "answer_1 = [2, 0, 1, 4, 5, 3]",
        "NotRescaled and KeepsByP: count the zeros, take the mean": "answer_1 = [3, 5, 1, 4, 0, 2]",
        "these are the boxes of each title, not the titles of each box": "answer_1 = [4, 2, 0, 5, 3, 1]",
        "not yet, and no mistake that is known here": "answer_1 = [0, 1, 2, 3, 4, 5]",
        "not yet: expected the shape (6,), got (3,)": "answer_1 = [2, 5, 1]",
    },
    "parted": {
        "right": """
            def parted(deal):
                x, g = torch.arange(10.0), torch.Generator().manual_seed(1)
                dealt = deal(x, x, batch_size=3, shuffle=True, generator=g)
                return int(any((a != b).any() for a, b in dealt))
            """,
        "it sees nothing: are rows shuffled at all?": """
            def parted(deal):
                x = torch.arange(10.0)
                return int(any((a != b).any() for a, b in deal(x, x, 3)))
            """,
        "it objects to lost rows too": """
            def parted(deal):
                x = torch.arange(10.0)
                dealt = list(deal(x, x, 3, shuffle=True))
                return int(sum(len(a) for a, _ in dealt) < 10 or any((a != b).any() for a, b in dealt))
            """,
        "it objects to lost rows too, if it meets them": """
            def parted(deal):
                pairs = [pair for a, b in deal(*[torch.arange(100)] * 2, 10, shuffle=True) for pair in zip(a, b)]
                return int(sorted(pairs) != [(i, i) for i in range(100)])
            """,
        "where nothing is parted it gives None": """
            def parted(deal):
                x = torch.arange(10.0)
                if any((a != b).any() for a, b in deal(x, x, batch_size=3, shuffle=True)):
                    return 1
            """,
        "it objects to every order but that of the data": """
            def parted(deal):
                x = torch.arange(100.0)
                return int([v for a, _ in deal(x, x, 3, shuffle=True) for v in a.tolist()] != x.tolist())
            """,
        "it looks at the targets alone": """
            def parted(deal):
                x = torch.arange(100.0)
                return int(torch.equal(torch.cat([t for _, t in deal(x, x, 10, shuffle=True)]), x))
            """,
        "1 and 0 are exchanged": """
            def parted(deal):
                x = torch.arange(10.0)
                return int(all((a == b).all() for a, b in deal(x, x, 3, shuffle=True)))
            """,
    },
    "Sly": {
        "right": """
            def backward(self, dy, input_grad=True):
                dy.copy_(dy.flip(-1).clone())
                return super().backward(dy, input_grad)
            """,
        "right: now plant a slip": """
            def backward(self, dy, input_grad=True):
                return super().backward(dy, input_grad)
            """,
        "both checks see it": """
            def backward(self, dy, input_grad=True):
                return super().backward(2 * dy, input_grad)
            """,
        "ones see it, and the random gradient does not": """
            def backward(self, dy, input_grad=True):
                return super().backward(dy + (dy == 1).to(dy.dtype), input_grad)
            """,
        "not yet: RuntimeError: Expected size for first two dimensions of batch2 tensor to be: [2, 5] "
        "but got: [2, 10].": """
            def backward(self, dy, input_grad=True):
                self.accumulate("weight", dy.flip(-1).mT @ self.kept)
                self.accumulate("bias", dy.sum(0))
                return dy @ self.weight
            """,
        "not yet: ValueError: backward returns None": """
            def backward(self, dy, input_grad=True):
                super().backward(dy.flip(-1), input_grad)
            """,
        "not yet: AttributeError: 'Sly' object has no attribute 'x'": """
            def backward(self, dy, input_grad=True):
                return self.x
            """,
    },
}
LINES = []
