"""The command line. Starts fast: everything heavy is imported by the command that needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from .trials_cli import app as trials

app = typer.Typer(
    name="dreamontage",
    help="One continuous video shot through pictures and clips pinned on a timeline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(trials)

StudioOption = Annotated[Path | None, typer.Option("--studio", help="Studio folder (default: DREAMONTAGE_HOME).")]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        envvar="DREAMONTAGE_PROFILE",
        help="auto, quality, fast or low-memory, own switches after it: fast,cache=0.1.",
    ),
]
RootsOption = Annotated[list[Path] | None, typer.Option("--media-root", help="Folder files may be taken from; repeat.")]
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command()
def serve(
    http: Annotated[bool, typer.Option("--http", help="Serve streamable HTTP instead of stdio.")] = False,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8765,
    token_file: Annotated[
        Path | None, typer.Option(envvar="DREAMONTAGE_TOKEN_FILE", help="File with the bearer token.")
    ] = None,
    allow_remote: Annotated[bool, typer.Option(help="Allow an address other machines can reach.")] = False,
    name: Annotated[list[str] | None, typer.Option("--name", help="Further host name clients use; repeat.")] = None,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", envvar="DREAMONTAGE_ALLOW_URLS", help="Take https links as sources.")
    ] = False,
    oauth_issuer: Annotated[
        str | None, typer.Option(envvar="DREAMONTAGE_OAUTH_ISSUER", help="Also take tokens of this OAuth issuer.")
    ] = None,
    public_url: Annotated[
        str | None, typer.Option(envvar="DREAMONTAGE_PUBLIC_URL", help="Address clients call; tokens are made for it.")
    ] = None,
    log: Annotated[str | None, typer.Option("--log", help="Form of the log on stderr: text or json lines.")] = None,
    profile: ProfileOption = None,
    studio: StudioOption = None,
    media_root: RootsOption = None,
) -> None:
    """Run the MCP server, on stdio or over HTTP."""
    from dreamontage.generator.machine import use_profile

    from .logs import configure
    from .store import Studio

    configure(log)
    use_profile(profile)
    with Studio(studio) as opened:
        if not http:
            from .app import build_server

            build_server(opened, roots=media_root or [], urls=allow_urls).run("stdio")
            return
        import socket

        import uvicorn

        from .auth import TOKEN_FILE, load_token
        from .http import check_host, http_app
        from .page.invitation import Invitation

        check_host(host, allow_remote)
        file = token_file or opened.folder / TOKEN_FILE
        page = Invitation(opened)
        served = http_app(
            opened, load_token(file), host=host, names=name or [], roots=media_root or [], urls=allow_urls,
            issued=_issued(oauth_issuer, public_url), invitation=page,
        )  # fmt: skip
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family) as listening:
            port = listening.getsockname()[1]
            shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
            address = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
            typer.echo(f"Dreamontage listens on {address}/mcp\nBearer token: in {file}", err=True)
            typer.echo(f"Page to look at: {page.link(address)} (opens once, within 15 minutes)", err=True)
            uvicorn.Server(uvicorn.Config(served, log_config=None, access_log=False)).run(sockets=[listening])


def _issued(issuer: str | None, public_url: str | None) -> Any:
    """What verifies the tokens of an OAuth issuer, where one is named."""
    if issuer is None:
        return None
    from dreamontage.schemas.errors import InvalidInput

    from .oauth import IssuedTokens

    if public_url is None:
        raise InvalidInput(
            "--oauth-issuer needs --public-url, the address that its tokens are made for",
            field="--public-url",
            allowed="the full address, such as https://studio.example/mcp",
        )
    return IssuedTokens(issuer, public_url)


@app.command()
def render(
    anchor: Annotated[
        list[str],
        typer.Option("--anchor", help="FILE[@SECOND[#IN-OUT]], e.g. lake.jpg@0 or walk.mp4@3.0#1-2.5; repeat."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for one-shot.mp4, sheet.jpg and report.json.")],
    beat: Annotated[list[str] | None, typer.Option("--beat", help='"0-4: slow pan left"; repeat.')] = None,
    duration: Annotated[float | None, typer.Option("--duration", help="Seconds.")] = None,
    quality: Annotated[str, typer.Option("--quality", help="previz, draft or standard.")] = "draft",
    format: Annotated[str, typer.Option("--format", help="auto, 16:9, 9:16 or 1:1.")] = "auto",
    fps: Annotated[int, typer.Option("--fps", help="Frames per second.")] = 24,
    model: Annotated[str, typer.Option("--model", help="Model id.")] = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the montage.")] = 0,
    steps: Annotated[int | None, typer.Option("--steps", help="Denoising steps.")] = None,
    guide: Annotated[str | None, typer.Option("--guide", help="off, loose or follow.")] = None,
    brief: Annotated[str, typer.Option("--brief", help="What the shot is about.")] = "",
    profile: ProfileOption = None,
    studio: StudioOption = None,
) -> None:
    """Render one shot into a folder, with a progress bar. The worker does it, as for agents; Ctrl-C cancels."""
    from dreamontage.generator.machine import use_profile

    from .rendering import Wish, render_to_folder

    use_profile(profile)
    wish = Wish(
        anchors=anchor, beats=beat or [], duration_s=duration, quality=quality, format=format, fps=fps, model=model,
        seed=seed, steps=steps, guide=guide, brief=brief,
    )  # fmt: skip
    render_to_folder(wish, out, studio)


@app.command()
def add(
    files: Annotated[list[Path], typer.Argument(help="Pictures and clips.")],
    studio: StudioOption = None,
) -> None:
    """Take pictures and clips into the studio and print their ids."""
    from .media.ingest import take_in_all
    from .media.roots import media_roots
    from .store import Studio
    from .tools.media import describe

    with Studio(studio) as opened:
        roots = media_roots(opened.inbox, [file.absolute().parent for file in files])
        typer.echo(describe(take_in_all(opened, [str(file.absolute()) for file in files], roots, "files")))


@app.command("export")
def export_montage(
    montage: Annotated[str, typer.Argument(help="Id of a montage.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the .otio file, and its media beside it.")],
    revision: Annotated[int | None, typer.Option("--revision", min=1, help="An earlier revision.")] = None,
    studio: StudioOption = None,
) -> None:
    """Write a montage as an OpenTimelineIO timeline with copies of its media, for video editors."""
    from .store import Studio
    from .timeline_export import export_timeline

    with Studio(studio) as opened:
        typer.echo(export_timeline(opened, opened.get_montage(montage, revision), out, copies=True))


@app.command("import")
def import_montage(
    timeline: Annotated[Path, typer.Argument(help="An .otio file; its media are taken from its folder.")],
    studio: StudioOption = None,
    media_root: RootsOption = None,
) -> None:
    """Make a montage of an OpenTimelineIO timeline: clips become anchors, markers with a length become beats."""
    from .context import App
    from .media.roots import media_roots
    from .outlook import plan_answer
    from .store import Studio
    from .timeline_import import montage_from_timeline
    from .tools.planning import describe_plan

    with Studio(studio) as opened:
        file = timeline.absolute()
        tools = App(opened, media_roots(opened.inbox, [file.parent, *(media_root or [])]))
        montage, notes = montage_from_timeline(tools, str(file))
        answer = plan_answer(tools, montage, "draft", notes=notes)
        opened.create_montage(montage)
        typer.echo(describe_plan(answer))


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("demo"),
    quality: Annotated[str, typer.Option("--quality", help="draft or standard.")] = "standard",
) -> None:
    """Make a shot from the demo's photographs and clip through a real MCP client, then edit and re-render it."""
    from .demo import run

    run(out, quality)


