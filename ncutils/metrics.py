"""Neural-collapse metrics of features, logits and classifiers, in NumPy.

Features are (d, N) or, as class means, (d, K); logits Z (K, K), in nats; classifiers W (K, d). A
metric has no unit unless one is named; a definition without a source is elementary.
"""

import numpy as np

from ._checks import (
    REAL,
    array_of,
    check_array,
    check_classes,
    check_features,
    check_integer,
    check_memory,
    check_positive_numbers,
    check_square,
    shown,
)
from ._linalg import cosines_from_gram, scaled
from .ufm import check_ufm

PINV_CUT = 1e-6  # singular values of Σ_B below this fraction of the largest count as zero


def class_means(features, labels):
    """Means h̄_k (d, K) of the columns of `features` (d, N) over each class of `labels` (N,), in
    the order of the class indices that occur.

    Raises ValueError where shapes or types are others or `features` has NaN.

    >>> from ncutils import metrics
    >>> metrics.class_means([[1, 3, 5]], [0, 0, 1])
    array([[2., 5.]])
    """
    features, labels = check_features("features", features, labels)
    order = np.argsort(labels, kind="stable")
    _, first, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    # no copy (d, N), no array (N, K)
    return np.stack([np.add.reduceat(row[order], first) for row in features]) / sizes


def scatter(features, labels):
    r"""Covariance Σ_W within and Σ_B between the classes, each (d, d).

    .. math:: \Sigma_W = \frac1N \sum_{k,i} (h_{k,i} - \bar h_k)(h_{k,i} - \bar h_k)^\top, \quad
              \Sigma_B = \frac1N \sum_k n_k (\bar h_k - \bar h)(\bar h_k - \bar h)^\top

    h̄ is the mean over all samples. Raises ValueError unless `features` is (d, N) and finite and
    `labels` holds N class indices ≥ 0. Source: the authors' code.

    >>> from ncutils import metrics
    >>> metrics.scatter([[1, 3, 5, 7]], [0, 0, 1, 1])
    (array([[1.]]), array([[4.]]))
    """
    features, labels = check_features("features", features, labels)
    check_memory("features", f"an array of shape {features.shape}", len(features) ** 2)
    within, between = _deviations(features, labels)
    return within @ within.T, between @ between.T


def _deviations(features, labels):
    """Factors of Σ_W and Σ_B: (h_{k,i} − h̄_k)/sqrt(N) as columns (d, N), sqrt(n_k/N) (h̄_k − h̄)
    as columns (d, K).
    """
    means = class_means(features, labels)
    _, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    within = features - means[:, index]
    between = (means - features.mean(axis=1, keepdims=True)) * np.sqrt(sizes)
    return within / np.sqrt(len(labels)), between / np.sqrt(len(labels))


def nc1(features, labels):
    r"""Within-class against between-class variability; 0 is collapse (claim a).

    .. math:: \mathrm{NC1} = \tfrac1K \, \mathrm{tr}(\Sigma_W \Sigma_B^+)

    The pseudo-inverse drops singular values below 1e-6 of the largest. NaN where all class means
    coincide. Once Σ_B loses rank (minority collapse), nearly lost directions dominate the value:
    read `trace_ratio` beside it. `features` (d, N), `labels` (N,) and the ValueError as in
    `scatter`. Source: the authors' code, which cuts the pseudo-inverse at 1e-10; at 1e-6,
    directions lost to rounding in float32 networks are left out.

    >>> from ncutils import metrics
    >>> round(metrics.nc1([[1, 3, 5, 7]], [0, 0, 1, 1]), 6)
    0.125
    """
    features, labels = check_features("features", features, labels)
    features = scaled(features)
    within, between = _deviations(features, labels)
    if _one_point(features, between):
        return float("nan")
    # no matrix (d, d): d is 4096 in some networks
    U, s, _ = np.linalg.svd(between, full_matrices=False)
    kept = s**2 > PINV_CUT * s[0] ** 2
    return float((((U.T @ within)[kept] / s[kept, None]) ** 2).sum() / between.shape[1])


def trace_ratio(features, labels):
    """tr Σ_W / tr Σ_B, collapse without a pseudo-inverse; NaN where all class means coincide.

    `features` (d, N), `labels` (N,) and the ValueError as in `scatter`. Source: ours.

    >>> from ncutils import metrics
    >>> round(metrics.trace_ratio([[1, 3, 5, 7]], [0, 0, 1, 1]), 6)
    0.25
    """
    features, labels = check_features("features", features, labels)
    features = scaled(features)
    within, between = _deviations(features, labels)
    if _one_point(features, between):
        return float("nan")
    return float((within**2).sum() / (between**2).sum())


