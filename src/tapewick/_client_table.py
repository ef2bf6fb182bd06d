"""Rows as columns: numpy with nothing else installed, polars, pandas and Arrow where they are.

Prices, sizes and sums stay exact: ``Decimal`` values, or integer mantissas beside a scale. A float
appears only where the reader asks for one with ``decimals="float"``, and is then the nearest there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from tapewick._client_show import ENDS, as_html, as_text, cell
from tapewick.errors import ConfigError, MissingExtra, ModelError
from tapewick.formats.table import PRECISION, Field

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

__all__ = ["Decimals", "Library", "Table"]

Decimals: TypeAlias = Literal["exact", "float"]
Library: TypeAlias = Literal["polars", "pandas", "arrow"]

R = TypeVar("R", bound=msgspec.Struct)
INT64 = 2**63


class Table(Generic[R]):
    """``n`` rows of one shape, in the order they were read; immutable.

    ``fields``: name, kind and scale of each column. ``position``: the resume token the rows stand for.
    ``complete``: whether the closed candles, and all between, are proven whole; None where that cannot be told.
    """

    def __init__(
        self,
        fields: Sequence[Field],
        rows: Sequence[R],
        *,
        position: str = "",
        complete: bool | None = None,
    ) -> None:
        self.fields = {field.name: field for field in fields}
        self.rows = tuple(rows)
        self.position = position
        self.complete = complete

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[R]:
        return iter(self.rows)

    def __repr__(self) -> str:
        return as_text(self._title(), list(self.fields), self._ends())

    def _repr_html_(self) -> str:
        """The cell a notebook shows."""
        return as_html(self._title(), list(self.fields), self._ends())

    def head(self, n: int = 5) -> Table[R]:
        """A table of the first ``n`` rows; it stands for no position."""
        if n < 0:
            raise ModelError(f"head({n}): the number of rows is at least 0")
        return Table(tuple(self.fields.values()), self.rows[:n])

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Column ``name`` of shape (n,): int64, ``datetime64[ns]`` (UTC), or objects: ``Decimal``, ``str``, ``bool``;
        None where there is no value."""
        kind = self._field(name).kind
        if kind == "int":
            return np.array(self.values(name), np.int64)
        if kind == "time":
            return self._times(name).astype("datetime64[ns]")
        made = np.empty(len(self), object)
        made[:] = self.values(name)
        return made

    def values(self, name: str) -> list[Any]:
        """Column ``name`` as Python values; times are int UTC ns."""
        self._field(name)
        return [getattr(row, name) for row in self.rows]

    def scale(self, name: str) -> int:
        """Digits after the point of decimal column ``name``: the instrument's, or more if a value has more."""
        return self._mantissas(name)[1]

    def mantissas(self, name: str) -> npt.NDArray[Any]:
        """Decimal column ``name`` times ``10**scale(name)``: int64 of shape (n,), Python integers if one is larger.

        Raises ``ModelError`` where a value is missing: integers have no way to say so.
        """
        values, _ = self._mantissas(name)
        if any(value is None for value in values):
            raise ModelError(f"{name} has empty values; read them with table[{name!r}] or floats({name!r})")
        wide = any(not -INT64 <= value < INT64 for value in values if value is not None)
        return np.array(values, object if wide else np.int64)

    def floats(self, name: str) -> npt.NDArray[np.float64]:
        """Decimal column ``name`` as the nearest float64, NaN where there is no value."""
        values, scale = self._mantissas(name)
        divisor = 10**scale
        return np.array([np.nan if value is None else value / divisor for value in values], np.float64)

    # -- frames ------------------------------------------------------------------------------

    def to_numpy(self, *, decimals: Decimals = "exact") -> dict[str, npt.NDArray[Any]]:
        """Every column as ``table[name]`` gives it; ``decimals="float"``: float64 instead of ``Decimal``."""
        return {name: self.floats(name) if self._as_float(name, decimals) else self[name] for name in self.fields}

    def to_polars(self, *, decimals: Decimals = "exact") -> polars.DataFrame:
        """A polars frame: ``Decimal(38, scale)`` or ``Float64``, ``Datetime("ns", "UTC")``. Raises ``MissingExtra``."""
        pl = _library("polars", "a polars DataFrame", "polars")
        series = []
        for name, field in self.fields.items():
            if field.kind == "time":
                made = pl.Series(name, self.values(name), dtype=pl.Int64).cast(pl.Datetime("ns", "UTC"))
            elif self._as_float(name, decimals):
                made = pl.Series(name, [_none_for_nan(one) for one in self.floats(name).tolist()], dtype=pl.Float64)
            else:
                types = {"decimal": pl.Decimal(PRECISION, self._decimal_scale(field)), "int": pl.Int64}
                types |= {"text": pl.String, "bool": pl.Boolean}
                made = pl.Series(name, self.values(name), dtype=types[field.kind])
            series.append(made)
        frame: polars.DataFrame = pl.DataFrame(series)
        return frame

    def to_pandas(self, *, decimals: Decimals = "exact") -> pandas.DataFrame:
        """A pandas frame: ``object`` columns of ``Decimal`` or ``float64``, times ``datetime64[ns, UTC]``,
        ``complete`` as the nullable ``boolean``. Raises ``MissingExtra``."""
        pd = _library("pandas", "a pandas DataFrame", "pandas")
        columns: dict[str, Any] = self.to_numpy(decimals=decimals)
        for name, field in self.fields.items():
            if field.kind == "time":
                columns[name] = pd.to_datetime(columns[name], utc=True)
            elif field.kind == "bool":
                columns[name] = pd.array(self.values(name), dtype="boolean")
            elif field.kind == "text":
                columns[name] = pd.array(self.values(name), dtype="str")
        frame: pandas.DataFrame = pd.DataFrame(columns)
        return frame

    def to_arrow(self, *, decimals: Decimals = "exact") -> pyarrow.Table:
        """An Arrow table: ``decimal128(38, scale)`` or ``float64``, ``timestamp[ns, UTC]``. Raises ``MissingExtra``."""
        pa = _library("pyarrow", "an Arrow table", "arrow")
        columns = {}
        for name, field in self.fields.items():
            if self._as_float(name, decimals):
                columns[name] = pa.array(self.floats(name), pa.float64(), from_pandas=True)
                continue
            types = {"int": pa.int64(), "text": pa.string(), "bool": pa.bool_(), "time": pa.timestamp("ns", "UTC")}
            own = pa.decimal128(PRECISION, self._decimal_scale(field)) if field.kind == "decimal" else types[field.kind]
            columns[name] = pa.array(self.values(name), own)
        made: pyarrow.Table = pa.table(columns)
        return made

    def frame(self, library: Library | None = None, *, decimals: Decimals = "exact") -> Any:
        """A frame of ``library``; without one, polars if it is installed, else pandas. Raises ``MissingExtra``."""
        if library is None:
            return self._any_frame(decimals)
        makers = {"polars": self.to_polars, "pandas": self.to_pandas, "arrow": self.to_arrow}
        if library not in makers:
            raise ConfigError(f"no frames of {library!r}; there are: {', '.join(makers)}")
        return makers[library](decimals=decimals)

    def _any_frame(self, decimals: Decimals) -> Any:
        try:
            return self.to_polars(decimals=decimals)
        except MissingExtra:
            pass
        try:
            return self.to_pandas(decimals=decimals)
        except MissingExtra:
            raise MissingExtra("a DataFrame", "polars", "polars") from None

    # -- inside ------------------------------------------------------------------------------

    def _title(self) -> str:
        return f"<Table of {len(self):,} row{'' if len(self) == 1 else 's'}>"

    def _ends(self) -> list[list[str]]:
        """The rows to show as text: one more than are shown, for that to be told."""
        few = self.rows if len(self) <= 2 * ENDS else (*self.rows[: ENDS + 1], *self.rows[-ENDS:])
        kinds = {name: field.kind for name, field in self.fields.items()}
        return [[cell(getattr(row, name), kind) for name, kind in kinds.items()] for row in few]

    def _field(self, name: str) -> Field:
        if not isinstance(name, str):
            rows = f"table.rows[{name!r}]" if isinstance(name, int) else "table.rows"
            raise ModelError(
                f"a table is read by column, table[{next(iter(self.fields), 'name')!r}], not by {name!r}; "
                f"rows are in {rows}, the first ones in table.head()"
            )
        if name not in self.fields:
            raise ModelError(f"no column {name!r}; there are: {', '.join(self.fields)}")
        return self.fields[name]

    def _as_float(self, name: str, decimals: Decimals) -> bool:
        if decimals not in ("exact", "float"):
            raise ConfigError(f"decimals={decimals!r}: write 'exact' or 'float'")
        return decimals == "float" and self.fields[name].kind == "decimal"

    def _times(self, name: str) -> npt.NDArray[np.int64]:
        """UTC ns; the least int64, which numpy and pandas show as NaT, where there is none."""
        return np.array([-INT64 if one is None else one for one in self.values(name)], np.int64)

    def _decimal_scale(self, field: Field) -> int:
        return self.scale(field.name) if field.kind == "decimal" else 0

    def _mantissas(self, name: str) -> tuple[list[int | None], int]:
        field = self._field(name)
        if field.kind != "decimal":
            raise ModelError(f"{name} holds no decimals; read it with table[{name!r}]")
        values: list[Decimal | None] = self.values(name)
        texts = [None if value is None else format(value, "f").partition(".") for value in values]
        scale = max([field.scale, *(len(text[2].rstrip("0")) for text in texts if text is not None)])
        return [None if one is None else int(one[0] + one[2][:scale].ljust(scale, "0")) for one in texts], scale


def _none_for_nan(value: float) -> float | None:
    return None if value != value else value


def _library(module: str, what: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:  # it is there, and something it needs is not
            raise
        raise MissingExtra(what, extra, module) from None