@app.command()
def doctor(studio: StudioOption = None) -> None:
    """Check this installation and say what to do about every problem."""
    from .doctor import run

    raise typer.Exit(run(studio))


@app.command(context_settings=_PASS_ON, add_help_option=False)
def train(context: typer.Context) -> None:
    """Train models: autoencoder, adapt. See `dreamontage train --help`."""
    from dreamontage.generator.training.cli import app as training

    _hand_over(training, "dreamontage train", context.args)


@app.command(context_settings=_PASS_ON, add_help_option=False)
def evaluate(context: typer.Context) -> None:
    """Measure the model against cross-fade and previz. See `dreamontage evaluate --help`."""
    from dreamontage.generator.evaluation.cli import app as evaluation

    _hand_over(evaluation, "dreamontage evaluate", context.args)


@app.command(context_settings=_PASS_ON, add_help_option=False)
def bench(context: typer.Context) -> None:
    """What models take and what switches give: estimate, window, switches. See `dreamontage bench --help`."""
    from dreamontage.generator.bench.cli import app as benches

    _hand_over(benches, "dreamontage bench", context.args)


@app.command(context_settings=_PASS_ON, add_help_option=False)
def data(context: typer.Context) -> None:
    """Build sets of training clips. See `dreamontage data --help`."""
    from dreamontage.generator.training.data_cli import app as training_data

    _hand_over(training_data, "dreamontage data", context.args)


@app.command(context_settings=_PASS_ON, add_help_option=False)
def studio(context: typer.Context) -> None:
    """Look at a studio, check it, tidy it: show, check, clean. See `dreamontage studio --help`."""
    from .studio_cli import app as studio_commands

    _hand_over(studio_commands, "dreamontage studio", context.args)


@app.command()
def models(profile: ProfileOption = None) -> None:
    """Models: which are here, which can be fetched, what each needs, how it would be run here, its licence."""
    from dreamontage.generator.machine import use_profile

    from .models_cli import show

    use_profile(profile)
    raise typer.Exit(show())


@app.command()
def pull(
    model: Annotated[str, typer.Argument(help="Id of a model, see `dreamontage models`.")],
    source: Annotated[Path | None, typer.Option("--from", help="Folder with owner/name folders, not the hub.")] = None,
    accept: Annotated[bool, typer.Option("--accept", help="Accept the licence without being asked.")] = False,
    lora: Annotated[str, typer.Option("--lora", help="Fetch this LoRA for the model, not the model itself.")] = "",
) -> None:
    """Fetch a model's weights, or a LoRA for it; the same command goes on where an earlier one stopped."""
    from .models_cli import fetch

    raise typer.Exit(fetch(model, source, accept, lora))


@app.command(context_settings=_PASS_ON, add_help_option=False)
def token(context: typer.Context) -> None:
    """Access tokens for HTTP: add, list, revoke. See `dreamontage token --help`."""
    from .tokens_cli import app as token_commands

    _hand_over(token_commands, "dreamontage token", context.args)


def _hand_over(command: Any, name: str, arguments: list[str]) -> None:
    command(args=arguments, prog_name=name)


def main() -> NoReturn:
    """Run the command line; what a user can mend is one sentence on stderr and exit status 1."""
    from pydantic import ValidationError

    from dreamontage.schemas.errors import DreamontageError
    from dreamontage.schemas.montage import describe_validation_error

    try:
        app()
    except DreamontageError as error:
        typer.echo(str(error), err=True)
    except ValidationError as error:
        typer.echo(describe_validation_error(error), err=True)
    except OSError as error:
        typer.echo(f"{error.filename or 'The system'}: {error.strerror or error}.", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
