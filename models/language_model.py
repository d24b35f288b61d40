"""`load` loads a model from a folder or from the hub; `LanguageModel` runs it."""

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from jaxconf.models import tokenizer_files
from jaxconf.models.checkpoint import Layers, load_params
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Output, Params, check_tokens, forward
from jaxconf.models.errors import InputError
from jaxconf.models.families import config_from_hf
from jaxconf.models.generate import generate
from jaxconf.models.hub import hub_errors
from jaxconf.models.mesh import make_mesh, mesh_of, over_data
from jaxconf.models.sites import Edit
from jaxconf.models.tokenizer import Tokenizer
from jaxconf.models.tokenizer_names import check_special, named_ids

TEXTS = ["config.json", *tokenizer_files.FILES]
BUNDLED = Path(__file__).parent / "bundled"
WEIGHTS = ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"]

_forward = jax.jit(forward, static_argnames=("config", "capture", "start_at_layer", "stop_at_layer"))


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """A decoder with its parameters, its tokenizer, and where they came from."""

    config: DecoderConfig
    params: Params  # nested dict of arrays, as the leaf table names them
    name: str  # the folder or hub id that was asked for
    revision: str | None  # the hub's commit, None for a folder
    folder: Path
    hf_config: Mapping[str, Any]  # the content of config.json

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, read on first use.

        Raises InputError if the folder has none, one that cannot be read, or one whose BOS or EOS the model lacks.
        """
        return Tokenizer.from_folder(self.folder, self.config.vocab_size)

    @property
    def has_tokenizer(self) -> bool:
        return tokenizer_files.has_tokenizer(self.folder)

    @functools.cached_property
    def eos_ids(self) -> frozenset[int]:
        """The ids that end a text: those of config.json, and those of the tokenizer if there is one."""
        return self._named_ids("eos_token_id") | (
            frozenset(self.tokenizer.eos_ids) if self.has_tokenizer else frozenset()
        )

    @functools.cached_property
    def end_ids(self) -> frozenset[int]:
        """The BOS and EOS ids of config.json, and those of the tokenizer if there is one."""
        bos = self.tokenizer.bos_id if self.has_tokenizer else None
        return self.eos_ids | self._named_ids("bos_token_id") | (frozenset() if bos is None else {bos})

    @property
    def bos_id(self) -> int | None:
        """The id that begins a text: the tokenizer's, or that of config.json if there is no tokenizer.

        Raises InputError if the model's vocabulary lacks it.
        """
        if self.has_tokenizer:
            return self.tokenizer.bos_id
        ids = self._named_ids("bos_token_id")
        check_special(ids, "bos", self.folder / "config.json", self.config.vocab_size)
        return next(iter(ids), None)

    def _named_ids(self, name: str) -> frozenset[int]:
        return frozenset(named_ids(self.hf_config, name, self.folder / "config.json"))

    @property
    def mesh(self) -> Mesh:
        """The devices that the parameters lie on."""
        return mesh_of(self.params)

    def over_data(self, array: np.ndarray) -> jax.Array:
        """Put an array whose first axis is sequences, such as token ids, on the model's mesh, split over that axis."""
        return over_data(self.mesh, array)

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids that are not text to be predicted: BOS, EOS, and for GPT-2, as in the paper's code, the newline."""
        if self.config.model_type == "gpt2" and self.has_tokenizer and self.tokenizer.newline_id is not None:
            return self.end_ids | {self.tokenizer.newline_id}
        return self.end_ids

    def apply(
        self,
        tokens: ArrayLike,
        edits: Mapping[str, Edit] | None = None,
        capture: tuple[str, ...] | list[str] = (),
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
    ) -> Output:
        """Run the compiled model: `.logits` float32 [b t v] and `.captured`, site → array.

        Arguments as for `jaxconf.models.decoder.forward`.

        Raises InputError, besides what `forward` raises, for token ids outside the vocabulary.
        """
        inputs = jnp.asarray(tokens)
        if inputs.ndim != (2 if start_at_layer is None else 3):
            raise InputError(
                f"the input has shape {list(inputs.shape)}; "
                "give token ids as [batch, position], or a stream as [batch, position, width]"
            )
        if isinstance(capture, str):
            raise InputError(f"capture is the string {capture!r}; give a list of site names, [{capture!r}]")
        if start_at_layer is None and not isinstance(inputs, jax.core.Tracer):
            check_tokens(self.config, np.asarray(inputs))
        return _forward(
            self.config, self.params, inputs, dict(edits or {}), tuple(capture), start_at_layer, stop_at_layer
        )

    def generate(
        self,
        prompts: Sequence[Sequence[int]] | np.ndarray,
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        edits: Mapping[str, Edit] | None = None,
    ) -> list[np.ndarray]:
        """The token ids generated after each prompt, up to and with the first of `eos_ids`.

        Arguments as for `jaxconf.models.generate.generate`.
        """
        ends = sorted(self.eos_ids)
        return generate(
            self.config,
            self.params,
            prompts,
            max_new_tokens,
            temperature=temperature,
            seed=seed,
            end_ids=ends,
            edits=edits,
        )


