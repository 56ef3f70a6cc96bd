import base64
import doctest
import hashlib
import importlib
import json
import math
import pkgutil
import re
import shlex
import shutil
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from run_folder_maker import Recipe, make_run

import offline_tune.report
from offline_tune import report as reports
from offline_tune.errors import OutputError, StudyError, UsageError
from offline_tune.history import OUTCOME, PROVENANCE
from offline_tune.report.calls import CallLog
from offline_tune.report.command import predict_command, repeat_command
from offline_tune.report.confusion import confusion_of
from offline_tune.report.figures import forecast_figure, history_figure, residual_figure, score_range
from offline_tune.report.forecast import forecasts_of, rank_correlation
from offline_tune.report.html import OPEN_CALLS, script_json
from offline_tune.report.importance import importances_of
from offline_tune.report.metric import ShownMetric
from offline_tune.report.parallel import MOST_LINES, parallel_figure
from offline_tune.report.testpart import TestPart
from offline_tune.report.trial import TrialFacts, trials_of
from offline_tune.report.wording import columns, printable
from offline_tune.samplers.proposal import Answer, Call, Provenance, Source
from offline_tune.space import Condition, Parameter, SearchSpace
from offline_tune.study.folder import RunFolder
from offline_tune.study.settings import RunSettings
from offline_tune.study.storage import load_study
from offline_tune.task import Budget, TaskKind, TrialLimits

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'`--><!--{{7*7}}</pre></title>"
    '<a href="javascript:alert(1)">x</a>\nsecond line\u2028third\x1b[31m\u202e'
)
LONG = "x" * 10_000


def hostile_space():
    families = (HOSTILE, LONG)
    return SearchSpace(
        (
            Parameter("family", CategoricalDistribution(families), HOSTILE),
            Parameter(
                f"{HOSTILE}.a{HOSTILE}", FloatDistribution(1e-3, 1, log=True), 0.1, Condition("family", families)
            ),
            Parameter(f"b{LONG}", CategoricalDistribution((HOSTILE, LONG)), HOSTILE, Condition("family", families)),
            Parameter("c", IntDistribution(1, 9), 2, Condition("family", families)),
        )
    )


