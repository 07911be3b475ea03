"""The figure helpers: they draw what they say, and close what they open."""

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

from minidl import History, circle
from minidl.plots import figure, plot_history, plot_points, plot_region, show


@pytest.fixture(autouse=True)
def no_window():
    with matplotlib.rc_context():
        plt.switch_backend("agg")
        yield
    plt.close("all")


def test_figures_are_shown_with_words_and_closed(capsys):
    fig, axes = figure(2, 3, width=2)
    assert axes.shape == (2, 3) and tuple(fig.get_size_inches()) == (6, 6)
    show(fig, "nothing yet")
    assert plt.get_fignums() == []


def test_points_and_the_true_circle():
    _, ax = figure()
    x, label = circle(100)
    plot_points(ax, x, label)
    inside, outside = ax.lines
    assert len(inside.get_xdata()) == label.sum() and len(outside.get_xdata()) == (1 - label).sum()
    assert ax.patches[0].radius == pytest.approx((2 * torch.pi) ** -0.5)


def test_history_with_and_without_validation():
    for history, lines in ((History([2.0, 1.0], [0.5, 0.2]), 1), (History([1.0], [0.2], [1.1], [0.3]), 2)):
        _, axes = figure(1, 2)
        plot_history(axes, history)
        assert [len(ax.lines) for ax in axes] == [lines, lines]
        assert list(axes[0].lines[0].get_ydata()) == history.loss


def test_region_is_drawn_where_the_classifier_says_one():
    _, ax = figure()
    plot_region(ax, lambda p: (p[:, 0] > 0.6).long(), points=21)
    [path] = [path for c in ax.collections for path in c.get_paths() if len(path.vertices)]
    assert path.vertices[:, 0].min() > 0.5 and path.vertices[:, 0].max() == 1