def load(
    folder_or_id: str | Path,
    revision: str | None = None,
    dtype: Any = jnp.float32,
    mesh: Mesh | None = None,
    layers: Layers = "all",
) -> LanguageModel:
    """Load a model from a local folder in Hugging Face layout, or from the hub by its id ("openai-community/gpt2") and
    revision.

    `dtype`: the type of the parameters. It is a floating-point type, None to keep the stored type, or a mapping to
    either from the names of parameters or of branches of them ("unembed", "blocks/attn", "ln_final/scale"). If several
    names of the mapping fit a parameter, the longest counts; if none does, the stored type is kept. `mesh`: the devices
    that hold the parameters, split as `jaxconf.models.mesh.RULES` says (by default the first device). `layers`: "last"
    reads only the last MLP, the final norm and the unembedding, which is enough for `jaxconf.weight_statistics`; such a
    model cannot be run, and its MLP's arrays have one layer.

    Loading a local folder never contacts the hub. Raises InputError for a model that cannot be found, is of an unknown
    family, or does not fit its own config.json, and for other values of `dtype` or `layers`.
    """
    if layers not in ("all", "last"):
        raise InputError(f"layers is {layers!r}; give 'all' or 'last'")
    folder, commit = find(folder_or_id, revision)
    hf_config = read_config(folder)
    config = config_from_hf(hf_config)
    params = load_params(config, folder, make_mesh(data=1) if mesh is None else mesh, dtype, layers)
    return LanguageModel(config, params, str(folder_or_id), commit, folder, hf_config)


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json. Raises InputError if it is missing or not a JSON object."""
    file = folder / "config.json"
    if not file.is_file():
        raise InputError(f"{folder} has no config.json; point to a folder that holds a model in Hugging Face layout")
    try:
        hf_config = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not valid JSON ({error}); download it again") from error
    if not isinstance(hf_config, dict):
        raise InputError(f"{file} is not a JSON object; download it again")
    return hf_config


def local_folder(name: str) -> Path:
    """The folder that a name stands for if it is not a hub id."""
    return BUNDLED if name == "bundled" else Path(name).expanduser()


def find(
    folder_or_id: str | Path, revision: str | None = None, weights: bool = True, what: str = "model"
) -> tuple[Path, str | None]:
    """The local folder of a model, and the hub's commit if the model is from the hub, else None.

    A model of the hub is downloaded, unless it is in the local cache. `weights`: whether to download the weights too.
    `what`: how errors call it, a model or a tokenizer.
    Raises InputError if there is no such model or it cannot be fetched.
    """
    name = str(folder_or_id)
    folder = local_folder(name)
    if folder.is_dir():
        if revision is not None:
            raise InputError(
                f"{name} is a local folder, which has no revisions; leave the revision out or give a hub id"
            )
        return folder, None
    problem = f"{name} is a file, not a folder" if folder.is_file() else f"no folder {name}"
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", name):
        raise InputError(f"{problem}; give a folder that holds a {what}, or a hub id such as openai-community/gpt2")
    with hub_errors(what, name, revision, f"{problem}, and "):
        path = Path(
            huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=[*TEXTS, *(WEIGHTS if weights else [])]
            )
        )
    if weights and not any(path.glob("*.safetensors")):
        raise InputError(
            f"the model {name} has no model.safetensors on the hub, and pickled weights are never loaded; "
            "choose a revision that has it"
        )
    return path, path.name