RECIPES = {
    "binary": Recipe(),
    "regression": Recipe(kind=TaskKind.REGRESSION, families=("lightgbm",), n_trials=12, n_failed=0),
    "hostile": Recipe(
        space=hostile_space(),
        name=HOSTILE,
        classes=(HOSTILE, LONG),
        n_trials=12,
        settings={"description": HOSTILE, "group": HOSTILE},
    ),
    "failed": Recipe(families=("linear",), n_trials=3, n_failed=3, has_test=False),
    "single": Recipe(families=("linear",), n_trials=1, n_failed=0, has_calls=False),
    "bare": Recipe(families=("linear",), n_trials=4, n_failed=0, has_test=False, has_ensemble=False, has_calls=False),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Run folders by name, each made once; nobody may change them."""
    folders = {}

    def make(name):
        if name not in folders:
            folders[name] = make_run(tmp_path_factory.mktemp("runs") / name, RECIPES[name])
        return folders[name]

    return make


@pytest.fixture(scope="module")
def binary(made):
    return reports.read(made("binary"))


@pytest.fixture
def copied(made, tmp_path):
    """A copy of a run folder that a test may damage."""

    def copy(name="bare"):
        return RunFolder(Path(shutil.copytree(made(name).path, tmp_path / "run")))

    return copy


class Page(HTMLParser):
    """The elements of a page, its attributes, and the text of its scripts, styles and everything else."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.scripts, self.styles, self.text = [], [], [], [], []
        self.last = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.last = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        self.last = None

    def handle_data(self, data):
        if self.last == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        else:
            (self.styles if self.last == "style" else self.text).append(data)

    def json(self, key):
        return next(json.loads(text) for attrs, text in self.scripts if attrs.get("id") == key)


@pytest.fixture(scope="module")
def pages(made):
    read = {}

    def page(name):
        if name not in read:
            read[name] = Page(reports.render(reports.read(made(name))))
        return read[name]

    return page


def a_trial(number, score=None, *, source=Source.MODEL, family="f", values=None, **provenance):
    state = optuna.trial.TrialState.FAIL if score is None else optuna.trial.TrialState.COMPLETE
    return TrialFacts(
        number=number,
        state=state,
        provenance=Provenance(source=source, seed=0, **provenance),
        family=family,
        values=values or {"family": family},
        score=score,
    )


# Reading a run


def test_a_report_holds_every_trial_with_its_family_and_source(binary):
    assert [trial.number for trial in binary.trials] == list(range(30))
    assert {trial.family for trial in binary.trials} == {"linear", "lightgbm", "xgboost"}
    assert [trial.source for trial in binary.trials[:3]] == ["default"] * 3
    assert all("." not in name for trial in binary.trials for name in trial.own)


def test_a_failed_trial_has_a_sentence_and_no_score(binary):
    assert len(binary.failed) == 2
    assert all(trial.score is None and trial.outcome and trial.detail for trial in binary.failed)
    assert "took longer than the time limit of one trial" in binary.reasons


def test_the_incumbent_curve_never_falls_and_ends_at_the_winner(binary):
    scores = [score for _, score in binary.incumbents]
    assert scores == sorted(scores)
    assert len(scores) == len(binary.ranked) == 28
    assert scores[-1] == binary.ranked[0].score == binary.result.winner.cv["neg_log_loss"]


def test_trials_that_never_ended_are_told_apart_from_failures(copied):
    folder = copied()
    study, space = load_study(folder.storage)
    study.enqueue_trial(dict(space.default))
    space.suggest(study.ask())
    study.enqueue_trial(dict(space.default))
    report = reports.read(folder)
    assert len(report.unfinished) == 2 and not report.failed
    assert "2 not ended" in reports.render(report)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"must hold run\.json"):
        reports.read(RunFolder(tmp_path))


def test_a_run_without_a_result_is_refused(copied):
    folder = copied()
    folder.result.unlink()
    with pytest.raises(StudyError, match=r"a run must have result.json, found none"):
        reports.write(folder)
    assert not folder.report.exists()


@pytest.mark.parametrize("wrong", ["0.3", None, True, {}])
def test_a_result_whose_score_is_no_number_is_refused(copied, wrong):
    folder = copied()
    content = json.loads(folder.result.read_text())
    content["winner"]["cv"]["neg_log_loss"] = wrong
    folder.result.write_text(json.dumps(content))
    with pytest.raises(StudyError, match=r"result\.json must hold numbers for scores and times, got"):
        reports.read(folder)


def test_a_result_whose_scores_are_no_table_is_refused(copied):
    folder = copied()
    content = json.loads(folder.result.read_text())
    content["winner"]["cv"] = [1, 2]
    folder.result.write_text(json.dumps(content))
    with pytest.raises(StudyError, match=r"result\.json must hold a table of scores for each model, got another form"):
        reports.read(folder)


@pytest.mark.parametrize("key", [OUTCOME, PROVENANCE])
@pytest.mark.parametrize("record", ["{", "[]", '"text"', '{"source": "nobody", "scores": 3}'])
def test_a_damaged_record_of_a_trial_is_refused(key, record):
    study = optuna.create_study(direction="maximize")
    study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL, user_attrs={key: record}))
    with pytest.raises(StudyError, match="trial 0 must carry the record that offline-tune wrote"):
        trials_of(study)


def test_a_trial_without_provenance_has_an_unknown_source():
    study = optuna.create_study(direction="minimize")
    study.add_trial(optuna.trial.create_trial(value=2.0))
    (trial,) = trials_of(study)
    assert (trial.source, trial.family, trial.score) == ("unknown", "", -2.0)


