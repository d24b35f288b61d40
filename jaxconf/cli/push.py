"""`jaxconf push`."""

import dataclasses

from jaxconf.cli.common import Command, Folder, Quiet, Repository, answer, hub_progress, say, terminal


@dataclasses.dataclass(frozen=True)
class Push(Command):
    """Upload a run to the Hugging Face hub as a dataset, private by default: its tables, figures, report and site, and
    a card that says what was found and what each column means.

    The tables and pages hold the text that was analysed, and the facts the names of the model and of the text as they
    were given: look at them before you make a dataset public.
    """

    folder: Folder
    """the run folder that `jaxconf analyze` wrote"""
    name: Repository
    """the dataset, which is made if there is none; its files of an earlier run are replaced"""
    public: bool = False
    """let everybody read the dataset; without this a new dataset is private, and an existing one stays what it is"""
    quiet: Quiet = False

    def run(self) -> None:
        from jaxconf.results.publish import push

        console = terminal()
        with hub_progress(self.quiet):
            commit = push(self.folder, self.name, public=self.public)
        table = f"hf://datasets/{self.name}/neurons.parquet"
        found = {"dataset": self.name, "commit": commit, "table": table}
        answer(console, lambda: found, lambda: say(console, f"Commit: {commit}\nTable: {table}"))