def _one_point(features, between):
    """Whether the class means differ by no more than rounding."""
    return not (between**2).sum() > 1e-26 * (features**2).sum(axis=0).mean()


def cosines(matrix):
    r"""Cosines (K, K) between the columns of `matrix` (d, K), not centred.

    .. math:: \cos_{kl} = \frac{\langle x_k, x_l \rangle}{\|x_k\| \, \|x_l\|}

    A column that is zero (shorter than 1e-9 of the longest) has no direction: NaN there. Raises
    ValueError unless `matrix` has two dimensions and is finite.

    >>> from ncutils import metrics
    >>> metrics.cosines([[1, 1], [0, 1]]).round(4)
    array([[1.    , 0.7071],
           [0.7071, 1.    ]])
    """
    matrix = scaled(check_array("matrix", matrix, 2))
    check_memory("matrix", f"an array of shape {matrix.shape}", matrix.shape[1] ** 2)
    return cosines_from_gram(matrix.T @ matrix)


def group_means(matrix, k_a):
    """Means of a (K, K) matrix of cosines over different classes, the first `k_a` being the
    majority A.

    Returns {"A": within A, "B": within B, "AB": across}; NaN for a group of one class. By theory
    each mean is over equal values. Raises ValueError unless `matrix` is square and 1 ≤ k_a < K.

    >>> from ncutils import metrics, theory
    >>> metrics.group_means(theory.simplex_etf(5), k_a=2)
    {'A': -0.25, 'B': -0.25, 'AB': -0.25}
    """
    matrix, k_a = check_square("matrix", matrix), check_integer("k_a", k_a, at_least=1)
    K = len(matrix)
    if k_a >= K:
        raise ValueError(f"k_a = {k_a}: must be less than the number of classes, {K}")
    different = ~np.eye(K, dtype=bool)
    mean = lambda rows, columns: matrix[rows, columns][different[rows, columns]]
    A, B = slice(0, k_a), slice(k_a, K)
    parts = {"A": mean(A, A), "B": mean(B, B), "AB": mean(A, B)}
    return {
        group: float(part.mean()) if part.size else float("nan") for group, part in parts.items()
    }


def block_range(logits, class_sizes):
    """Largest difference, in nats, between entries of Z (K, K) that exchanging classes of equal
    size would swap.

    0 is the block structure of claim (b): Z_gg = a_g I + β_g 11ᵀ and Z_gh = c_gh 11ᵀ. Raises
    ValueError unless `logits` is (K, K) and `class_sizes` (K,). Source: ours.

    >>> from ncutils import metrics
    >>> metrics.block_range([[3, 0, 0], [0, 2, 1], [0, 1, 2.5]], class_sizes=[9, 4, 4])
    0.5
    """
    logits = check_square("logits", logits, gaps=False)
    sizes = array_of(class_sizes, REAL)
    if sizes is None or sizes.shape != logits.shape[:1] or np.isnan(sizes).any():
        raise ValueError(
            f"class_sizes = {shown(class_sizes)}: must be {len(logits)} numbers, "
            f"as logits is {logits.shape}"
        )
    _, group = np.unique(sizes, return_inverse=True)
    same = np.eye(len(sizes), dtype=int)
    # which sizes, and whether it is one class
    kind = 2 * (len(sizes) * group[:, None] + group) + same
    order = np.argsort(kind, axis=None)
    _, first = np.unique(kind.flat[order], return_index=True)
    entries = logits.flat[order]
    return float((np.maximum.reduceat(entries, first) - np.minimum.reduceat(entries, first)).max())


def minority_gap(logits, minority):
    r"""a_B: mean diagonal minus mean off-diagonal entry of the minority block Z_BB, in nats.

    .. math:: a_B = \frac{1}{K_B} \sum_{k \in B} Z_{kk}
              - \frac{1}{K_B (K_B - 1)} \sum_{k \ne l \in B} Z_{kl}

    0 where the minority classes have collapsed into one vector (claim c); by theory Z_BB = a_B I +
    β_B 11ᵀ. Raises ValueError unless `logits`, Z, is (K, K) and `minority` holds the indices of two
    classes or more. Source: ours, from the optimality conditions.

    >>> from ncutils import metrics
    >>> metrics.minority_gap([[2, 0, 0], [0, 3, 1], [0, 1, 3]], minority=[1, 2])
    2.0
    """
    logits = check_square("logits", logits, gaps=False)
    index = check_classes("minority", minority, len(logits))
    block = logits[np.ix_(index, index)]
    k = len(index)
    return float(np.trace(block) / k - (block.sum() - np.trace(block)) / (k * (k - 1)))


