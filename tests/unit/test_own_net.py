"""Nets of people's own: found, allowed, built, checked and trained."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from searchae.config import find_factory
from searchae.config.loader import load_study_file
from searchae.config.net_factory import FACTORY_VARIABLE
from searchae.config.schema import ModelParams, TrainParams, TrialParams
from searchae.errors import ModelError, SearchaeError, SpecError
from searchae.models import allowed_factory, check_own_net
from searchae.models.size import model_size
from searchae.training.trainer import Trainer
from tests.unit.own_nets import write_net
from tests.unit.tiny_training import TRAIN, VALIDATION, trainer

SHAPE = (1, 8, 8)
SAME_AS_OURS = """
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(
                nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(),
                nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.ReLU(),
                nn.Flatten(), nn.Linear(32, 4))
            self.decoder = nn.Sequential(
                nn.Linear(4, 32), nn.ReLU(), nn.Unflatten(1, (8, 2, 2)),
                nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1), nn.ReLU(),
                nn.ConvTranspose2d(4, 1, 4, stride=2, padding=1), nn.Sigmoid())

    def build(image_shape):
        return Net()
"""
DENSE = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, latent):
            super().__init__()
            self.down, self.up = nn.Linear(64, latent), nn.Linear(latent, 64)
        def encode(self, images):
            return self.down(images.flatten(1))
        def decode(self, latents):
            return torch.sigmoid(self.up(latents)).reshape(-1, 1, 8, 8)

    def build(image_shape, latent=3):
        return Net(latent)
"""
NO_LATENT = """
    from torch import nn

    def build(image_shape):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1), nn.Sigmoid())
"""
FLAT = DENSE.replace(".reshape(-1, 1, 8, 8)", "")
ATTENTIVE = """
    import torch.nn.functional as F
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Linear(64, 8), nn.Linear(8, 64)
        def encode(self, images):
            tokens = self.down(images.flatten(1)).reshape(-1, 1, 4, 2)
            return F.scaled_dot_product_attention(tokens, tokens, tokens).flatten(1)
        def decode(self, latents):
            return self.up(latents).sigmoid()

    def build(image_shape):
        return Net()
"""
RANDOM = NO_LATENT.replace("nn.ReLU()", "nn.ReLU(), nn.Dropout(0.3)")


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def write(code: str, *, allowed: bool = True, **args: Any) -> ModelParams:
        model = write_net(tmp_path, code, **args)
        if allowed:
            monkeypatch.setenv(FACTORY_VARIABLE, str(model.factory))
        return model

    return write


def trained(model: ModelParams, **train: Any) -> Trainer:
    given = {"epochs": 3, "batch_size": 16, "learning_rate": 1e-2, **train}
    return trainer(TrialParams(model, TrainParams(**given)))


def curve(run: Trainer) -> list[tuple[float, float]]:
    return [(r.train_mse, r.psnr_db) for r in run.epochs()]


# -- building and training


