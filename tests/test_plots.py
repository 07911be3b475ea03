"""The figure helpers: they draw what they say, and close what they open."""

import matplotlib
import matplotlib.pyplot as plt
import pandas
import pytest
import torch

from minidl import History, circle
from minidl.plots import figure, plot_history, plot_pairs, plot_points, plot_region, plot_spread, show


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


def ends(container):
    """(x, low, high) of each bar of an errorbar."""
    (bars,) = container.lines[2]
    return [(low[0], low[1], high[1]) for low, high in bars.get_segments()]


@pytest.mark.parametrize("kinds", [(0.1, 0.5), ("tanh", "ReLU")], ids=["numbers", "words"])
def test_spread_has_a_dot_a_row_and_a_bar_a_group(kinds):
    _, ax = figure()
    errors = [0.10, 0.20, 0.30, 0.05, 0.07]
    table = pandas.DataFrame({"kind": [kinds[0]] * 3 + [kinds[1]] * 2, "test_error": errors, "train_error": 0.5})
    plot_spread(ax, table, "kind", label="here")
    dots, (bars,) = ax.lines[0], ax.containers
    assert list(dots.get_ydata()) == pytest.approx([100 * e for e in errors])
    at = kinds if isinstance(kinds[0], float) else (0, 1)  # words stand in the order of the table
    (x0, low0, high0), (x1, low1, high1) = ends(bars)
    assert (x0, x1) == at
    assert (low0, high0) == pytest.approx((10, 30)) and (low1, high1) == pytest.approx((6 - 2**0.5, 6 + 2**0.5))
    assert list(bars.lines[0].get_ydata()) == pytest.approx([20, 6])
    assert ax.get_xlabel() == "kind" and ax.get_ylabel() == "test error, %" and bars.get_label() == "here"
    plot_spread(ax, table, "kind", "train_error")
    assert list(ax.containers[1].lines[0].get_ydata()) == pytest.approx([50, 50])


@pytest.mark.parametrize("kind", [list, torch.tensor, pandas.Series])
def test_pairs_in_order_with_their_interval(kind):
    _, ax = figure()
    plot_pairs(ax, kind([0.01, -0.03, -0.01]), (-0.02, 0.005))
    dots, mean, zero = ax.lines
    assert list(dots.get_xdata()) == [1, 2, 3] and list(dots.get_ydata()) == pytest.approx([-3, -1, 1])
    assert mean.get_ydata()[0] == pytest.approx(-1) and zero.get_ydata()[0] == 0
    (band,) = ax.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((-2, 0.5))
    assert ax.get_ylabel() == "difference, points"