def test_facts_that_are_missing_or_of_another_kind_do_not_stop_a_report(copied):
    folder = copied("binary")
    content = json.loads(folder.result.read_text())
    content["facts"] = {"card": 3, "columns": ["a", {"unique": "x"}], "notes": "n", "classes": None, "task": "odd"}
    folder.result.write_text(json.dumps(content))
    assert "xgboost wins" in reports.render(reports.read(folder))


# Prompts and answers


def test_every_call_is_read_whole(binary):
    assert [call.first_trial for call in binary.log.calls] == [4, 8, 12, 16, 20, 24, 28]
    assert all(len(call.answers) == 8 and "income" in call.prompt for call in binary.log.calls)


def test_a_torn_last_line_costs_one_call(copied):
    folder = copied("binary")
    content = folder.calls.read_bytes()
    folder.calls.write_bytes(content[:-40])
    log = reports.read(folder).log
    assert (len(log.calls), log.unreadable) == (6, 1)


def test_a_line_torn_in_the_middle_of_a_character_costs_one_call(copied):
    folder = copied("binary")
    with folder.calls.open("ab") as log:
        log.write('{"first_trial": 30, "prompt": "Größe'.encode()[:-3])
    assert reports.read(folder).log.unreadable == 1


@pytest.mark.parametrize("line", ["[]", "3", "null", '{"first_trial": Infinity}', '{"answers": 1}', "[" * 5000])
def test_a_line_that_is_no_call_costs_only_itself(copied, line):
    folder = copied()
    good = a_call("p").to_json()
    odd = good.replace("-1.0", '"likely"')
    folder.calls.write_text(f"{line}\n{good}\n{odd}\n\n")
    log = reports.read(folder).log
    assert (len(log.calls), log.unreadable) == (1, 2)


def test_line_separators_inside_a_prompt_do_not_part_records(copied):
    folder = copied()
    folder.calls.write_text(a_call("a\u2028b\u2029c\x85d\n").to_json() + "\n", encoding="utf-8")
    log = reports.read(folder).log
    assert [call.prompt for call in log.calls] == ["a\u2028b\u2029c\x85d\n"] and not log.unreadable


def test_a_run_without_calls_says_so(made, pages):
    assert reports.read(made("bare")).log == CallLog()
    assert "No language model was asked" in " ".join(pages("bare").text)


def test_a_call_log_that_cannot_be_read_is_refused(copied):
    folder = copied()
    folder.calls.mkdir()
    with pytest.raises(StudyError, match=r"calls.jsonl must be readable, got Is a directory"):
        reports.read(folder)


def test_calls_beyond_the_first_stand_in_the_page_as_data_whole(binary):
    calls = tuple(a_call(f"prompt {number} <b>", number) for number in range(OPEN_CALLS + 3))
    page = Page(reports.render(replace(binary, log=CallLog(calls))))
    later = page.json("later-calls")
    assert [call["prompt"] for call in later] == [call.prompt for call in calls[OPEN_CALLS:]]
    assert later[0]["answers"][0]["text"] == "{}"
    assert page.tags.count("details") == OPEN_CALLS + 1


def a_call(prompt, first_trial=1):
    answers = (Answer(text="{}", logprob=-1.0, rejected_mass=0.0),)
    return Call(
        first_trial=first_trial,
        prompt=prompt,
        grammar_digest="",
        answers=answers,
        tokens_in=1,
        tokens_out=1,
        seconds=0.1,
    )


# How a metric is shown


@pytest.mark.parametrize(
    ("name", "title", "lower"),
    [
        ("neg_log_loss", "log loss", True),
        ("neg_root_mean_squared_error", "root mean squared error", True),
        ("roc_auc", "ROC AUC", False),
        ("neg_brier_score", "Brier score", True),
        ("r2", "R²", False),
        ("f1_macro", "F1 macro", False),
    ],
)
def test_a_scorer_is_shown_by_its_plain_name(name, title, lower):
    metric = ShownMetric(name)
    assert (metric.title, metric.lower_is_better) == (title, lower)
    assert metric.value(-0.25) == (0.25 if lower else -0.25)


