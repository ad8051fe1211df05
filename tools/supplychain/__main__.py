"""Command line: `python -m tools.supplychain sbom | licences | audit`."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from tools.supplychain import audit as advisories
from tools.supplychain import licences as terms
from tools.supplychain import lock
from tools.supplychain import sbom as bill
from tools.supplychain.environments import EnvironmentFailed

VULNERABLE = 1
STALE = 3


@click.group(help="What the controller is made of.")
def main() -> None:
    """Entry point."""


@main.command()
@click.argument("target", default="out/sbom.cdx.json", type=click.Path(dir_okay=False, path_type=Path))
def sbom(target: Path) -> None:
    """Write the software bill of materials (CycloneDX JSON) of what runs in the image."""
    made = bill.make()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    click.echo(f"{target}: {len(made['components'])} packages, CycloneDX {made['specVersion']}")


@main.command()
def licences() -> None:
    """Write docs/licences.md. Needs Python 3.11, as the image has: a newer one lacks packages that 3.11 needs."""
    page = terms.render(bill.licences(bill.make()))
    terms.PAGE.write_text(page, encoding="utf-8")
    click.echo(f"{terms.PAGE}: {len(terms.listed())} packages")


@main.command()
@click.option(
    "--advisories", "given", type=click.Path(path_type=Path), help="A clone of the database; nothing is fetched then."
)
def audit(given: Path | None) -> None:
    """Look the locked packages up among known vulnerabilities: 1 where there is one, 3 where the database is too old."""
    pins = [*lock.read().values(), *lock.read(lock.BUILD).values(), *lock.read(lock.TOOLS).values()]
    report = advisories.audit(pins, given or advisories.fetch())
    for finding in report.findings:
        click.echo(str(finding))
    click.echo(
        f"{len(report.findings)} known vulnerabilities in {report.packages} packages,"
        f" by {report.advisories} advisories; database of {report.newest:%Y-%m-%d}"
    )
    if report.findings:
        sys.exit(VULNERABLE)
    if report.stale(datetime.now(UTC)):
        click.echo(
            f"The database is more than {advisories.STALE_DAYS} days old: it cannot know what was found since.", err=True
        )
        sys.exit(STALE)


if __name__ == "__main__":
    try:
        main()
    except (advisories.AuditError, bill.SbomError, terms.LicenceError, lock.LockError, EnvironmentFailed) as error:
        click.echo(str(error), err=True)
        sys.exit(2)
