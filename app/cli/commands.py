"""The commands, one row each. The dispatch, `--help`, the README's table and COMMANDS.md are made from these rows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One verb: its argument, what it does, and the module whose `main(arguments)` runs it.

    A pipeline's verb has no module: pipelines/studio.py knows it. `nested` are verbs of a verb.
    """

    verb: str
    argument: str
    summary: str
    module: str = ""
    nested: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        """What is typed."""
        words = ("python launch.py", "" if self.verb == "ui" else self.verb, self.argument)
        return " ".join(filter(None, words))


COMMANDS = (
    Command("ui", "", "open the studio in the browser", "app.cli.ui"),
    Command("generate", "PROMPT", "draw candidates with DALL·E and rank them with CLIP"),
    Command("optimize", "PROMPT", "let CLIP's gradient change a picture step by step (VQGAN-CLIP)"),
    Command("guide", "PROMPT", "let CLIP's gradient guide a diffusion model from noise (Disco Diffusion)"),
    Command("edit", "FILE", "change a picture from one text to another (DiffusionCLIP)"),
    Command("diffuse", "PROMPT", "draw candidates by latent diffusion and rank them with CLIP"),
    Command("batch", "FILE", "draw, edit or score the rows of a table", "app.cli.batch"),
    Command("classify", "FILES", "say which of some labels fits each picture", "app.cli.see.classify"),
    Command("explain", "FILE PROMPT", "say why a picture fits a prompt", "app.cli.see.explain"),
    Command("probe", "FOLDER", "teach labels from a folder of pictures for each", "app.cli.see.probe"),
    Command("score", "FOLDER PROMPT", "score pictures for a prompt, as csv", "app.cli.see.score"),
    Command(
        "library",
        "VERB",
        "find pictures by words and likeness, in any folder; pack them",
        "app.cli.library",
        ("search", "index", "zip"),
    ),
    Command("export", "FILES", "cut pictures out, ready for stickers, emoji and icons", "app.cli.export"),
    Command("replay", "FILE.png", "run a picture's record again and compare", "app.cli.replay"),
    Command("walkthrough", "FILE.png", "show how a picture of diffuse was drawn", "app.cli.walkthrough"),
    Command(
        "models",
        "",
        "list, fetch, add and remove models",
        "app.cli.models",
        ("fetch", "add", "remove", "seal"),
    ),
    Command("deploy", "OWNER/NAME", "send this to a Hugging Face Space", "app.deploy"),
    Command("data", "", "build the training data", "pipelines.training.data.cli"),
    Command("train", "NAME", "train one of the small models", "pipelines.training.cli", ("queue",)),
    Command("study", "NAME", "do a comparison of the field again", "pipelines.training.studies.cli"),
    Command("evaluate", "", "measure the models", "pipelines.evaluation.cli"),
    Command("bench", "NAME", "measure speed", "app.cli.bench"),
    Command("plan", "", "how long many people would wait, and what it takes", "app.cli.plan"),
    Command(
        "soak", "", "try a studio under load, kills, odd requests, a full disk and slow lines", "app.cli.soak"
    ),
    Command("showcase", "", "remake the example pictures", "pipelines.evaluation.showcase"),
    Command("test", "", "run the tests"),
)


def overview() -> str:
    """What `python launch.py --help` prints."""
    width = max(len(command.usage) for command in COMMANDS)
    lines = [f"  {command.usage.ljust(width)}  {command.summary}" for command in COMMANDS]
    rows = "\n".join(lines)
    return f"Atelier makes pictures with the CLIP family.\n\n{rows}\n\nEach of them tells its flags with --help.\n"


def table() -> str:
    """The commands as a table of Markdown."""
    rows = [f"| `{command.usage}` | {command.summary} |" for command in COMMANDS]
    return "\n".join(["| command | what it does |", "|---|---|", *rows]) + "\n"