def test_a_missing_score_is_a_dash_and_gains_nothing():
    metric = ShownMetric("accuracy")
    assert metric.text(None) == metric.text(math.nan) == "-"
    assert metric.gain(None, 0.5) == metric.gain(0.5, None) == metric.gain(math.nan, 0.5) == ""


@pytest.mark.parametrize(
    ("name", "score", "baseline", "words"),
    [
        ("accuracy", 0.9, 0.85, "better by 0.0500"),
        ("accuracy", 0.8, 0.85, "worse by 0.0500"),
        ("neg_log_loss", -0.33, -0.3, "worse by 0.0300 (10.0 %)"),
        ("accuracy", 0.85, 0.85, "equal"),
    ],
)
def test_a_gain_is_said_in_the_direction_of_the_metric(name, score, baseline, words):
    assert ShownMetric(name).gain(score, baseline) == words


def test_the_examples_in_the_documentation_hold():
    for module in pkgutil.iter_modules(offline_tune.report.__path__, "offline_tune.report."):
        assert doctest.testmod(importlib.import_module(module.name)).failed == 0


@pytest.mark.parametrize("text", ["漢字" * 40, "e\u0301" * 200, LONG, HOSTILE, "\u202e\x00", "", "\n"])
def test_a_printable_text_fits_its_columns_and_holds_no_control_character(text):
    shown = printable(text, 60)
    assert shown.isprintable() and 0 < columns(shown) <= 60


# The summary


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_summary_fits_a_terminal(made, name):
    report = reports.read(made(name))
    lines = reports.summary(report).replace(str(report.folder.path), "RUN").splitlines()
    assert len(lines) <= 40
    assert max(map(columns, lines)) <= 100
    assert all(line.isprintable() for line in lines)


def test_a_summary_tells_winner_default_ensemble_and_gain(binary):
    text, winner, metric = reports.summary(binary), binary.result.winner, binary.metric
    assert re.search(rf"Winner: xgboost, trial {winner.trials[0]}, proposed by: ", text)
    for scored in (winner, binary.result.best_default, binary.result.ensemble):
        assert metric.text(scored.cv["neg_log_loss"]) in text
        assert metric.text(scored.test["neg_log_loss"]) in text
    assert metric.gain(winner.cv["neg_log_loss"], binary.result.best_default.cv["neg_log_loss"]) in text


def test_a_summary_tells_sources_failures_and_the_next_command(binary):
    text = reports.summary(binary)
    assert re.search(r"model 16 \(best 0\.\d{4}\)", text)
    assert "Failed: 2 of 30 trials" in text
    assert "1 took longer than the time limit of one trial: stopped after 300 s" in text
    assert predict_command(binary.folder.path) in text


@pytest.mark.parametrize("name", list(RECIPES))
def test_no_loss_is_shown_with_a_minus_or_its_scorers_name(made, pages, name):
    text = reports.summary(reports.read(made(name))) + " ".join(pages(name).text)
    assert "neg_" not in text
    assert not re.search(r"(?<![\d.e])-0\.\d{4}", reports.summary(reports.read(made(name))))


# The table


def test_the_leaderboard_has_a_row_for_each_trial_the_best_first(binary):
    board = reports.table(binary)
    assert sorted(board["trial"]) == list(range(30))
    losses = [loss for loss in board["log_loss"] if loss is not None and not math.isnan(loss)]
    assert losses == sorted(losses) and losses[0] == -binary.ranked[0].score
    assert list(board["rank"][:28]) == list(range(1, 29))


def test_the_leaderboard_file_keeps_whole_numbers_whole(copied):
    folder = copied("binary")
    reports.write(folder)
    lines = folder.leaderboard.read_text().splitlines()
    place = lines[0].split(",").index("params_xgboost.n_estimators")
    cells = {line.split(",")[place] for line in lines[1:]}
    assert all(cell == "" or cell.isdigit() for cell in cells) and len(cells) > 3


