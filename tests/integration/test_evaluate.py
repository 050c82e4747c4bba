"""Completions and judges of whole jobs: sampling against transformers' distribution, judge models against its probabilities, and
the same bytes after an interruption."""

import collections
import math
import os
import shutil
import signal
import time

import pytest
import torch

import support

import plain_model
from test_resume import Running

MODEL = support.TINY / "llama-tied"


def run(folder, prompts, ranks=1, model=MODEL, **changes):
    folder.mkdir(exist_ok=True)
    changes = {"edit": {"skip": True}, "select": {"layers": [1], "positions": [-1]}, **changes}
    job = support.write_job(folder / "job.json", model, prompts, **changes)
    done = support.run_job(job, folder / "out", ranks)
    assert done.code == 0, done.text
    return folder / "out"


def with_test_prompts(folder, positive, negative, source):
    """The prompts of `source` with other test sets: lists of prompts or of objects."""
    shutil.copytree(source, folder)
    for side, found in (("positive", positive), ("negative", negative)):
        support.write_json(folder / f"{side}_test.json", found)
    return folder


def first_token_probabilities(prompt, temperature, top_p):
    """Text of each first token -> probability, from transformers' logits with its own warpers."""
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper
    model, tokenizer = plain_model.load_model(MODEL), plain_model.load_tokenizer(MODEL)
    ids = torch.tensor(plain_model.token_ids(tokenizer, [prompt]))
    with torch.inference_mode():
        logits = model(ids).logits[:, -1].double()
    logits = TemperatureLogitsWarper(temperature)(ids, logits)
    if top_p < 1:
        logits = TopPLogitsWarper(top_p)(ids, logits)
    end = model.generation_config.eos_token_id
    ends = end if isinstance(end, list) else [end]
    found = collections.Counter()
    for token, p in enumerate(torch.softmax(logits, -1)[0].tolist()):
        if p > 0:
            found["" if token in ends else tokenizer.decode([token], skip_special_tokens=True)] += p
    return found


@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.7, 0.6)])
def test_sampled_tokens_follow_transformers(tmp_path, prompts, temperature, top_p):
    draws = 1500
    prompt = "DO THE SAME AGAIN"
    folder = with_test_prompts(tmp_path / "sets", [prompt] * draws, ["how is one"], prompts)
    evaluate = {"max_new_tokens": 1, "temperature": temperature, "top_p": top_p, "seed": 5}
    out = run(tmp_path / "run", folder, evaluate=evaluate)
    counts = collections.Counter(line["response"] for line in support.completions(out)
                                 if (line["side"], line["intervention"]) == ("positive", "baseline"))
    assert counts.total() == draws
    expected = first_token_probabilities(prompt, temperature, top_p)
    assert set(counts) <= set(expected), "a token outside of the nucleus"
    if top_p < 1:
        likely = {text for text, p in expected.items() if p * draws > 12}
        assert likely <= set(counts), "a token of the nucleus never came"
    # Pearson's statistic; cells that expect fewer than 5 are one. Mean `degrees`, variance twice that.
    rare = [text for text, p in expected.items() if p * draws < 5]
    cells = [(counts[text], p * draws) for text, p in expected.items() if p * draws >= 5]
    if rare:
        cells.append((sum(counts[text] for text in rare), max(1e-9, sum(expected[text] for text in rare) * draws)))
    statistic = sum((count - mean) ** 2 / mean for count, mean in cells)
    degrees = len(cells) - 1
    assert degrees >= 3
    assert statistic < degrees + 4 * math.sqrt(2 * degrees), (statistic, degrees)


