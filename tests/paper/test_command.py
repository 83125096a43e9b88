"""The command `python -m ncutils paper`: it trains, writes and draws, or says in a line why not."""

import math
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import runs
import torch
from pytest import approx
from runs import LAMBDA_5, by_hand, count_trainings, csvs, fake_data, measured, paper, small, table

from ncutils import UFM, load_images, solve
from ncutils.__main__ import main
from ncutils.paper import figures as paper_figures
from ncutils.paper import results as stored
from ncutils.paper import run as running
from ncutils.paper import settings, task
from ncutils.paper.run import estimate
from ncutils.theory import phase
from ncutils.training.network import train_network
from ncutils.training.networks import build

alone = pytest.fixture(autouse=True, scope="module")(runs.one_thread)
SOME, N_A, BATCH, AUTHORS = (0.0037, 0.0102), (500, 1000), "--batch-size 400", "--recipe authors"
COMMANDS = {  # words, settings, seeds, end of the picture's name
    "fig1": (f"fig1 {AUTHORS} {BATCH}", (1, 2), 1, "batch-size400-pool14"),
    "fig2": (f"fig2 --only 2 --seeds 2 --features linear {BATCH}", (2,), 2, "batch-size400-pool14"),
    "fig9": (f"fig9 --only 1000 500 {BATCH} {AUTHORS}", N_A, 1, "batch-size400-pool14"),
    "fig9 of 3": ("fig9 --ka 3 --only 500 1000 --features linear", N_A, 1, "pool14"),
    "fig5": ("fig5", LAMBDA_5, 1, "pool14"),
    "fig6": ("fig6 --only 0.0037 0.0102 --seeds 2 --features linear", SOME, 2, "pool14"),
    "fig7": ("fig7 --only 100 200 --seeds 2", (100, 200), 2, "pool14"),
    "fig8": (f"fig8 --only 100 400 --pool 7 --network convnet {AUTHORS}", (100, 400), 1, "pool7"),
}
FAKED = {"fig1", "fig2", "fig9", "fig9 of 3"}


def each(*names):
    """These commands; of two that are alike one is run at depth only."""
    deep = {name: [pytest.mark.depth] for name in ("fig1", "fig9", "fig6")}
    marked = [pytest.param(name, marks=deep.get(name, [])) for name in names]
    return pytest.mark.parametrize("name", marked)