def test_a_failed_trial_stands_in_the_leaderboard_with_its_reason(binary):
    board = reports.table(binary)
    failed = board[board["state"] == "fail"]
    assert len(failed) == 2 and failed["rank"].isna().all() and failed["log_loss"].isna().all()
    assert set(failed["outcome"]) == set(binary.reasons)


def test_hostile_names_survive_the_leaderboard_unchanged(made, tmp_path):
    import pandas as pd

    report = reports.read(made("hostile"))
    path = tmp_path / "board.csv"
    path.write_text(reports.table(report).to_csv(index=False), encoding="utf-8")
    board = pd.read_csv(path)
    assert set(board["params_family"]) == {HOSTILE, LONG}
    assert f"params_b{LONG}" in board.columns


# The page


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_page_loads_nothing(pages, name):
    page = pages(name)
    loading = [(k, v) for k, v in page.attributes if k in ("src", "href", "srcset", "data", "action", "poster")]
    assert all(value.startswith("#") for _, value in loading)
    styles = "".join(page.styles) + "".join(value or "" for key, value in page.attributes if key == "style")
    assert "url(" not in styles and "@import" not in styles
    assert not {"link", "iframe", "img", "object", "embed", "base", "form"} & set(page.tags)


@pytest.mark.parametrize("name", list(RECIPES))
def test_hostile_text_adds_no_element_and_no_handler(pages, name):
    page = pages(name)
    assert page.tags.count("script") == 4 and page.tags.count("style") == 1 and page.tags.count("title") == 1
    assert not [key for key, _ in page.attributes if key.startswith("on")]
    assert not [value for _, value in page.attributes if value and "alert" in value]
    assert set(page.tags) <= set(pages("binary").tags)


def test_hostile_text_is_shown_as_text(pages):
    text = " ".join(pages("hostile").text)
    assert "</script><script>alert(1)" in text
    assert "{{7*7}}" in text


def test_the_policy_admits_the_pages_own_scripts_and_no_others(pages):
    page = pages("binary")
    policy = next(value for _, value in page.attributes if value and "script-src" in value)
    own = [text for attributes, text in page.scripts if attributes.get("type") != "application/json"]
    digests = {f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in own}
    allowed = re.search(r"script-src ([^;]*)", policy)[1].split()
    assert set(allowed) == digests and len(digests) == 2
    assert policy.startswith("default-src 'none';")


def test_texts_of_charts_hold_no_markup_but_line_breaks(made):
    report = reports.read(made("hostile"))
    figures = [history_figure(report), parallel_figure(report), forecast_figure(forecasts_of(report.trials))]
    for text in texts_in([[figure.traces, figure.layout] for figure in figures]):
        assert "<" not in text.replace("<br>", "") and len(text) < 2000


def texts_in(content):
    if isinstance(content, str):
        return [content]
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list | tuple) else ()
    return [text for part in parts for text in texts_in(part)]


def test_json_inside_a_script_cannot_end_it():
    hostile = {"</script>": ["<!--", "&", "\u2028", math.nan, math.inf, (1, 2)]}
    text = script_json(hostile)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"</script>": ["<!--", "&", "\u2028", None, None, [1, 2]]}


def test_a_lone_surrogate_does_not_stop_a_report(copied):
    folder = copied()
    content = json.loads(folder.result.read_text())
    content["facts"]["columns"] = [{"name": "a\ud800b", "kind": "numeric", "unique": 1, "missing": 0}]
    content["facts"]["families"] = {"linear": {"hyperparameters": {"C": "\udfff"}}}
    folder.result.write_text(json.dumps(content))
    reports.write(folder)
    assert "ab" in folder.report.read_text(encoding="utf-8")