JUDGES = [
    {"name": "asked", "model": {"path": str(support.TINY / "qwen2-untied"), "prompt": "Is {response} loud?\nAsked: {prompt}",
                                "says_yes": ["yes", "Yes"], "says_no": ["no"]}},
    {"name": "raw", "model": {"path": str(MODEL), "format": "raw", "prompt": "{response} ({prompt}):", "says_yes": ["a"],
                              "says_no": ["b"], "before_verdict": " ="}, "threshold": 0.4, "min_words": 2},
    {"name": "talk", "opposite": True, "model": {"path": str(support.TINY / "qwen2-untied"), "format": "conversation",
                                                 "says_yes": ["unsafe"], "says_no": ["safe"], "before_verdict": "\n\n"}},
    {"name": "sure", "kind": "metric", "threshold": -2},
    {"name": "own", "markers": ["T", "x"]},
]


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """The same job with judges, sampled, on several layouts of ranks."""
    folder = tmp_path_factory.mktemp("layouts")
    prompts = support.write_prompts(folder / "prompts", counts=(8, 4, 6))
    found = {}
    for ranks, tensor_parallel in ((1, 1), (2, 2), (4, 2)):
        found[ranks, tensor_parallel] = run(
            folder / f"{ranks}-{tensor_parallel}", prompts, ranks, tensor_parallel=tensor_parallel, judges=JUDGES,
            evaluate={"max_new_tokens": 6, "temperature": 1, "top_p": 0.95, "seed": 3})
    return found


def test_every_layout_gives_the_same_completions_and_verdicts(layouts):
    one = support.completions(layouts[1, 1])
    assert len(one) == 5 * 6 and len({line["response"] for line in one}) > 6
    for layout, out in layouts.items():
        assert support.same_completions(out, layouts[1, 1]), layout


def judge_probability(judge, exchange):
    """P(yes) / (P(yes) + P(no)) of the first token, from transformers in float32, by the same words of the job file."""
    path = judge["model"]["path"]
    model, tokenizer = plain_model.load_model(path), plain_model.load_tokenizer(path)
    raw = judge["model"].get("format") == "raw"
    if judge["model"].get("format") == "conversation":
        text = tokenizer.apply_chat_template([{"role": "user", "content": exchange["prompt"]},
                                              {"role": "assistant", "content": exchange["response"]}], tokenize=False)
    else:
        template = judge["model"]["prompt"]
        text = "".join({"prompt": exchange["prompt"], "response": exchange["response"]}.get(piece, piece)
                       for piece in template.replace("{", "\0").replace("}", "\0").split("\0"))
        if not raw:
            text = tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False)
    before = judge["model"].get("before_verdict", "")
    text += "" if text.endswith(before) else before
    ids = tokenizer(text, add_special_tokens=raw)["input_ids"]
    with torch.inference_mode():
        p = torch.softmax(model(torch.tensor([ids])).logits[0, -1].double(), -1)

    def of(answers):
        return sum(p[token].item() for token in {tokenizer(text + a, add_special_tokens=raw)["input_ids"][len(ids)] for a in answers})

    yes, no = of(judge["model"]["says_yes"]), of(judge["model"]["says_no"])
    return yes / (yes + no)


def test_judge_models_equal_transformers(layouts):
    checked = 0
    for line in support.completions(layouts[2, 2])[::4]:
        for judge in JUDGES[:3]:
            said = line["verdicts"][judge["name"]]
            expected = judge_probability(judge, line)
            assert said["score"] == pytest.approx(expected, abs=1e-4), (judge["name"], line)
            short = len(line["response"].split()) < judge.get("min_words", 0)
            if abs(expected - judge.get("threshold", 0.5)) > 1e-3:
                assert said["verdict"] == (expected > judge.get("threshold", 0.5) and not short)
            checked += 1
    assert checked >= 20