def minority_spread(logits, minority):
    """max ‖z_k − z_l‖ over minority classes k, l, over the mean length of all columns of Z (K, K).

    0 is minority collapse; NaN where Z = 0. `logits`, `minority` and the ValueError as in
    `minority_gap`.

    >>> from ncutils import metrics
    >>> round(metrics.minority_spread([[2, 0, 0], [0, 3, 1], [0, 1, 3]], minority=[1, 2]), 4)
    1.0193
    """
    logits = check_square("logits", logits, gaps=False)
    index = check_classes("minority", minority, len(logits))
    logits = scaled(logits)
    columns = logits[:, index]
    mean = np.linalg.norm(logits, axis=0).mean()
    return float(_largest_distance(columns) / mean) if mean > 0 else float("nan")


def _largest_distance(columns):
    """max ‖x_k − x_l‖ over the columns of an array (d, K)."""
    # none is longer than the largest distance, so that nothing cancels in it
    moved = scaled(columns - columns[:, :1])
    gram = moved.T @ moved
    squares = np.diag(gram)
    k, l = divmod((squares[:, None] + squares - 2 * gram).argmax(), len(squares))
    return np.linalg.norm(columns[:, k] - columns[:, l])


def balance_residual(classifier, class_means, ufm):
    """‖λ_W WᵀW − λ_H H̄ D H̄ᵀ‖_F / ‖λ_W WᵀW‖_F for W (K, d) and H̄ (d, K), or for W and all N
    features H (d, N), with D = I.

    0 at every critical point of the UFM: multiply ∂/∂W = 0 by Wᵀ and ∂/∂H = 0 by Hᵀ. 0 where W = 0.
    Raises ValueError unless `classifier`, W, and `class_means`, H̄ or H, fit each other and `ufm`.

    >>> from ncutils import UFM, metrics, solve
    >>> exact = solve(UFM.from_lam_z([20, 20, 10], lam_z=0.01))
    >>> metrics.balance_residual(exact.classifier(3), exact.class_means(3), exact.ufm) < 1e-12
    True
    """
    check_ufm(ufm)
    W, H = check_array("classifier", classifier, 2), check_array("class_means", class_means, 2)
    K, N = ufm.num_classes, ufm.num_samples
    if W.shape != (K, H.shape[0]) or H.shape[1] not in (K, N):
        raise ValueError(
            f"classifier {W.shape} and class_means {H.shape}: must be (K, d) and (d, K) or (d, N)"
        )
    check_memory("class_means", f"an array of shape {H.shape}", len(H) ** 2)
    weights = ufm.sizes if H.shape[1] == K else np.ones(N)
    W, H = np.sqrt(ufm.lam_w) * W, np.sqrt(ufm.lam_h) * H
    unit = np.frexp(np.abs(W).max())[1]
    with np.errstate(over="ignore", invalid="ignore"):
        # which neither changes a digit nor lets W underflow
        W, H = np.ldexp(W, -unit), np.ldexp(H, -unit)
        left, right = W.T @ W, (H * weights) @ H.T
        size = np.linalg.norm(left)
        residual = float(np.linalg.norm(left - right) / size) if size > 0 else 0.0
    if not residual < np.inf:
        raise ValueError(
            "class_means: must not be so much larger than classifier that their ratio overflows"
        )
    return residual


def relative_gap(objective, optimum):
    """objective/optimum − 1: how far trained models are above their exact optima, each a number or
    array.

    Raises ValueError unless all are positive.

    >>> from ncutils import metrics
    >>> metrics.relative_gap([3.0, 2.0], 2.0)
    array([0.5, 0. ])
    """
    objective = check_positive_numbers("objective", objective)
    optimum = check_positive_numbers("optimum", optimum)
    try:
        with np.errstate(over="ignore"):  # a gap that no float can hold is infinite
            return objective / optimum - 1
    except ValueError:
        raise ValueError(
            f"objective {objective.shape} and optimum {optimum.shape}: must broadcast to one shape"
        ) from None