def test_the_page_tells_the_winner_and_its_gain(binary, pages):
    text = " ".join(" ".join(pages("binary").text).split())
    winner, default, metric = binary.result.winner, binary.result.best_default, binary.metric
    assert "xgboost wins" in text
    assert metric.gain(winner.test["neg_log_loss"], default.test["neg_log_loss"]) in text
    assert "how much each tree corrects" in text


def test_every_chart_has_its_place_in_the_page(pages):
    for name in ("binary", "regression"):
        page = pages(name)
        places = {value.removeprefix("chart-") for key, value in page.attributes if key == "id" and "chart-" in value}
        assert places == set(page.json("figure-data"))


def test_a_classification_shows_a_confusion_matrix_and_no_residuals(pages):
    page = pages("binary")
    assert "residuals" not in page.json("figure-data")
    assert ("class", "matrix") in page.attributes


def test_a_regression_shows_residuals_and_no_confusion_matrix(pages):
    page = pages("regression")
    assert "residuals" in page.json("figure-data")
    assert ("class", "matrix") not in page.attributes


def test_without_a_test_part_the_page_speaks_of_cross_validation_only(pages):
    text = " ".join(pages("bare").text)
    assert "untouched test part" not in text and "than the best default, cross-validated" in text
    assert ("id", "test") not in pages("bare").attributes


def test_without_an_ensemble_the_page_shows_none(pages):
    assert "Ensemble" in " ".join(pages("binary").text)
    assert "nsemble" not in " ".join(pages("bare").text).replace("ensemble", "", 1)


def test_a_study_of_failures_only_says_why(made, pages):
    text = " ".join(pages("failed").text)
    assert "No winner" in text and "No trial has a score." in text
    assert "the model refused the configuration" in text
    assert "Winner: none" in reports.summary(reports.read(made("failed")))


def test_a_single_trial_makes_a_report(made, pages):
    assert set(pages("single").json("figure-data")) == {"history"}
    assert "Best 1 of 1 trial\n" in reports.summary(reports.read(made("single")))


def test_a_page_draws_a_bounded_number_of_trials(binary):
    some = binary.family_trials
    many = tuple(replace(some[number % len(some)], number=number) for number in range(1000))
    page = Page(reports.render(replace(binary, trials=many)))
    assert page.tags.count("tr") < 400
    parallel = page.json("figure-data")["parallel"]
    assert sum(trace["x"].count(0) for trace in parallel["traces"]) <= MOST_LINES + 1


def test_thirty_trials_are_rendered_within_three_seconds(binary):
    began = time.process_time()
    reports.render(binary)
    assert time.process_time() - began < 3


# Charts


def test_the_history_shows_each_scored_trial_once_and_each_failure_below(binary):
    traces = {trace["name"]: trace for trace in history_figure(binary).traces}
    points = [x for name, trace in traces.items() if name not in ("best so far", "failed") for x in trace["x"]]
    assert sorted(points) == sorted(trial.number for trial in binary.ranked)
    assert traces["failed"]["x"] == [trial.number for trial in binary.failed]
    assert traces["best so far"]["y"] == [-score for _, score in binary.incumbents]


def test_an_axis_leaves_room_for_the_good_trials_beside_a_terrible_one():
    shown = [0.28, 0.29, 0.3, 0.31, 0.32, 9.0]
    (low, high), beyond = score_range(shown, lower_is_better=True)
    assert low < 0.28 and 0.32 < high < 1 and beyond == 1
    (low, high), beyond = score_range([-x for x in shown], lower_is_better=False)
    assert low < -0.32 and high > -0.28 and beyond == 1


@pytest.mark.parametrize("shown", [[], [0.3], [0.3, 0.3, 0.3], [0.3, 0.31, 0.32, 0.33]])
def test_an_axis_is_left_alone_where_all_scores_fit(shown):
    assert score_range(shown, lower_is_better=True) == (None, 0)