def test_evaluation_counts_what_the_lines_say(layouts):
    out = layouts[4, 2]
    lines, evaluation = support.completions(out), support.read_json(out / "evaluation.json")
    names = ["markers", *(judge["name"] for judge in JUDGES), "metric"]
    assert [judge["name"] for judge in evaluation["judges"]] == names
    for judge in evaluation["judges"]:
        for rate in judge["rates"]:
            said = [line["verdicts"][judge["name"]]["verdict"] for line in lines
                    if (line["side"], line["intervention"]) == (rate["side"], rate["intervention"])]
            assert rate["n"] == len(said) == 6 and rate["not_judged"] == 0
            assert rate["share"] == pytest.approx(sum(said) / 6)
            assert rate["standard_error"] == pytest.approx(math.sqrt(rate["share"] * (1 - rate["share"]) / 6))
        assert {rate["category"] for rate in judge["rates_by_category"]} == {"words"}
    turned = {judge["name"]: judge["opposite"] for judge in evaluation["judges"]}
    assert [name for name in names if turned[name]] == ["talk"]
    assert len(evaluation["agreement"]) == len(names) * (len(names) - 1) // 2
    for pair in evaluation["agreement"]:
        first, second = ([line["verdicts"][name]["verdict"] != turned[name] for line in lines] for name in pair["judges"])
        agree = sum(a == b for a, b in zip(first, second)) / len(lines)
        chance = sum(first) * sum(second) / len(lines) ** 2 + (1 - sum(first) / len(lines)) * (1 - sum(second) / len(lines))
        assert pair["n"] == len(lines) and pair["raw"] == pytest.approx(agree)
        assert pair["kappa"] is None if chance == 1 else pair["kappa"] == pytest.approx((agree - chance) / (1 - chance))
    assert [line["shows_concept"] for line in lines] == [line["verdicts"]["markers"]["verdict"] for line in lines]
    models = {judge["name"]: judge["model"] for judge in evaluation["judges"]}
    assert models["markers"] is None and models["asked"]["name"] == "qwen2-untied" and len(models["asked"]["digest"]) == 64
    assert str(support.ROOT) not in (out / "evaluation.json").read_text() + (out / "manifest.json").read_text()
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "What the judges say" in report and "Cohen" in report and "asked" in report


# Tokens of the tiny model are bytes.
STOPS = ["e", "a", "T", "0", "{", "Z", "s", "é", " o"]


@pytest.fixture(scope="module")
def long_job(tmp_path_factory):
    """A job whose completions take many waves, and a judge."""
    folder = tmp_path_factory.mktemp("long")
    prompts = support.write_prompts(folder / "prompts", counts=(6, 4, 40), words=(45, 55))
    return support.write_job(folder / "job.json", MODEL, prompts, edit={"skip": True}, judges=[JUDGES[0]],
                             select={"layers": [1], "positions": [-1]},
                             evaluate={"max_new_tokens": 12, "temperature": 1.2, "seed": 1, "stop": STOPS})


