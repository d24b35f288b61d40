"""The config.json of published models as several versions of transformers save them in full, with every attribute.

`config_dumps.json` holds what those versions add to the attributes that are given. Record it anew with the
interpreters of environments that hold the versions, the oldest first:

    PYTHONPATH=tests/models python tests/support/config_dumps.py PYTHON [PYTHON ...]
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RECORD = Path(__file__).with_suffix(".json")
DUMP = """
import json, sys, transformers
given, dumps = json.load(sys.stdin), {}
for name, values in given.items():
    try:
        config = transformers.AutoConfig.for_model(**values)
    except ValueError:  # a family or a kind of rotation that this version does not know
        continue
    dumps[name] = json.loads(config.to_json_string(use_diff=False))
print(json.dumps([transformers.__version__, dumps]))
"""

Dump = dict[str, Any]
Change = dict[str, Any]  # {"set": {name: value}, "drop": [names]}


def dumps(published: Mapping[str, Dump]) -> Iterator[tuple[str, str, Dump]]:
    """(version, name, what that version saves) of each published model, and of each family's default config.

    The name of the latter is its model_type.
    """
    shared: Dump = {}
    own: dict[str, Dump] = {}
    beside: dict[str, Change] = {}
    for version, changes in json.loads(RECORD.read_text("utf-8")).items():
        shared = _changed(shared, changes["shared"])
        for kept, of_all in ((own, changes["defaults"]), (beside, changes["published"])):
            kept.update({name: _changed(kept.get(name, {}), change) for name, change in of_all.items()})
        for model_type, values in own.items():
            yield version, model_type, shared | values
        for name, change in beside.items():
            if name in published:
                given = published[name]
                yield version, name, _changed(shared | own[given["model_type"]] | given, change)


def _changed(before: Dump, change: Change) -> Dump:
    return {name: value for name, value in before.items() if name not in change.get("drop", ())} | change.get("set", {})


def _change(before: Dump, after: Dump) -> Change:
    change = {
        "set": {name: value for name, value in after.items() if name not in before or before[name] != value},
        "drop": sorted(before.keys() - after.keys()),
    }
    return {kind: names for kind, names in change.items() if names}


def record(pythons: list[str], published: Mapping[str, Dump]) -> None:
    """Write the record, from the dumps of the transformers that each of the interpreters has."""
    families = {values["model_type"] for values in published.values()}
    given = {name: {"model_type": name} for name in families} | {**published}
    shared: Dump = {}
    own: dict[str, Dump] = {}
    beside: dict[str, Change] = {}
    versions = {}
    for python in pythons:
        out = subprocess.run([python, "-c", DUMP], input=json.dumps(given), capture_output=True, text=True, check=True)
        version, found = json.loads(out.stdout.splitlines()[-1])
        plain = {name: dump for name, dump in found.items() if name not in published}
        common = {key: value for key, value in next(iter(plain.values())).items() if _in_all(plain, key, value)}
        after = {name: {key: dump[key] for key in dump.keys() - common.keys()} for name, dump in plain.items()}
        beyond = {
            name: _change(plain[published[name]["model_type"]] | published[name], found[name])
            for name in found.keys() & published.keys()
        }
        versions[version] = {
            "shared": _change(shared, common),
            "defaults": _changes(own, after),
            "published": _changes(beside, beyond),
        }
        shared, own, beside = common, after, beyond
    text = json.dumps(versions, indent=None, separators=(",", ":"), sort_keys=True)
    RECORD.write_text(text.replace('},"', '},\n"') + "\n", "utf-8")


def _in_all(plain: Mapping[str, Dump], key: str, value: Any) -> bool:
    return all(key in dump and dump[key] == value for dump in plain.values())


def _changes(before: Mapping[str, Dump], after: Mapping[str, Dump]) -> dict[str, Change]:
    """The changes of each entry; an entry that was there and stays as it was is left out."""
    every = {name: _change(before.get(name, {}), dump) for name, dump in after.items()}
    return {name: change for name, change in sorted(every.items()) if change or name not in before}


if __name__ == "__main__":
    from test_published import PUBLISHED

    record(sys.argv[1:], {name: hf for name, (_, hf) in PUBLISHED.items()})
