#include "arrays.hpp"

namespace nb = nanobind;

namespace tapewick {

namespace {

const Names* loaded = nullptr;  // never freed: it must outlive every call, and the interpreter ends first

// `array` as int64 in C order; raises TypeError if that would lose anything.
nb::object as_int64(nb::handle array) {
    return array.attr("astype")(names().int64, nb::arg("order") = "C", nb::arg("casting") = "safe",
                                nb::arg("copy") = false);
}

nb::object filled(nb::object array, const void* source, std::size_t bytes) {
    const View view(array, PyBUF_WRITABLE);
    if (bytes) std::memcpy(view->buf, source, bytes);
    return array;
}

}  // namespace

void load_names() {
    const nb::module_ numpy = nb::module_::import_("numpy");
    const nb::module_ reference = nb::module_::import_("tapewick.engine._reference");
    const nb::object dtype = numpy.attr("dtype");
    loaded = new Names{numpy.attr("empty"),
                       dtype("int64"),
                       dtype("int32"),
                       dtype("int8"),
                       nb::module_::import_("tapewick.model").attr("CANDLE"),
                       reference.attr("Ingested"),
                       reference.attr("Taken")};
}

const Names& names() { return *loaded; }

View::View(nb::handle array, int flags) {
    if (PyObject_GetBuffer(array.ptr(), &buffer_, flags) != 0) nb::raise_python_error();
}

ColumnView::ColumnView(nb::handle array) : array_(accepted(array)), view_(array_, PyBUF_STRIDES) {
    if (view_->ndim != 1) throw nb::value_error("a column must have one dimension");
}

nb::object ColumnView::accepted(nb::handle array) {
    const nb::object dtype = array.attr("dtype");
    const bool as_is = dtype.is(names().int64) || dtype.is(names().int32) || dtype.is(names().int8);
    return as_is ? nb::borrow(array) : as_int64(array);
}

ColumnView::operator Column() const {
    return {static_cast<const char*>(view_->buf), view_->strides[0], static_cast<std::size_t>(view_->shape[0]),
            static_cast<int>(view_->itemsize)};
}

std::vector<i64> matrix(nb::handle array, int width) {
    const nb::object whole = as_int64(array);
    const View view(whole, PyBUF_C_CONTIGUOUS);
    if (view->ndim != 2 || view->shape[1] != width)
        throw nb::value_error(("an array of shape (n, " + std::to_string(width) + ") is needed").c_str());
    std::vector<i64> out(static_cast<std::size_t>(view->shape[0] * width));
    if (!out.empty()) std::memcpy(out.data(), view->buf, out.size() * sizeof(i64));
    return out;
}

std::vector<Row> rows_from(nb::handle candles) {
    const nb::object dtype = candles.attr("dtype");
    if (!dtype.is(names().candle) && !dtype.equal(names().candle))
        throw nb::type_error("rows must be an array of dtype CANDLE");
    const View view(candles, PyBUF_STRIDES);
    if (view->ndim != 1) throw nb::value_error("rows must have one dimension");
    std::vector<Row> out(static_cast<std::size_t>(view->shape[0]));
    const char* at = static_cast<const char*>(view->buf);
    for (Row& row : out) {
        std::memcpy(static_cast<void*>(&row), at, sizeof row);
        at += view->strides[0];
    }
    return out;
}

nb::object vector_out(const i64* values, std::size_t count) {
    return filled(names().empty(count, names().int64), values, count * sizeof(i64));
}

nb::object matrix_out(const std::vector<i64>& values, int width) {
    const nb::object shape = nb::make_tuple(values.size() / static_cast<std::size_t>(width), width);
    return filled(names().empty(shape, names().int64), values.data(), values.size() * sizeof(i64));
}

nb::object rows_out(const std::vector<Row>& rows) {
    return filled(names().empty(rows.size(), names().candle), rows.data(), rows.size() * sizeof(Row));
}

nb::object ranges_out(const std::vector<Range>& ranges) {
    std::vector<i64> flat;
    flat.reserve(ranges.size() * 4);
    for (const Range& r : ranges) flat.insert(flat.end(), {r.first, r.last, r.first_ts, r.last_ts});
    return matrix_out(flat, 4);
}

}  // namespace tapewick
