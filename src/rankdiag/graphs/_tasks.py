"""A task that needs two groups of vertices to interact: whether two images, spread over a graph, are of one class."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankdiag._array import as_float64, is_torch, refuse_size
from rankdiag._rng import as_generator
from rankdiag._validate import choice, describe, integer

__all__ = ["make_same_class_task", "same_class_graph", "same_class_layout"]

Layout = Literal["low", "high"]


def _even(patches: Any) -> int:
    count = integer(patches, "patches", low=2)
    if count % 2:
        raise ValueError(f"`patches` must be even, because half of an image goes to each clique; got {count}")
    return count


def same_class_layout(patches: int, layout: Layout) -> NDArray[np.int64]:
    """Return which chunk of which image each vertex of `same_class_graph` shows.

    Parameters
    ----------
    patches : int
        Chunks that each of the two images is cut into, even.
    layout : {"low", "high"}
        ``"low"`` puts one image on each clique; ``"high"`` mixes them: the first clique shows the first halves of both
        images in turn, the second clique the second halves, the second image first.

    Returns
    -------
    ndarray of int64, shape (2 * patches, 2)
        Row v holds the image (0 or 1) and the chunk at vertex v.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If `patches` is odd or below 2, or `layout` is neither word.

    Notes
    -----
    The partition under study is the vertices of one image against those of the other. With layout "low" one edge
    crosses it; with "high" nearly every edge does. With 16 chunks and depth 3 (walks of length 2) its walk index is
    548 and 8258.

    References
    ----------
    arXiv 2211.16494, section 4 and table 1.

    Examples
    --------
    >>> from rankdiag.graphs import same_class_layout
    >>> ["ab"[image] + str(chunk) for image, chunk in same_class_layout(4, "high").tolist()]
    ['a0', 'b0', 'a1', 'b1', 'b2', 'a2', 'b3', 'a3']
    """
    count = _even(patches)
    refuse_size(12 * count, "patches", (2 * count, 2))  # the layout and what it is made from
    place = np.arange(2 * count)
    if choice(layout, "layout", ("low", "high")) == "low":
        return np.stack((place // count, place % count), axis=1)
    image = (place % 2) ^ (place // count)  # the second clique starts with the second image
    return np.stack((image, place // 2), axis=1)


def same_class_graph(patches: int) -> NDArray[np.int64]:
    """Return the graph of the task: two cliques of `patches` vertices, joined by one edge.

    Parameters
    ----------
    patches : int
        Vertices of each clique, even.

    Returns
    -------
    ndarray of int64, shape (2, E)
        Columns in both directions, without self-loops, sorted by source and target. The first clique is 0 to
        ``patches - 1``; the joining edge is (0, patches).

    Raises
    ------
    TypeError
        If `patches` is no integer.
    ValueError
        If it is odd or below 2.

    References
    ----------
    arXiv 2211.16494, section 4.

    Examples
    --------
    >>> from rankdiag.graphs import same_class_graph
    >>> same_class_graph(2).tolist()
    [[0, 0, 1, 2, 2, 3], [1, 2, 0, 0, 3, 2]]
    """
    count = _even(patches)
    refuse_size(4 * count**2, "patches", (count,))
    joined = np.zeros((2 * count, 2 * count), bool)
    joined[:count, :count] = joined[count:, count:] = True
    joined[0, count] = joined[count, 0] = True
    np.fill_diagonal(joined, False)
    return np.stack(np.nonzero(joined)).astype(np.int64, copy=False)


def make_same_class_task(
    images: Any, labels: Any, n_pairs: int, *, patches: int, layout: Layout, rng: Any = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw pairs of images, half of them of one class, and spread them over the vertices of `same_class_graph`.

    Parameters
    ----------
    images : array-like or torch.Tensor, shape (N, ...)
        Images; each is flattened and cut into `patches` consecutive chunks.
    labels : array-like of int or str, shape (N,)
        Their classes.
    n_pairs : int
        Pairs to draw; ``n_pairs // 2`` of them are of one class.
    patches : int
        Chunks of an image, even; the number of pixels must divide by it.
    layout : {"low", "high"}
        Where the chunks go; see `same_class_layout`.
    rng : None, int or numpy.random.Generator
        Source of randomness; the same seed draws the same pairs in both layouts.

    Returns
    -------
    x : ndarray of float64, shape (n_pairs, 2 * patches, pixels / patches)
        Features of the vertices.
    y : ndarray of int64, shape (n_pairs,)
        1 if both images are of one class, else 0.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If lengths differ, pixels do not divide by `patches`, `patches` is odd, there are no two images of one class or
        of two classes where such pairs are needed, or the result would not fit into memory.

    Notes
    -----
    A pair is two different images; pairs are drawn with replacement and come in random order. The first image is
    uniform (among classes with at least two images, for a pair of one class), the second is uniform among those that
    fit. Split the images, not the pairs, into training and test sets.

    References
    ----------
    arXiv 2211.16494, section 4 and table 1.

    Examples
    --------
    >>> import numpy as np
    >>> from rankdiag.graphs import make_same_class_task
    >>> images = np.arange(32.0).reshape(4, 8)
    >>> x, y = make_same_class_task(images, [0, 0, 1, 1], 6, patches=4, layout="low", rng=0)
    >>> x.shape, int(y.sum())
    ((6, 8, 2), 3)
    """
    pixels = as_float64(images, "images", min_ndim=2, expected="images (N, ...)")
    number = len(pixels)
    pixels = pixels.reshape(number, -1)
    classes = _classes(labels, number)
    wanted = integer(n_pairs, "n_pairs", low=0)
    count = _even(patches)
    size = pixels.shape[1]
    if size % count:
        raise ValueError(f"`patches` must divide the number of pixels, {size}; got {count}")
    where = same_class_layout(count, layout)
    refuse_size(2 * wanted * size, "n_pairs", (wanted, 2 * count, size // count))
    generator, _ = as_generator(rng)
    same = wanted // 2
    pairs = np.concatenate((_draw(classes, same, True, generator), _draw(classes, wanted - same, False, generator)))
    mixed = generator.permutation(wanted)
    y = (mixed < same).astype(np.int64)
    x = pixels.reshape(number, count, -1)[pairs[mixed][:, where[:, 0]], where[:, 1]]
    return x, y


def _classes(labels: Any, number: int) -> NDArray[np.int64]:
    try:
        array = np.asarray(labels.detach().cpu().numpy() if is_torch(labels) else labels)
    except ValueError:
        raise ValueError("`labels` must hold one class for each image (N,); got rows of different lengths") from None
    except Exception as error:  # __array__ of a foreign type, or a tensor without plain data, may raise anything
        raise TypeError(f"`labels` must hold one class for each image (N,); got {describe(labels)}") from error
    if array.dtype.kind not in "biuUS":
        raise TypeError(f"`labels` must hold integers or names; got {describe(labels)} of dtype {array.dtype}")
    if array.shape != (number,):
        raise ValueError(f"`labels` must hold one class for each of the {number} images; got shape {array.shape}")
    return np.unique(array, return_inverse=True)[1].astype(np.int64, copy=False)


def _draw(classes: NDArray[np.int64], wanted: int, same: bool, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw pairs of different images, of one class or of two; the images stand sorted by class in a ring."""
    if not wanted:
        return np.zeros((0, 2), np.int64)
    number = len(classes)
    order = np.argsort(classes, kind="stable")
    sizes = np.bincount(classes)
    start = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    partners = sizes - 1 if same else number - sizes
    first = np.flatnonzero(partners[classes[order]] > 0)
    if not len(first):
        kind = "two images of one class" if same else "images of two classes"
        raise ValueError(f"`labels` must name {kind} to draw such pairs; got {len(sizes)} classes of {number} images")
    first = first[rng.integers(len(first), size=wanted)]
    kind_of = classes[order[first]]
    step = rng.integers(partners[kind_of])
    if same:
        second = start[kind_of] + (first - start[kind_of] + 1 + step) % sizes[kind_of]
    else:
        second = (start[kind_of] + sizes[kind_of] + step) % number
    pairs: NDArray[np.int64] = order[np.stack((first, second), axis=1)]
    return pairs