def test_a_line_passes_below_the_axis_of_a_parameter_that_its_trial_lacks(binary):
    figure = parallel_figure(binary)
    places = [y for trace in figure.traces for y in trace["y"] if y is not None]
    assert min(places) == -0.12 and max(places) == 1
    assert "without that parameter" in figure.note


def test_a_family_whose_parameters_never_varied_has_no_parallel_chart(binary):
    trial = binary.winner
    assert parallel_figure(replace(binary, trials=(trial,))) is None
    assert parallel_figure(replace(binary, trials=(trial, replace(trial, number=40)))) is None


def test_residuals_are_capped_and_skip_what_is_not_finite():
    truth = np.concatenate([np.arange(5000.0), [np.nan, np.inf]])
    figure = residual_figure(TestPart(truth=truth, predicted=truth - 1), "y")
    assert len(figure.traces[0]["x"]) == 3000 and set(figure.traces[0]["y"]) == {1.0}
    assert figure.note.startswith("3,000 of 5,000 rows")


@pytest.mark.parametrize("truth", [np.array(["a", "b"]), np.array([])])
def test_a_test_part_without_numbers_has_no_residuals(binary, truth):
    task = replace(binary.task, kind=TaskKind.REGRESSION)
    page = Page(reports.render(replace(binary, task=task, test=TestPart(truth=truth, predicted=truth))))
    assert "residuals" not in page.json("figure-data")


# Predicted and measured


def test_a_measured_outcome_is_scaled_by_the_history_before_its_prompt():
    trials = [a_trial(0, 0.0, source=Source.DEFAULT), a_trial(1, 1.0), a_trial(2, 2.0)]
    batch = {"prompt_digest": "p", "predicted": 0.5}
    trials += [a_trial(3, 3.0, **batch), a_trial(4, 2.0, **batch), a_trial(5, None, **batch)]
    found = forecasts_of(trials)
    # Before the prompt the best was 2 and the median 1, so the scale is 1; trial 3 does not count for trial 4.
    assert [(f.trial.number, f.measured) for f in found] == [(3, 1.0), (4, 0.0)]


def test_a_prediction_before_two_scores_has_no_scale():
    assert forecasts_of([a_trial(0, 1.0), a_trial(1, 2.0, predicted=0.1)]) == ()


def test_a_rank_correlation_needs_three_different_outcomes():
    trials = [a_trial(n, float(n), predicted=n**3 / 50) for n in range(8)]
    found = forecasts_of(trials)
    assert rank_correlation(found[:2]) is None
    backwards = [replace(f, measured=-f.predicted) for f in found]
    assert rank_correlation(backwards) == pytest.approx(-1)
    assert rank_correlation([replace(f, measured=1.0) for f in found]) is None


# Importances


def a_conditional_study(n):
    study, rng = optuna.create_study(direction="maximize"), np.random.default_rng(0)
    for number in range(n):
        family = ("a", "b")[number % 2]
        x, y = rng.random(2)
        names = {f"{family}.x": x, f"{family}.y": y}
        distributions = {name: FloatDistribution(0, 1) for name in names}
        trial = {"params": {"family": family, **names}, "value": -((x - 0.3) ** 2) if family == "a" else 5.0 - y}
        distributions["family"] = CategoricalDistribution(("a", "b"))
        study.add_trial(optuna.trial.create_trial(distributions=distributions, **trial))
    return study


def test_the_parameter_that_decides_within_the_winners_family_is_the_most_important():
    study = a_conditional_study(60)
    found = importances_of(study, trials_of(study), "a")
    assert list(found) == ["a.x", "a.y"] and found["a.x"] > 0.8
    assert sum(found.values()) == pytest.approx(1)


def test_few_trials_say_nothing_of_importance():
    study = a_conditional_study(14)
    assert importances_of(study, trials_of(study), "a") == {}
    assert importances_of(study, trials_of(study), "no such family") == {}


# The test part


