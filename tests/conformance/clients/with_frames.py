"""Tables of a server as frames of all three libraries, told as JSON: python with_frames.py URL INSTRUMENT."""

import json
import sys

import pandas as pd
import polars as pl
import pyarrow as pa

import tapewick
from tapewick.client import Table

url, instrument = sys.argv[1:]


def text(value: object) -> object:
    """A value as JSON has it: decimals as plain text, what is missing as null, times as integers of ns."""
    if value is None or value is pd.NaT or value is pd.NA or value != value:
        return None
    return format(value, "f") if type(value).__name__ == "Decimal" else value


def told(table: Table) -> dict[str, object]:
    exact, floats = table.to_polars(), table.to_polars(decimals="float")
    panda, arrow = table.to_pandas(), table.to_arrow()
    times = [name for name, field in table.fields.items() if field.kind == "time"]
    decimals = [name for name, field in table.fields.items() if field.kind == "decimal"]
    assert type(table.frame()) is pl.DataFrame and type(table.frame("pandas")) is pd.DataFrame
    assert type(table.frame("arrow")) is pa.Table
    assert all(floats[name].dtype == pl.Float64 for name in decimals)
    assert all(table.to_pandas(decimals="float")[name].dtype == "float64" for name in decimals)
    assert all(table.to_arrow(decimals="float").schema.field(name).type == pa.float64() for name in decimals)
    return {
        "polars": {
            name: exact[name].to_physical().to_list() if name in times else list(map(text, exact[name].to_list()))
            for name in exact.columns
        },
        "pandas": {
            name: panda[name].astype("int64").tolist() if name in times else list(map(text, panda[name].tolist()))
            for name in panda.columns
        },
        "arrow": {
            name: arrow[name].cast(pa.int64()).to_pylist()
            if name in times
            else list(map(text, arrow[name].to_pylist()))
            for name in arrow.column_names
        },
        "floats": {name: floats[name].to_list() for name in decimals},
        "types": {
            "polars": {name: str(type) for name, type in exact.schema.items()},
            "pandas": {name: str(type) for name, type in panda.dtypes.items()},
            "arrow": {field.name: str(field.type) for field in arrow.schema},
        },
    }


with tapewick.connect(url) as tape:
    answers = {
        "candles": told(tape.candles(instrument, "1m", fill="null")),
        "trades": told(tape.trades(instrument)),
        "live": told(tape.live(f"trade@{instrument}").table()),
        "quotes": told(tape.live(f"ticker@{instrument}").table()),
    }
sys.stdout.write(json.dumps(answers))