@pytest.mark.parametrize("train", [{}, {"regularizer": "clip+l1", "l1_weight": 0.1}])
def test_the_same_net_written_in_python_trains_to_the_bit_as_in_toml(
    write: Any, train: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCHAE_KERNELS", "off")
    ours = ModelParams(channels=(4, 8), latent_dim=4)
    assert curve(trained(write(SAME_AS_OURS), **train)) == curve(trained(ours, **train))


@pytest.mark.parametrize("code", [SAME_AS_OURS, DENSE, FLAT, NO_LATENT, RANDOM])
def test_a_resumed_training_goes_on_to_the_bit(write: Any, code: str) -> None:
    model = write(code)
    whole = curve(trained(model))
    first, second = trained(model), trained(model)
    next(first.epochs())
    torch.rand(7)  # other random numbers in between change nothing
    second.restore(first.state())
    assert curve(second) == whole[1:]
    assert len({psnr_db for _, psnr_db in whole}) == 3, "it learns"


def test_arguments_reach_the_function(write: Any) -> None:
    model = write(DENSE, latent=5)
    assert model_size(model, SHAPE).latent == 5
    assert model_size(model, SHAPE).parameters == 64 * 5 + 5 + 5 * 64 + 64


def test_a_net_without_a_latent_has_the_sparsity_of_its_weights(write: Any) -> None:
    run = trained(write(NO_LATENT), regularizer="clip+l1", l1_target="weights", epochs=1)
    list(run.epochs())
    weights = torch.cat([p.detach().flatten() for p in run.model.parameters()])
    assert run.history[0].sparsity == pytest.approx(float((weights.abs() < 1e-3).float().mean()))


def test_a_penalty_on_a_latent_needs_one(write: Any) -> None:
    with pytest.raises(
        ModelError, match='the net has no latent to put a penalty on; use "weights"'
    ):
        trained(write(NO_LATENT), regularizer="l1")
    with pytest.raises(ModelError, match='no latent, which "clip\\+contractive" acts on'):
        trained(write(NO_LATENT), regularizer="clip+contractive")


@pytest.mark.parametrize("code", [DENSE, SAME_AS_OURS])
def test_a_contractive_net_of_one_s_own_resumes_to_the_bit(write: Any, code: str) -> None:
    model = write(code)
    check_own_net(model, image_shape=SHAPE, is_contractive=True)
    penalty = {"regularizer": "contractive", "contractive_weight": 0.1}
    whole = curve(trained(model, **penalty))
    first, second = (trained(model, **penalty) for _ in range(2))
    next(first.epochs())
    second.restore(first.state())
    assert curve(second) == whole[1:]
    assert whole != curve(trained(model, regularizer="none"))


def test_a_net_of_one_s_own_can_be_k_sparse(write: Any) -> None:
    run = trained(write(DENSE, latent=5), regularizer="clip+k-sparse", active_latents=2)
    list(run.epochs())
    assert (run.model.encode(VALIDATION / 255).count_nonzero(1) == 2).all()
    with pytest.raises(ModelError, match="5 of the latent's values cannot be kept"):
        trained(write(DENSE, latent=4), regularizer="k-sparse", active_latents=5)
    with pytest.raises(ModelError, match="the net has no latent"):
        trained(write(NO_LATENT), regularizer="k-sparse")


def test_a_net_without_a_second_derivative_cannot_be_contractive(write: Any) -> None:
    """Torch has none of its fast attention on a CPU."""
    model = write(ATTENTIVE)
    check_own_net(model, image_shape=SHAPE)
    with pytest.raises(ModelError, match=r"differentiates the encoder of .* twice, which failed"):
        check_own_net(model, image_shape=SHAPE, is_contractive=True)


def test_weights_are_clipped_but_those_of_norms(write: Any) -> None:
    code = NO_LATENT.replace("nn.ReLU()", "nn.GroupNorm(2, 4), nn.ReLU()")
    run = trained(write(code), clip=0.01)
    list(run.epochs())
    named = {n: p.detach() for n, p in run.model.named_parameters()}
    scales = [p for n, p in named.items() if ".1." in n]
    assert len(scales) == 2
    assert max(float(p.abs().max()) for n, p in named.items() if ".1." not in n) <= 0.01
    assert float(scales[0].min()) > 0.5


def test_a_batch_of_one_image_is_left_out_with_batch_norm(write: Any) -> None:
    code = NO_LATENT.replace("nn.ReLU()", "nn.BatchNorm2d(4), nn.ReLU()")
    run = trained(write(code), batch_size=len(TRAIN) - 1)
    assert [len(b) for b in run._batches(1)] == [len(TRAIN) - 1]
    list(run.epochs())


def test_weights_on_a_net_s_output_range(write: Any) -> None:
    model = write(NO_LATENT.replace("nn.Sigmoid()", "nn.Tanh()"))
    symmetric = model.model_copy(update={"image_range": "symmetric"})
    run = trained(symmetric)
    list(run.epochs())
    with torch.no_grad():
        made: Tensor = run.model.eval()(VALIDATION / 255)
    assert 0 <= float(made.min()) <= float(made.max()) <= 1


# -- what may be run


def test_code_is_run_only_if_this_process_was_told_to(write: Any, tmp_path: Path) -> None:
    model = write(f"open({str(tmp_path / 'run')!r}, 'w')\n{NO_LATENT}", allowed=False)
    with pytest.raises(ModelError, match=r"never taken from a database.*--factory"):
        model_size(model, SHAPE)
    assert not (tmp_path / "run").exists()


def test_a_changed_file_is_refused(write: Any, tmp_path: Path) -> None:
    model = write(DENSE)
    (tmp_path / "nets.py").write_text((tmp_path / "nets.py").read_text() + "\n# changed")
    with pytest.raises(ModelError, match="differs from the one that the study was made with"):
        trained(model)


def test_another_function_is_refused(write: Any) -> None:
    model = write(DENSE)
    with pytest.raises(ModelError, match=r"built by another function, nets\.py:other"):
        allowed_factory("nets.py:other", str(model.factory_sha256))


def test_a_module_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_nets").mkdir()
    (tmp_path / "my_nets" / "__init__.py").write_text("")
    (tmp_path / "my_nets" / "dense.py").write_text(textwrap.dedent(DENSE))
    monkeypatch.syspath_prepend(tmp_path)
    factory = find_factory("my_nets.dense:build")
    monkeypatch.setenv(FACTORY_VARIABLE, factory.text)
    model = ModelParams(kind="python", factory=factory.text, factory_sha256=factory.sha256)
    assert model_size(model, SHAPE).latent == 3


def test_a_file_may_import_those_beside_it(write: Any, tmp_path: Path) -> None:
    (tmp_path / "layers_of_mine.py").write_text("from torch.nn import Sigmoid")
    code = "from layers_of_mine import Sigmoid\n" + textwrap.dedent(NO_LATENT)
    assert model_size(write(code), SHAPE).latent == 64


# -- what a function may do wrong, each in one line


def broken(body: str) -> str:
    return f"""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 3, padding=1)
            self.other = nn.Linear(2, 2)
        def encode(self, images):
            return self.layer(images).flatten(1)
        def decode(self, latents):
            return latents.reshape(-1, 1, 8, 8)

    def build(image_shape, width=1):
        net = Net()
        {body}
    """


ENCODE, DECODE = "net.encode = lambda x: {}; return net", "net.decode = lambda z: {}; return net"
USED = "net.other = None; "
OWN_FORWARD = SAME_AS_OURS.replace(", nn.Sigmoid())", ")").replace(
    "    def build",
    """        def forward(self, images):
            return {}

    def build""",
)


def test_a_forward_that_adds_something_to_the_decoder_is_refused(write: Any) -> None:
    model = write(OWN_FORWARD.format("self.decoder(self.encoder(images)).sigmoid()"))
    with pytest.raises(ModelError, match=r"other images with forward .* such as a sigmoid, into"):
        check_own_net(model, image_shape=SHAPE)


@pytest.mark.parametrize(
    "forward",
    [
        "self.decoder(self.encoder(images))",
        "(self.decoder(self.encoder(images)), self.encoder(images))",
        "1 / 0",
    ],
)
def test_a_forward_that_does_the_same_or_cannot_be_called_is_not_used(
    write: Any, forward: str
) -> None:
    assert check_own_net(write(OWN_FORWARD.format(forward)), image_shape=SHAPE).has_latent


FAULTS = {
    "a syntax error": ("def build(:", "cannot be loaded: SyntaxError"),
    "an error on import": (
        "1 / 0",
        "cannot be loaded: ZeroDivisionError: division by zero, line 1",
    ),
    "a missing package": ("import tensorflow_of_mine", "ModuleNotFoundError: No module named"),
    "no such function": ("def make(image_shape): pass", "has no function build; it has make"),
    "no function": ("build = 3", "has no function build; it has none"),
    "an unknown argument": (
        "def build(shape): pass",
        "build(shape) is given image_shape=(C, H, W)",
    ),
    "an error inside": (broken("raise ValueError('no')"), "failed: ValueError: no, line"),
    "nothing returned": (broken("pass"), "returned a NoneType, no nn.Module"),
    "a class": (broken("return Net"), "returned a type, no nn.Module"),
    "no parameters": (broken("return nn.Sigmoid()"), "has no trainable parameters"),
    "doubles": (broken("return net.double()"), "in torch.float64; parameters must be float32"),
    "one weight twice": (
        broken("net.other = net.layer; return net"),
        "one parameter under several names (layer.weight, other.weight)",
    ),
    "an unused layer": (broken("return net"), "get no gradient: other.weight, other.bias;"),
    "a crash while encoding": (
        broken(ENCODE.format("net.other(x)")),
        "failed at encoding images of shape (2, 1, 8, 8): RuntimeError",
    ),
    "a latent for all images": (
        broken(ENCODE.format("net.layer(x).flatten()[:3]")),
        "returned the shape (3,) for (2, 1, 8, 8), encoding images: the first dimension must be",
    ),
    "a tuple": (broken(ENCODE.format("(x, x)")), "returned a tuple, not a tensor of floats"),
    "whole numbers": (broken(ENCODE.format("net.layer(x).int()")), "returned torch.int32, not a"),
    "NaN": (broken(ENCODE.format("net.layer(x) / 0 * 0")), "returned NaN or infinity, encoding"),
    "images of another size": (
        broken(DECODE.format("z.reshape(-1, 1, 4, 16)")),
        "returns images of shape (1, 4, 16) for images of shape (1, 8, 8)",
    ),
    "a crash in training mode": (
        broken(USED + "net.encode = lambda x: 1 / 0 if net.training else net.layer(x); return net"),
        "failed: ZeroDivisionError",
    ),
    "cut off from its weights": (
        broken(USED + DECODE.format("z.detach().reshape(-1, 1, 8, 8)")),
        "get no gradient: layer.weight, layer.bias;",
    ),
}


@pytest.mark.parametrize(("code", "said"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_function_is_one_clear_line(write: Any, code: str, said: str) -> None:
    with pytest.raises(SearchaeError) as caught:
        check_own_net(write(code), image_shape=SHAPE)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_argument_that_the_function_does_not_take_is_named_with_those_it_takes(
    write: Any,
) -> None:
    with pytest.raises(ModelError) as caught:
        check_own_net(write(DENSE, width=5), image_shape=SHAPE)
    said = str(caught.value)
    assert "(image_shape, latent" in said
    assert "(image_shape, width): " in said
    assert "own_net.py" not in said, "a line of searchae's helps nobody"


# -- the study file

STUDY = """
[data]
name = "house-numbers"
[model]
kind = "python"
factory = "nets.py:build"
[model.args]
latent = {{ low = 2, high = 6 }}
width = 3
{further}
"""


def study(folder: Path, further: str = "", **changes: str) -> Any:
    (folder / "nets.py").write_text(textwrap.dedent(DENSE))
    path = folder / "mine.toml"
    text = STUDY.format(further=further)
    for old, new in changes.items():
        text = text.replace(old, new)
    path.write_text(text)
    return load_study_file(path, environment={})


def test_arguments_are_searched_like_any_other_value(tmp_path: Path) -> None:
    spec = study(tmp_path)
    (latent,) = spec.space
    assert (latent.key, latent.name, latent.integer) == ("model.args.latent", "latent", True)
    assert spec.resolve({latent.key: 4}).model.args == {"latent": 4, "width": 3}
    assert spec.fixed["model"]["args"] == {"width": 3}
    document = spec.document()
    assert document["model"]["args"] == {"latent": {"low": 2, "high": 6}, "width": 3}
    assert document["model"]["factory_sha256"] == find_factory(f"{tmp_path}/nets.py:build").sha256


def test_arguments_can_be_overridden(tmp_path: Path) -> None:
    study(tmp_path)
    path, variable = tmp_path / "mine.toml", {"SEARCHAE_MODEL__ARGS__WIDTH": "7"}
    spec = load_study_file(path, overrides=["model.args.latent=5"], environment=variable)
    assert spec.resolve({}).model.args == {"latent": 5, "width": 7}


@pytest.mark.parametrize(
    ("further", "said"),
    [
        ("[train]\nlatent_dim = 3", "train.latent_dim: unknown key"),
        ("[train]\nclip = { low = 0.1, high = 1.0 }\n", ""),
        ("image_shape = 3", "'image_shape' is no name of an argument"),
        ("when = 2020-01-01", "must be a number, a text, true, false or a list"),
        (
            "clip = { low = 1, high = 2 }\n[train]\nclip = { low = 0.1, high = 1.0 }",
            "is called clip",
        ),
        ("wide = { choices = [[1, 2], [3]] }", ""),
    ],
)
def test_what_a_study_may_say(tmp_path: Path, further: str, said: str) -> None:
    if not said:
        study(tmp_path, further)
        return
    with pytest.raises(SpecError, match=said.replace("(", r"\(")):
        study(tmp_path, further)


def test_keys_of_our_nets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"model.activation: is not used with kind = .python."):
        study(tmp_path, **{'kind = "python"': 'kind = "python"\nactivation = "tanh"'})
    with pytest.raises(SpecError, match=r"model.factory: and \[model.args\] are used with kind"):
        study(tmp_path, **{'kind = "python"': 'kind = "conv"'})
    with pytest.raises(SpecError, match=r"there is no file nets2\.py in "):
        study(tmp_path, **{"nets.py": "nets2.py"})
    with pytest.raises(SpecError, match=r"write it as mynets\.py:build"):
        study(tmp_path, **{"nets.py:build": "nets.py"})


def test_a_study_is_another_one_once_its_code_has_changed(tmp_path: Path) -> None:
    before = study(tmp_path)
    (tmp_path / "nets.py").write_text("def build(image_shape): pass")
    after = load_study_file(tmp_path / "mine.toml", environment={})
    (difference,) = before.differences(after)
    assert difference.startswith("model.factory_sha256: ")


def test_of_a_moved_file_only_the_content_counts(tmp_path: Path) -> None:
    before = study(tmp_path)
    (tmp_path / "nets.py").rename(tmp_path / "moved.py")
    text = (tmp_path / "mine.toml").read_text().replace("nets.py", "moved.py")
    (tmp_path / "mine.toml").write_text(text)
    assert load_study_file(tmp_path / "mine.toml", environment={}).differences(before) == []
