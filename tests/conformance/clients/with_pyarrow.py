"""Print the rows of an Arrow stream or a Parquet file as JSON: decimals as text, times as ns."""

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq


def main() -> None:
    with open(sys.argv[1], "rb") as file:
        if file.peek(4)[:4] == b"PAR1":
            table = pq.read_table(file)
        else:
            table = pa.ipc.open_stream(file).read_all()
    table.validate(full=True)
    schema = table.schema
    columns = {}
    for field in schema:
        column = table[field.name]
        if pa.types.is_timestamp(field.type):
            column = column.cast(pa.int64())

        columns[field.name] = column.to_pylist()
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    facts = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    types = {field.name: str(field.type) for field in schema}
    nullable = [field.name for field in schema if field.nullable]
    told = {"rows": rows, "facts": facts, "types": types, "nullable": nullable, "batches": len(table.to_batches())}
    json.dump(told, sys.stdout, default=lambda value: format(value, "f"))


main()
