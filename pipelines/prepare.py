"""Stage `prepare`: render the embedded data set if a source uses it, check every source's files, write the index."""

from pipelines.evaluation_set import require_scorable
from pipelines.params import Layout, read_params
from pipelines.stage import no_arguments, run_stage
from pipelines.tracking import mlflow_client as tracking
from pipelines.tracking.stage_records import Records
from ssvos.data.index import write_index
from ssvos.data.preparation import prepare, sequences_by_split
from ssvos.progress import progress_bar


def main() -> None:
    no_arguments(__doc__)
    params = read_params()
    config = params.base
    tracking.connect()
    layout = Layout(config.data.name)
    table = prepare(config, layout.roots(config), progress_bar)
    require_scorable(config, layout, table)
    write_index(table, layout.index)
    tracking.write(Records.read(params, layout).prepare())
    counts = ", ".join(f"{count} {split}" for split, count in sequences_by_split(table).items())
    print(f"{layout.index}: {len(table)} frames; sequences: {counts}")


if __name__ == "__main__":
    run_stage(main)
