"""Neural-collapse metrics of features, logits and classifiers, in NumPy.

Features are (d, N), logits Z (K, K), classifiers W (K, d). Arrays of another shape, or with NaN where it is not
allowed, raise ValueError.
"""

import numpy as np

from .ufm import UFM, cosines_from_gram, real_array, whole

PINV_CUT = 1e-6  # singular values of Σ_B below this fraction of the largest count as zero


def _features_and_labels(features, labels):
    features = real_array("features", features, 2)
    labels = np.asarray(labels)
    if labels.shape != features.shape[1:] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels has shape {labels.shape} and type {labels.dtype}: must be {features.shape[1]} "
            "whole numbers, one for each column of features")
    if labels.min() < 0:
        raise ValueError(f"labels holds {labels.min()}: must be class indices >= 0")
    return features, labels


def class_means(features, labels):
    """Means h̄_k (d, K) of the columns of `features` (d, N) over each class of `labels` (N,), in the
    order of the class indices that occur."""
    features, labels = _features_and_labels(features, labels)
    classes, index = np.unique(labels, return_inverse=True)
    one_hot = np.eye(len(classes))[index]  # (N, K)
    return features @ one_hot / one_hot.sum(axis=0)


def scatter(features, labels):
    """Σ_W = (1/N) Σ (h_{k,i} − h̄_k)(·)ᵀ and Σ_B = (1/N) Σ n_k (h̄_k − h̄)(·)ᵀ, each (d, d).

    h̄ is the mean over all samples. Raises ValueError unless `features` is (d, N), `labels` (N,).
    Source: the authors' code.
    """
    within, between = _deviations(features, labels)
    return within @ within.T, between @ between.T


def _deviations(features, labels):
    """Factors of Σ_W and Σ_B: (h_{k,i} − h̄_k)/sqrt(N) as columns (d, N), sqrt(n_k/N) (h̄_k − h̄) as columns (d, K)."""
    features, labels = _features_and_labels(features, labels)
    means = class_means(features, labels)
    _, index, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    within = features - means[:, index]
    between = (means - features.mean(axis=1, keepdims=True)) * np.sqrt(sizes)
    return within / np.sqrt(len(labels)), between / np.sqrt(len(labels))


def nc1(features, labels):
    """tr(Σ_W Σ_B⁺)/K, within-class against between-class variability; 0 is collapse (claim a).

    The pseudo-inverse drops singular values below 1e-6 of the largest. `features` (d, N), `labels`
    (N,). NaN where all class means coincide. Once Σ_B loses rank (minority collapse), nearly lost
    directions dominate the value: read `trace_ratio` beside it. Source: the authors' code, which cuts
    the pseudo-inverse at 1e-10; at 1e-6, directions lost to rounding in float32 networks are left out.
    """
    within, between = _deviations(features, labels)
    if _one_point(features, between):
        return float("nan")
    U, s, _ = np.linalg.svd(between, full_matrices=False)  # no matrix (d, d): d is 4096 in some networks
    kept = s**2 > PINV_CUT * s[0] ** 2
    return float((((U.T @ within)[kept] / s[kept, None]) ** 2).sum() / between.shape[1])


def trace_ratio(features, labels):
    """tr Σ_W / tr Σ_B, collapse without a pseudo-inverse; NaN where all class means coincide."""
    within, between = _deviations(features, labels)
    return float("nan") if _one_point(features, between) else float((within**2).sum() / (between**2).sum())


def _one_point(features, between):
    """Whether the class means differ by no more than rounding."""
    return not (between**2).sum() > 1e-26 * (np.asarray(features, dtype=np.float64) ** 2).sum(axis=0).mean()


def cosines(matrix):
    """Cosines (K, K) between the columns of `matrix` (d, K), not centred.

    A column that is zero (shorter than 1e-9 of the longest) has no direction: NaN there.
    """
    matrix = real_array("matrix", matrix, 2)
    return cosines_from_gram(matrix.T @ matrix)


def group_means(matrix, k_a):
    """Means of a (K, K) matrix of cosines over different classes, the first `k_a` being the majority A.

    Returns {"A": within A, "B": within B, "AB": across}; NaN for a group of one class. By theory each
    mean is over equal values.
    """
    matrix, k_a = _square("matrix", matrix, missing=True), whole("k_a", k_a, at_least=1)
    K = len(matrix)
    if k_a >= K:
        raise ValueError(f"k_a = {k_a}: must be less than the number of classes, {K}")
    different = ~np.eye(K, dtype=bool)
    mean = lambda rows, columns: matrix[rows, columns][different[rows, columns]]
    A, B = slice(0, k_a), slice(k_a, K)
    parts = {"A": mean(A, A), "B": mean(B, B), "AB": mean(A, B)}
    return {group: float(part.mean()) if part.size else float("nan") for group, part in parts.items()}