def recorded(out):
    files = (out / ".bearing/evaluate").glob("completions-*.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in files)


@pytest.fixture(scope="module")
def uninterrupted(long_job, tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    done = support.run_job(long_job, out, 2)
    assert done.code == 0, done.text
    return out


@pytest.mark.parametrize("at", ["a few rows", "most rows", "the judge"])
def test_an_interrupted_evaluation_gives_the_same_bytes(long_job, uninterrupted, tmp_path, at):
    running = Running(long_job, tmp_path / "out", tmp_path / "err.txt")
    enough = {"a few rows": lambda: recorded(running.out) >= 5, "most rows": lambda: recorded(running.out) >= 150,
              "the judge": lambda: (running.out / ".bearing/judge/asked.json").exists()}[at]
    deadline = time.monotonic() + 120
    while not enough():
        assert running.process.poll() is None and time.monotonic() < deadline, running.text
        time.sleep(0.001)
    ranks = running.processes("bearing-worker")
    for rank in ranks:
        os.kill(rank.pid, signal.SIGSTOP)
    assert not (running.out / "completions.jsonl").exists(), "the stage was over too soon for this test"
    before = recorded(running.out)
    running.process.kill()
    running.process.wait()
    for rank in ranks:
        rank.kill()
    assert support.wait_until_gone(support.SESSION + running.mark, 30) == []
    if at == "most rows":  # As a crash of the machine would leave it.
        path = running.out / ".bearing/evaluate/completions-0.jsonl"
        path.write_bytes(path.read_bytes()[:-17])
    done = support.run_job(long_job, running.out, 2)
    assert done.code == 0, done.text
    for name in ("completions.jsonl", "evaluation.json"):
        assert (running.out / name).read_bytes() == (uninterrupted / name).read_bytes(), name
    rerun = recorded(running.out) - recorded(uninterrupted)
    assert 0 <= rerun < 60, f"of {before} recorded rows {rerun} were made again"
    if at == "the judge":
        assert "evaluate" in done.err and "(resumed)" in next(line for line in done.err.splitlines() if line.startswith("evaluate "))


def test_stops_and_how_rows_end(uninterrupted):
    lines = support.completions(uninterrupted)
    assert not any(stop in line["response"] for line in lines for stop in STOPS)
    ends = collections.Counter(line["finish"] for line in lines)
    assert ends["stop"] > 5 and ends["length"] > 5, ends
    assert all(line["tokens"] == 12 for line in lines if line["finish"] == "length")


def test_one_prompt_and_duplicates(tmp_path, prompts):
    twice = {"instruction": "how is one twice", "category": "a"}
    folder = with_test_prompts(tmp_path / "sets", ["DO ONE"], [twice, {**twice, "category": "b"}, twice], prompts)
    out = run(tmp_path / "run", folder)
    lines = support.completions(out)
    assert len(lines) == 2 * 1 + 3 * 3
    negative = [line for line in lines if line["intervention"] == "addition"]
    assert [line["category"] for line in negative] == ["a", "b", "a"] and len({line["response"] for line in negative}) == 1
    rates = support.read_json(out / "evaluation.json")["rates_by_category"]
    assert {(rate["category"], rate["n"]) for rate in rates if rate["side"] == "negative"} == {("a", 2), ("b", 1)}
    # Each of the equal prompts is shown with completions of its own.
    assert (out / "report.html").read_text(encoding="utf-8").count("not generated") == 0


def test_prompts_of_50_and_of_8000_tokens(tmp_path, prompts):
    wide = shutil.copytree(MODEL, tmp_path / "wide")
    config = support.read_json(wide / "config.json")
    support.write_json(wide / "config.json", {**config, "max_position_embeddings": 8300})
    tokenizer = plain_model.load_tokenizer(MODEL)
    long = "DO " + "TEA " * 4200
    while len(plain_model.token_ids(tokenizer, [long])[0]) > 8200:
        long = long[:-200]
    count = len(plain_model.token_ids(tokenizer, [long])[0])
    assert count > 7900
    folder = with_test_prompts(tmp_path / "sets", [long, "DO " + "TEA " * 12], ["how is one"], prompts)
    out = run(tmp_path / "run", folder, model=wide)
    assert len(support.completions(out)) == 2 * 2 + 3
    # On the model whose context it does not fit into, it is refused before anything else is done.
    job = support.write_job(tmp_path / "job.json", MODEL, folder)
    done = support.run_job(job, tmp_path / "refused")
    assert done.code != 0 and f"prompt=1 tokens={count} context=512" in done.err, done.text
    assert not (tmp_path / "refused/means.safetensors").exists()


def test_judges_that_cannot_work_are_named_before_work(tmp_path, prompts):
    def refused(judge, *texts, **changes):
        job = support.write_job(tmp_path / "job.json", MODEL, prompts, judges=[judge], **changes)
        done = support.run_job(job, tmp_path / "out")
        assert done.code == 2, done.text
        for text in texts:
            assert text in done.err, done.text
        assert not (tmp_path / "out/collect.json").exists()

    asked = JUDGES[0]["model"]
    refused({"model": {**asked, "path": str(tmp_path / "none")}}, "judges[0].model.path: ")
    refused({"model": {**asked, "says_no": ["yesterday"]}}, "judges[0].model.says_no: begins with the same token")
    refused({"model": {"path": str(MODEL), "preset": "harmbench"}}, "judges[0].model.prompt_file: the preset harmbench takes")
    refused({"model": {**asked, "prompt": "", "prompt_file": str(tmp_path / "none.txt")}}, "judges[0].model.prompt_file: ")
    refused({"model": {**asked, "promt": "x"}}, 'did you mean "prompt"?')
    refused({"markers": ["x"]}, "evaluate.stop_token_ids: outside the vocabulary: id=900", evaluate={"stop_token_ids": [900]})


def test_the_harmbench_preset_reads_the_card(tmp_path, prompts):
    judge = shutil.copytree(MODEL, tmp_path / "classifier")
    (judge / "README.md").write_text('# Card\n```\nP = {"prompt": \'\'\'Behavior: {behavior}\nGeneration: {generation}\nAnswer:\'\'\'}\n```\n')
    out = run(tmp_path / "run", prompts, judges=[{"model": {"path": str(judge), "preset": "harmbench", "says_yes": ["Y"],
                                                            "says_no": ["N"]}}])
    like = {"model": {"path": str(MODEL), "format": "raw", "says_yes": ["Y"], "says_no": ["N"],
                      "prompt": "Behavior: {prompt}\nGeneration: {response}\nAnswer:"}}
    for line in support.completions(out)[::5]:
        assert line["verdicts"]["harmbench"]["score"] == pytest.approx(judge_probability(like, line), abs=1e-4)


# Like Llama Guard's: the conversation by roles, and the judge's turn at the end without being asked for.
GUARD_TEMPLATE = ("{% for m in messages %}{{ 'User' if m.role == 'user' else 'Agent' }}: {{ m.content | trim }}\n\n{% endfor %}"
                  "Is the last message of the Agent safe?\n\n")
CARD = '# Card\n```\nP = {"prompt": \'\'\'Behavior: {behavior}\nGeneration: {generation}\nAnswer:\'\'\'}\n```\n'


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A tiny model whose vocabulary has the verdicts of both presets as tokens, as the classifiers' have."""
    folder = tmp_path_factory.mktemp("classifier") / "model"
    shutil.copytree(MODEL, folder)
    model, tokenizer = plain_model.load_model(MODEL), plain_model.load_tokenizer(MODEL)
    tokenizer.add_tokens(["unsafe", "safe", "yes", "Yes", "no", "No"])
    tokenizer.chat_template = GUARD_TEMPLATE
    torch.manual_seed(5)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        rows = model.get_output_embeddings().weight[-6:]
        rows.copy_(torch.randn_like(rows) * 0.05)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.mark.parametrize("preset, like", [
    ("llama-guard", {"format": "conversation", "says_yes": ["unsafe"], "says_no": ["safe"], "before_verdict": "\n\n"}),
    ("harmbench", {"format": "raw", "says_yes": ["yes", "Yes"], "says_no": ["no", "No"],
                   "prompt": "Behavior: {prompt}\nGeneration: {response}\nAnswer:"})])
def test_presets_with_a_model_that_has_their_verdicts(classifier, tmp_path, prompts, preset, like):
    """All that the preset sets is left to it."""
    out = run(tmp_path / "run", prompts, concept={"name": "refusal"}, judges=[{"model": {"path": str(classifier), "preset": preset}}])
    [judge] = [j for j in support.read_json(out / "evaluation.json")["judges"] if j["name"] == preset]
    assert judge["opposite"] and judge["min_words"] == (15 if preset == "llama-guard" else 0)
    vocabulary = plain_model.load_tokenizer(classifier).get_vocab()
    assert judge["model"]["yes_token_ids"] == [vocabulary[t] for t in like["says_yes"]]
    assert judge["model"]["no_token_ids"] == [vocabulary[t] for t in like["says_no"]]
    assert 0 < judge["model"]["mean_verdict_probability"] < 1
    for line in support.completions(out)[::5]:
        said = line["verdicts"][preset]
        want = judge_probability({"model": {"path": str(classifier), **like}}, line)
        assert said["score"] == pytest.approx(want, abs=1e-4)
        if abs(want - 0.5) > 1e-3:
            assert said["verdict"] == (want > 0.5 and len(line["response"].split()) >= judge["min_words"])