def test_confusion_counts_truth_down_and_prediction_across():
    test = TestPart(truth=np.array([0, 0, 1, 1, 1]), predicted=np.array([0, 1, 1, 1, 2]))
    found = confusion_of(test, ("a", "b", "c"))
    assert found.counts.tolist() == [[1, 1, 0], [0, 2, 1], [0, 0, 0]]
    assert found.recalls == (0.5, 2 / 3, None) and found.precisions == (1.0, 2 / 3, 0.0)
    assert found.mistakes == (("a", "b", 1), ("b", "c", 1))


def test_many_classes_are_shown_by_their_commonest_mistakes(binary):
    truth = np.arange(3000) % 1000
    predicted = truth.copy()
    predicted[truth == 7] = 9
    task = replace(binary.task, classes=tuple(f"class {n}" for n in range(1000)))
    page = Page(reports.render(replace(binary, task=task, test=TestPart(truth=truth, predicted=predicted))))
    text = " ".join(" ".join(page.text).split())
    assert "1,000 classes are too many for a matrix" in text and "class 7 class 9 3" in text


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"text"])
def test_a_damaged_test_part_is_refused(copied, content):
    folder = copied()
    folder.test.write_bytes(content)
    with pytest.raises(StudyError, match=r"test.npz must hold the test part's truth and predictions"):
        reports.read(folder)


@pytest.mark.parametrize("arrays", [{"predicted": np.zeros((3, 2))}, {"predicted": np.zeros(4)}])
def test_a_test_part_of_other_shapes_is_refused(copied, arrays):
    folder = copied()
    np.savez(folder.test, truth=np.zeros(3), **arrays)
    with pytest.raises(StudyError, match=r"test.npz must hold one prediction for each row"):
        reports.read(folder)


def test_a_test_part_without_predictions_is_refused(copied):
    folder = copied()
    np.savez(folder.test, truth=np.zeros(3))
    with pytest.raises(StudyError, match=r"test.npz must hold the test part's truth and predictions, got TypeError"):
        reports.read(folder)


# Repeating


def test_the_command_to_repeat_reads_back_as_the_same_settings(tmp_path):
    from offline_tune.cli.commands import run
    from offline_tune.cli.settings import settings_of

    settings = RunSettings(
        data=tmp_path / "it's.csv",
        target='a "b"\n$c',
        out=tmp_path / "run",
        metric="roc_auc",
        families=("linear", "xgboost"),
        group="g g",
        seed=7,
        drafts=8,
        temperature=0.5,
        model=tmp_path / "m.gguf",
        budget=Budget(trials=9, seconds=90.5, llm_calls=3, llm_tokens=1000),
        limits=TrialLimits(seconds=20.0, memory_mib=512),
    )
    words = shlex.split(repeat_command(settings))
    assert words[:2] == ["offline-tune", "run"]
    given = run.make_context("run", words[2:]).params
    given.pop("as_json", None)
    assert settings_of(given) == replace(settings, out=tmp_path / "run-again")


# Writing


def test_writing_makes_three_files_that_agree(copied):
    folder = copied("binary")
    report = reports.write(folder)
    assert folder.summary.read_text(encoding="utf-8") == reports.summary(report)
    assert folder.report.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert not list(folder.path.glob("*.partial"))


def test_writing_twice_writes_the_same(copied):
    folder = copied("binary")
    reports.write(folder)
    before = [path.read_bytes() for path in (folder.report, folder.summary, folder.leaderboard)]
    reports.write(folder)
    assert before == [path.read_bytes() for path in (folder.report, folder.summary, folder.leaderboard)]


@pytest.mark.parametrize("name", ["report", "summary", "leaderboard"])
def test_a_file_that_cannot_be_written_is_said_in_one_line(copied, name):
    folder = copied()
    getattr(folder, name).mkdir()
    with pytest.raises(OutputError, match=f"the output must be writable, got Is a directory for .*{name}"):
        reports.write(folder)
    assert not list(folder.path.glob("*.partial"))