def problem(plan, value, decay=0.0):
    """By hand; of the structures a tenth of the sizes is trained here."""
    ufm = by_hand(plan.experiment.name, plan.k_a, value, decay)
    tenth = [n // 10 for n in ufm.class_sizes]
    return replace(ufm, class_sizes=tenth) if plan.experiment.name == "block" else ufm


def counted(said):
    """Where each setting stands among all of its plan, as it was told."""
    return [line.split()[0] for line in said if line.startswith("[")]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """{command: exit code, folder, plan, figure, what it printed}, each run once."""
    found = {}

    def command(name):
        if name not in found:
            folder, plans, drawn, said = tmp_path_factory.mktemp("paper"), [], [], []
            with pytest.MonkeyPatch.context() as patch:
                if name in FAKED:
                    fake_data(patch)
                tenth = {k: [n // 10 for n in sizes] for k, sizes in settings.STRUCTURES.items()}
                patch.setattr(settings, "STRUCTURES", tenth)
                draw = paper_figures.draw
                # what a thread of another test prints to stderr is none of it
                tell = lambda text, file=None, **_: said.append(text) if file is None else None
                patch.setattr(paper_figures, "draw", lambda plan: plans.append(plan) or draw(plan))
                patch.setattr(plt, "close", drawn.append)
                patch.setattr("builtins.print", tell)
                code = paper(folder, *COMMANDS[name][0].split())
            plt.close(*drawn)
            found[name] = code, folder, *plans, *drawn, said
        return found[name]

    return command


@pytest.mark.filterwarnings("error")
@each(*COMMANDS)
def test_a_command_trains_writes_and_draws(ran, name):
    code, folder, _, _, said = ran(name)
    _, values, seeds, options = COMMANDS[name]
    results, history = csvs(folder)
    rows = table(results)
    asked = {(f"{value:g}", str(seed)) for value in values for seed in range(seeds)}
    assert code == 0 and {(row["setting"], row["seed"]) for row in rows} == asked
    assert len(rows) == len(asked) and runs.once(rows)
    png = folder / f"{results.stem}-epochs2-{options}.png"
    assert png.read_bytes()[:8] == runs.PNG and sorted(folder.glob("*.p*")) == [png]
    assert said[-2:] == [f"results: {results}", f"figure:  {png}"]
    assert counted(said) == [f"[{i + 1}/{len(rows)}]" for i in range(len(rows))]
    assert list((folder / "checkpoints").iterdir()) == []
    assert len(table(history)) == 2 * len(rows)  # epochs 1 and 2


@each(*COMMANDS)
def test_every_column_says_what_it_should(ran, name):
    _, folder, plan, _, _ = ran(name)
    results, history = map(table, csvs(folder))
    for row in results:
        decay = float(row["weight_decay"])
        ufm = problem(plan, type(plan.values[0])(row["setting"]), decay)
        kinds = sorted(set(ufm.class_sizes), reverse=True)
        assert row["class_sizes"] == " ".join(f"{n}x{ufm.class_sizes.count(n)}" for n in kinds)
        assert row["status"] == "done" and decay == (5e-4 if name in ("fig1", "fig9") else 0)
        for penalty in ("lam_w", "lam_h", "lam_b", "lam_z"):
            assert float(row[penalty]) == approx(getattr(ufm, penalty), rel=1e-5)
        assert row["phase"] == (phase(ufm).value if len(kinds) == 2 else "")
        for option in ("data", "network", "features", "recipe", "batch_size", "pool"):
            assert row[option] == str(getattr(plan, option))
        assert row["epochs"] == "2" and row["test_images"] == "False"
        assert row["together"] == {"fig5": "10", "fig6": "2"}.get(name, "1")
        zero = {kind for kind in ("linear", "relu") if not solve(ufm, kind).logits.any()}
        empty = {f"error_{kind}" for kind in zero} | ({"phase"} if len(kinds) != 2 else set())
        assert {column for column, text in row.items() if text == ""} == empty
        assert all(math.isfinite(float(row[name])) for name in {*stored.MEASURES} - empty)
        assert len(row["logits"].split()) == 100 and len(row["bias"].split()) == 10
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", row["date"])
        mine = [moment for moment in history if all(moment[key] == row[key] for key in stored.KEY)]
        assert mine[-1]["epoch"] == "2"
        assert all(mine[-1][name] == row[name] for name in stored.MEASURES)


def test_a_row_is_what_the_trainer_gives_alone(ran):
    """Numbers of one setting by the trainer, from arguments and formulas written out here."""
    _, folder, *_ = ran("fig7")
    rows = table(csvs(folder)[0])
    (row,) = (row for row in rows if (row["setting"], row["seed"]) == ("200", "1"))
    sizes = [200] * 5 + [100] * 5
    images, labels = load_images("mnist5k", sizes, seed=1, pool=14)
    ufm = UFM(sizes, 0.05, 0.0005, 0.02)
    options = dict(epochs=2, batch_size=128, lr=2e-3, warm_start=True, seed=1, recipe="fast")
    model = build("mlp", (1, 2, 2), "relu")
    trained = train_network(model, images, labels, ufm, device="cpu", progress=False, **options)
    W, b, H = trained[0].classifier(), trained[0].bias, trained[0].features
    Z = W @ np.stack([H[:, labels == k].mean(axis=1) for k in range(10)], axis=1)
    scores = W @ H + b[:, None]
    loss = np.log(np.exp(scores).sum(axis=0)).mean() - scores[labels, np.arange(1500)].mean()
    objective = loss + 0.025 * (W**2).sum() + 0.00025 * (H**2).sum() + 0.01 * (b**2).sum()
    block = Z[5:, 5:]
    expected = {"objective": objective, "accuracy_a": (scores.argmax(0) == labels)[:1000].mean()}
    for kind in ("linear", "relu"):
        exact = solve(ufm, features=kind)
        far = np.linalg.norm(Z - exact.logits) / np.linalg.norm(exact.logits)
        expected[f"gap_{kind}"] = objective / exact.objective - 1
        expected[f"error_{kind}"] = far
    expected["a_b"] = np.trace(block) / 5 - (block.sum() - np.trace(block)) / 20
    expected["length_b"] = np.mean([np.linalg.norm(Z[:, k]) for k in range(5, 10)])
    assert {name: float(row[name]) for name in expected} == approx(expected, rel=1e-5)
    assert np.array(row["logits"].split(), float).reshape(10, 10) == approx(Z, rel=1e-3)
    assert np.array(row["bias"].split(), float) == approx(b, rel=1e-3)


# The figures of these runs ----------------------------------------------------------------------


def seeds_mean(rows, setting, measure):
    return np.mean([float(row[measure]) for row in rows if float(row["setting"]) == setting])


@each("fig5", "fig6", "fig7", "fig8")
def test_a_figure_shows_both_exact_curves_the_threshold_and_the_networks(ran, name):
    _, folder, plan, fig, _ = ran(name)
    rows, values, k_a = table(csvs(folder)[0]), COMMANDS[name][1], plan.k_a
    known = runs.LISTED[name, None][2]
    threshold = {"fig5": 10 / 3000, "fig6": 10 / 2200, "fig7": 300, "fig8": 1300 / 3}[name]
    for ax, measure in zip(fig.axes, ("a_b", "length_b"), strict=True):
        shown = runs.lines(ax)
        for kind, program in (("linear", "exact, (CVX)"), ("relu", "exact, (CVX+)")):
            curve = shown[program]
            assert curve[[0, -1], 0].tolist() == [known[0], known[-1]] and len(curve) > 50
            for setting, y in zip((known[0], known[-1]), curve[[0, -1], 1]):
                expected = measured(by_hand(plan.experiment.name, k_a, setting), k_a, kind, measure)
                assert y == approx(expected, rel=1e-5, abs=1e-8)
        kind = {"linear": "linear", "relu": "ReLU"}[plan.features]
        means = np.array([(value, seeds_mean(rows, value, measure)) for value in values])
        assert shown[f"{kind} features, network"] == approx(means)
        assert sum("network" in other for other in shown) == 1
        upright = [xy[:, 0] for xy in shown.values() if len(xy) == 2 and xy[0, 0] == xy[1, 0]]
        assert any(x == approx(threshold) for x in upright)
        bars = ax.collections[0].get_segments()
        assert [bar[0][0] for bar in bars] == approx(values)
        for bar, setting in zip(bars, values):
            of_seeds = [float(row[measure]) for row in rows if float(row["setting"]) == setting]
            assert [bar[0][1], bar[1][1]] == approx([min(of_seeds), max(of_seeds)])


@each("fig9", "fig9 of 3")
def test_the_figure_of_angles_shows_three_cosines_and_the_gap(ran, name):
    _, folder, plan, fig, _ = ran(name)
    rows, (left, right), decay = table(csvs(folder)[0]), fig.axes, 5e-4 if name == "fig9" else 0
    means = lambda measure: np.array([(n, seeds_mean(rows, n, measure)) for n in (500, 1000)])
    for cosine, label in (("a", "majority A"), ("b", "minority B"), ("ab", "across A, B")):
        curve, points = runs.lines(left)[f"{label}, exact"], runs.lines(left)[f"{label}, network"]
        assert curve[[0, -1], 0].tolist() == [500, 5500]
        for n, y in curve[[0, -1]]:
            ufm = problem(plan, int(n), decay)
            expected = measured(ufm, plan.k_a, plan.features, f"cos_{cosine}")
            assert y == approx(expected, rel=1e-5)
        assert points == approx(means(f"cos_{cosine}"))
    (gap,) = runs.lines(right).values()
    assert gap == approx(means(f"gap_{plan.features}")) and right.get_yscale() == "log"


@each("fig1", "fig2")
def test_the_figure_of_blocks_shows_collapse_and_both_matrices(ran, name):
    _, folder, plan, fig, _ = ran(name)
    rows, history = map(table, csvs(folder))
    panels = iter(ax for ax in fig.axes if ax.get_label() != "<colorbar>")
    matrix = lambda ax: np.asarray(ax.collections[0].get_array()).reshape(10, 10)
    of_epoch = lambda epoch: [row for row in history if row["epoch"] == str(epoch)]
    for structure in COMMANDS[name][1]:
        left, middle, right = (next(panels) for _ in range(3))
        for measure, label in (("nc1", "NC1"), ("trace_ratio", "tr Σ_W / tr Σ_B")):
            means = [(e, seeds_mean(of_epoch(e), structure, measure)) for e in (1, 2)]
            assert runs.lines(left)[label] == approx(np.array(means))
        mine = [row["logits"].split() for row in rows if row["setting"] == str(structure)]
        assert matrix(middle) == approx(np.array(mine, float).mean(axis=0).reshape(10, 10))
        ufm = problem(plan, structure, 5e-4 if name == "fig1" else 0)
        assert matrix(right) == approx(solve(ufm, plan.features).logits, abs=1e-6)
    assert not list(panels)


TITLES = {
    "fig2": "mlp on mnist5k, linear features, recipe fast, 2 epochs",
    "fig9 of 3": "mlp on mnist5k, linear features, recipe fast, 2 epochs",
    "fig8": "convnet on mnist5k, relu features, recipe authors, 2 epochs",
}


@pytest.mark.parametrize("name, title", TITLES.items())
def test_every_kind_of_figure_has_a_title(ran, name, title):
    assert ran(name)[3].get_suptitle() == title


# What trains nothing ----------------------------------------------------------------------------


def test_the_list_shows_every_figure_with_its_settings_and_cost(capsys):
    assert main(["paper", "list"]) == 0
    out = capsys.readouterr().out.splitlines()
    for (figure, asked), (_, _, values, epochs, _) in runs.LISTED.items():
        if asked in (None, 3) and (figure, asked) != ("fig5", 3):
            name = figure if asked is None else f"{figure} --ka 3"
            (line,) = (line for line in out if name in re.split(", |  ", line))
            shown = " ".join(f"{value:g}" for value in values), f" {len(values)} ", f" {epochs} "
            assert all(text in line for text in shown)
    (cost,) = (line for line in out if line.startswith("fig5 "))
    assert "60 million" in cost  # 10 settings · 3000 images · 2000 epochs


DRY = {
    "fig5": "lam_z = 0.0027: 5 x 500 + 5 x 100 images, lam_z = 0.0027, lam_b = 0.02",
    "fig7 --only 100": "n_a = 100: 10 x 100 images",
    "fig9": "n_a = 5500: skipped, class_sizes[0] = 5500: mnist5k holds 500 images of class 0",
}


@pytest.mark.parametrize("words, expected", DRY.items())
def test_a_dry_run_shows_settings_and_time_and_writes_nothing(
    monkeypatch, tmp_path, capsys, words, expected
):
    if "--only" not in words:  # of the one time is taken
        monkeypatch.setattr(running, "_seconds_per_step", lambda *_: 0.01)
    assert paper(tmp_path / "new", *words.split(), "--dry-run") == 0
    out = capsys.readouterr().out
    assert expected in out and ("5 x 500 + 5 x 250 images" in out) == (words == "fig9")
    assert re.search(r"2 epochs, mlp on cpu: about \d+\.\d minutes", out)
    assert list(tmp_path.iterdir()) == []


def test_an_estimate_counts_the_steps_of_every_task(monkeypatch, tmp_path):
    asked = []
    step = lambda plan, members: asked.append(members) or members / 4
    monkeypatch.setattr(running, "_seconds_per_step", step)
    # 3000 images are 24 steps; ten networks at a time
    assert estimate(small(tmp_path, "fig5", seeds=2, epochs=30)) == 2 * 24 * 30 * 10 / 4
    assert asked == [10]
    alone = small(tmp_path, "fig7", values=(100, 200), batch_size=300, epochs=7)  # 4 and 5 steps
    assert estimate(alone) == (4 + 5) * 7 / 4 and asked == [10, 1]


def test_the_time_of_a_step_is_from_steps_of_the_plan(monkeypatch, tmp_path):
    amps = []

    def trainer(model, images, labels, ufms, **options):
        assert images.shape == (2 * 50, 1, 2, 2) and len(labels) == 100 and len(ufms) == 3
        assert (options["batch_size"], options["record"]) == (50, [1, 4])
        assert options["recipe"] == "authors"
        amps.append(options["amp"])
        return type("Trained", (), {"history": [{"seconds": 1.0}, {"seconds": 4.0}]})

    monkeypatch.setattr(running, "train_network", trainer)
    for float32 in (False, True):
        plan = small(tmp_path, batch_size=50, recipe="authors", float32=float32)
        assert running._seconds_per_step(plan, 3) == 3.0 / 6
    assert amps == [None, False]


@pytest.mark.parametrize(
    "size", [1, 4, *(pytest.param(n, marks=pytest.mark.depth) for n in (3, 5))]
)
def test_time_can_be_estimated_for_the_smallest_batches(tmp_path, size):
    assert estimate(small(tmp_path, values=(100,), batch_size=size)) > 0


def test_time_is_estimated_without_a_batch_of_one_image_which_batch_norm_refuses(
    monkeypatch, tmp_path
):
    fake_data(monkeypatch)
    layers = torch.nn.Flatten(), torch.nn.Linear(16, 10), torch.nn.BatchNorm1d(10)
    network = torch.nn.Sequential(*layers)
    network.dim, network.features = 10, "linear"
    monkeypatch.setattr(running, "build", lambda *_: network)
    assert estimate(small(tmp_path, values=(100,), features="linear", batch_size=3)) > 0


# What is skipped, what diverges -----------------------------------------------------------------


def test_test_images_are_asked_for_and_labelled(monkeypatch, tmp_path, capsys):
    """With 490 images a class, the test set makes the difference."""
    asked, _ = fake_data(monkeypatch, held=490), count_trainings(monkeypatch)
    words = ["fig9", "--data", "fashion-mnist", "--only", 500, "--epochs", 1]
    assert paper(tmp_path, *words) == 2
    held = "class_sizes[0] = 500: fashion-mnist holds 490 images of class 0"
    assert f"every setting was skipped: {held}" in capsys.readouterr().err
    assert paper(tmp_path, *words, "--with-test-images") == 0
    (row,) = table(csvs(tmp_path)[0])
    assert row["test_images"] == "True" and asked[-1][4] is True


def test_settings_without_images_are_skipped_by_name_and_the_others_trained(
    monkeypatch, tmp_path, capsys
):
    count_trainings(monkeypatch)
    assert paper(tmp_path, "fig9", "--epochs", 1) == 0
    out = capsys.readouterr().out
    for n_a in runs.ANGLES[1:]:
        held = rf"class_sizes\[0\] = {n_a}: mnist5k holds 500 images of class 0"
        assert re.search(rf"skipped: n_a = {n_a}\W+{held}", out)
    assert [row["setting"] for row in table(csvs(tmp_path)[0])] == ["500"]


@pytest.mark.parametrize("words", [["fig1"], ["fig7", "--only", 600, 800]])
def test_where_every_setting_is_skipped_there_is_a_message_and_exit_2(tmp_path, capsys, words):
    assert paper(tmp_path, *words) == 2
    out, err = capsys.readouterr()
    held = r"class_sizes\[0\] = \d+: mnist5k holds 500 images .*; class_sizes"
    assert not out and re.search(f"every setting was skipped: {held}", err)
    assert not list(tmp_path.rglob("*.csv"))


def test_a_wholly_diverged_plan_says_so_with_exit_1(tmp_path, capsys):
    assert paper(tmp_path, "fig7", "--only", 100, 200, "--lr", 1e9) == 1
    out, err = capsys.readouterr()
    assert out.count("training diverged in epoch 1") == 2 and "no result to draw" in out + err
    rows, history = map(table, csvs(tmp_path))
    assert history == [] and len(rows) == 2
    for row in rows:
        said = r"training diverged in epoch \d: objective .*: try a smaller lr$"
        assert re.match(said, row["status"]) and row["lam_z"] == "0.005"
        assert {row[column] for column in (*stored.MEASURES, "logits", "bias")} == {""}


@pytest.mark.parametrize(
    "words, code",
    [("100", 0), ("100 --seeds 2", 1), ("200", 1), ("100 200", 1), ("300 --seeds 2", 0)],
)
def test_the_exit_code_is_of_the_settings_and_seeds_asked_for(monkeypatch, tmp_path, words, code):
    """Of stored results, some of which diverged, those of another learning rate among them."""
    trainings = count_trainings(monkeypatch)
    done = {(100, 0), (300, 0), (300, 1)}
    status = lambda key: {"status": "done" if key in done else "training diverged"}
    runs.store(small(tmp_path), {key: status(key) for key in [*done, (100, 1), (200, 0)]})
    runs.store(small(tmp_path, lr=1e9), {(100, 0): {"status": "training diverged"}})
    assert paper(tmp_path, "fig7", "--only", *words.split()) == code and trainings == []


def test_a_member_that_diverges_leaves_the_others_as_they_are(monkeypatch, tmp_path, capsys):
    """With the authors' SGD, a huge penalty on W is too much."""
    runs.few_points(monkeypatch)
    plan = small(tmp_path / "well", "fig5", values=LAMBDA_5[:2], recipe="authors")
    good, _ = task.train(plan, plan.tasks()[0], progress=False)
    ufm, ill = task.Plan.ufm, UFM([500] * 5 + [100] * 5, 1e9, 1e-3, 0.02)
    wrong = lambda plan, value: ill if value == LAMBDA_5[2] else ufm(plan, value)
    monkeypatch.setattr(task.Plan, "ufm", wrong)
    with pytest.warns(RuntimeWarning, match="training diverged in epoch 1"):
        assert paper(tmp_path / "ill", "fig5", "--recipe", "authors", "--only", *LAMBDA_5[:3]) == 1
    *others, bad = table(csvs(tmp_path / "ill")[0])
    assert bad["setting"] == "0.0033" and bad["status"].startswith("training diverged in epoch 1")
    assert bad["objective"] == bad["logits"] == ""
    for row, expected in zip(others, good, strict=True):
        assert row["status"] == "done" and row["together"] == "3"
        assert float(row["objective"]) == approx(float(expected["objective"]), rel=1e-4)
    assert f"\nfigure:  {tmp_path / 'ill'}/" in capsys.readouterr().out
    drawn = stored.results_of(small(tmp_path / "ill", "fig5", recipe="authors"))
    assert [row["setting"] for row in drawn] == ["0.0027", "0.003"]


# Bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, message",
    [
        ("--ka 4", r"k_a = 4: must be one of 5, 3"),
        ("--ka 4 --only 100", r"k_a = 4: must be one of 5, 3"),
        ("--only 7", r"--only 7: must be among 100 200 300 400 600 800 1000 1100 1200 1400"),
        ("--only 100 7", r"--only 7: must be among"),
        ("--ka 3 --only 200", r"--only 200: must be among 100 400 450"),
        ("--only nan", r"--only nan: must be among"),
        ("--seeds 0", r"seeds = 0: must be a whole number >= 1"),
        ("--epochs 0", r"epochs = 0: must be a whole number >= 1"),
        ("--batch-size 0", r"batch_size = 0: must be a whole number >= 1"),
        ("--pool 0", r"pool = 0: must be a whole number >= 1"),
        ("--pool 3", r"pool = 3: must divide the image size 28 × 28 of mnist5k"),
        ("--lr -1", r"lr = -1.0: must be a positive number, finite"),
        ("--lr nan", r"lr = nan: must be a positive number"),
        ("--device tpu", r"device = 'tpu': must be None, 'cpu' or 'cuda'"),
        ("--device cuda", r"device = 'cuda': must be None, 'cpu' or, where there is a GPU, 'cuda'"),
        ("--with-test-images", r"test_images = True: mnist5k has none; only fashion-mnist and "),
        ("--network vgg11 --pool 1", r"image_shape = \(1, 28, 28\): must be \(C, 32, 32\)"),
        ("--network resnet18 --pool 7", r"image_shape\[1\] = 4: must be a whole number >= 8"),
        ("fig1 --ka 5", r"k_a = 5: must be left out in fig1"),
    ],
)
def test_bad_options_are_refused_before_any_work(monkeypatch, tmp_path, capsys, words, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    trainings, words = count_trainings(monkeypatch), words.split()
    figure = words.pop(0) if words[0].startswith("fig") else "fig7"
    assert paper(tmp_path / "new", figure, *words) == 2
    err = capsys.readouterr().err
    assert re.search(f"^python -m ncutils paper: {message}", err) and err.count("\n") == 1
    assert trainings == [] and list(tmp_path.iterdir()) == []


BAD_WORDS = ["epochs many", "data mnist", "network vit", "recipe slow", "features sigmoid", "only"]


@pytest.mark.parametrize(
    "words", ["paper fig3", "paper", "", *(f"paper fig7 --{words}" for words in BAD_WORDS)]
)
def test_words_that_are_none_of_the_commands_are_refused(capsys, words):
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2 and "usage: python -m ncutils" in capsys.readouterr().err


def test_data_that_cannot_be_had_are_a_message(monkeypatch, tmp_path, capsys):
    message = "cifar10 cannot be downloaded: put it into $NCUTILS_DATA"

    def fails(*_):
        raise RuntimeError(message)

    monkeypatch.setattr(task, "available", fails)
    for more in ([], ["--dry-run"]):
        assert paper(tmp_path / "new", "fig7", *more) == 2
        assert capsys.readouterr().err == f"python -m ncutils paper: {message}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_message(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "results"):
        assert paper(out, "fig7", "--only", 100) == 2
        assert str(out) in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "in the way"