def block_range(logits, class_sizes):
    """Largest difference between entries of Z (K, K) that exchanging classes of equal size would swap.

    0 is the block structure of claim (b): Z_gg = a_g I + β_g 11ᵀ and Z_gh = c_gh 11ᵀ.
    """
    logits, sizes = _square("logits", logits), np.asarray(class_sizes)
    if sizes.shape != logits.shape[:1]:
        raise ValueError(f"class_sizes = {class_sizes!r}: must be {len(logits)} numbers, as logits is {logits.shape}")
    same = np.eye(len(sizes), dtype=bool)
    kinds = {}
    for k, l in np.ndindex(logits.shape):
        kinds.setdefault((sizes[k], sizes[l], same[k, l]), []).append(logits[k, l])
    return float(max(np.ptp(entries) for entries in kinds.values()))


def _square(name, matrix, missing=False):
    """`matrix` as a (K, K) float array, NaN allowed where `missing`, else ValueError."""
    array = np.asarray(matrix)
    known = np.nan_to_num(array) if missing and array.dtype.kind == "f" else array
    if real_array(name, known, 2).shape[0] != array.shape[1]:
        raise ValueError(f"{name} has shape {array.shape}: must be (K, K)")
    return array.astype(np.float64)


def _block(name, logits, classes):
    logits = _square("logits", logits)
    index = np.asarray(classes)
    if index.ndim != 1 or index.dtype.kind not in "iu" or len(set(index.tolist())) != len(index):
        raise ValueError(f"{name} = {classes!r}: must be a list of different class indices")
    if len(index) < 2 or index.min() < 0 or index.max() >= len(logits):
        raise ValueError(f"{name} = {classes!r}: must be at least 2 class indices in 0 … {len(logits) - 1}")
    return logits, index


def minority_gap(logits, minority):
    """a_B: mean diagonal minus mean off-diagonal entry of the minority block Z_BB, in nats.

    `logits` Z (K, K), `minority` the indices of at least two classes. 0 where the minority classes
    have collapsed into one vector (claim c); by theory Z_BB = a_B I + β_B 11ᵀ.
    """
    logits, index = _block("minority", logits, minority)
    block = logits[np.ix_(index, index)]
    k = len(index)
    return float(np.trace(block) / k - (block.sum() - np.trace(block)) / (k * (k - 1)))


def minority_spread(logits, minority):
    """max ‖z_k − z_l‖ over minority classes k, l, over the mean length of all columns of Z (K, K).

    0 is minority collapse; NaN where Z = 0.
    """
    logits, index = _block("minority", logits, minority)
    columns = logits[:, index]
    distances = np.linalg.norm(columns[:, :, None] - columns[:, None, :], axis=0)
    mean = np.linalg.norm(logits, axis=0).mean()
    return float(distances.max() / mean) if mean > 0 else float("nan")


def balance_residual(classifier, class_means, ufm):
    """‖λ_W WᵀW − λ_H H̄ D H̄ᵀ‖_F / ‖λ_W WᵀW‖_F for W (K, d) and H̄ (d, K), or for W and all N
    features H (d, N), with D = I.

    0 at every critical point of the UFM: multiply ∂/∂W = 0 by Wᵀ and ∂/∂H = 0 by Hᵀ. 0 where W = 0.
    """
    if not isinstance(ufm, UFM):
        raise ValueError(f"ufm = {ufm!r}: must be a UFM")
    W, H = real_array("classifier", classifier, 2), real_array("class_means", class_means, 2)
    if W.shape != (ufm.num_classes, H.shape[0]) or H.shape[1] not in (ufm.num_classes, ufm.num_samples):
        raise ValueError(
            f"classifier {W.shape} and class_means {H.shape}: must be (K, d) and (d, K) or (d, N)")
    weights = ufm.sizes if H.shape[1] == ufm.num_classes else np.ones(ufm.num_samples)
    left = ufm.lam_w * W.T @ W
    right = ufm.lam_h * (H * weights) @ H.T
    size = np.linalg.norm(left)
    return float(np.linalg.norm(left - right) / size) if size > 0 else 0.0


def relative_gap(objective, optimum):
    """objective/optimum − 1: how far trained models are above their exact optima, each a number or array.

    ValueError unless all are positive."""
    objective, optimum = np.asarray(objective, dtype=np.float64), np.asarray(optimum, dtype=np.float64)
    for name, value in (("objective", objective), ("optimum", optimum)):
        if not (value > 0).all():
            raise ValueError(f"{name} = {value}: must be positive")
    return objective / optimum - 1
