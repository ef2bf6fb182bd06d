// NumPy arrays in and out, through the buffer protocol: no NumPy headers at build time.
#pragma once

#include <nanobind/nanobind.h>

#include <vector>

#include "column.hpp"
#include "ledger.hpp"
#include "row.hpp"

namespace tapewick {

// A borrowed view of an array's memory; holds the array alive.
class View {
public:
    View(nanobind::handle array, int flags);
    ~View() { PyBuffer_Release(&buffer_); }
    View(const View&) = delete;
    View& operator=(const View&) = delete;
    const Py_buffer* operator->() const { return &buffer_; }

private:
    Py_buffer buffer_;
};

// The Python objects the bindings use; fetched once when the module is loaded.
struct Names {
    nanobind::object empty, int64, int32, int8, candle, ingested, taken;
};
void load_names();
const Names& names();

// A one-dimensional column of signed integers as it lies in memory. Raises TypeError for anything
// that does not convert to int64 without loss.
class ColumnView {
public:
    explicit ColumnView(nanobind::handle array);
    operator Column() const;

private:
    static nanobind::object accepted(nanobind::handle array);
    nanobind::object array_;
    View view_;
};

// Rows of an (n, width) int64 array, one after the other. Raises ValueError for another shape.
std::vector<i64> matrix(nanobind::handle array, int width);
std::vector<Row> rows_from(nanobind::handle candles);

nanobind::object vector_out(const i64* values, std::size_t count);
nanobind::object matrix_out(const std::vector<i64>& values, int width);
nanobind::object rows_out(const std::vector<Row>& rows);
nanobind::object ranges_out(const std::vector<Range>& ranges);

}  // namespace tapewick
