// Bindings of the codec: Decoder, encode_candles, encode_trades. The same API as _codec.py.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include <algorithm>
#include <array>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "arrays.hpp"
#include "codec_batch.hpp"
#include "codec_groups.hpp"
#include "codec_rows.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace tapewick::codec {

void raise(const char* kind, const std::string& message) {
    nb::object type = nb::module_::import_("tapewick.errors").attr(kind);
    PyErr_SetString(type.ptr(), message.c_str());
    throw nb::python_error();
}

namespace {

template <typename T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr int MAX_SCALE = 38;
constexpr size_t WORTH_RELEASING = 64;  // rows: below, handing over the GIL costs more than writing them

void check_scales(int price_scale, int size_scale) {
    if (std::min(price_scale, size_scale) < 0 || std::max(price_scale, size_scale) > MAX_SCALE)
        raise("ModelError", "scales " + std::to_string(price_scale) + " and " + std::to_string(size_scale) +
                                " must lie between 0 and 38");
}

// The numpy arrays over a batch's columns, made when the first group is asked for one.
struct Bases {
    std::shared_ptr<Columns> columns;
    nb::object wide, count, side;

    template <typename T>
    nb::object array(T* data, size_t n) const {
        auto held = std::make_unique<std::shared_ptr<Columns>>(columns);
        nb::capsule owner(held.get(), [](void* p) noexcept { delete static_cast<std::shared_ptr<Columns>*>(p); });
        held.release();
        return nb::ndarray<nb::numpy, T, nb::ndim<1>>(data, {n}, owner).cast();
    }

    void make() {
        if (wide.is_valid()) return;
        Columns& c = *columns;
        wide = array(c.wide(0), Columns::WIDE * c.rows + c.voids);
        count = array(c.count(), c.rows);
        side = array(c.side(), c.rows);
    }
};

nb::object slice(const nb::object& base, size_t start, size_t n) {
    return nb::steal(PySequence_GetSlice(base.ptr(), static_cast<Py_ssize_t>(start), static_cast<Py_ssize_t>(start + n)));
}

enum Which { TRADE_ID, FIRST_ID, TS_EVENT, TS_RECV, PRICE, SIZE, COUNT, SIDE, VOIDS, WHICH };

// One symbol's trades of one kind. Columns are cut from the batch when first read: most of a
// small batch's time would otherwise go into making arrays.
struct Group {
    GroupInfo info;
    std::shared_ptr<Bases> bases;
    std::array<nb::object, WHICH> made;

    template <Which which>
    nb::object column() {
        nb::object& slot = made[which];
        if (slot.is_valid()) return slot;
        bases->make();
        size_t rows = bases->columns->rows;
        if constexpr (which == COUNT) slot = slice(bases->count, info.start, info.rows);
        else if constexpr (which == SIDE) slot = slice(bases->side, info.start, info.rows);
        else if constexpr (which == VOIDS) slot = slice(bases->wide, Columns::WIDE * rows + info.voids_start, info.voids);
        else slot = slice(bases->wide, which * rows + info.start, info.rows);
        if (!slot.is_valid()) throw nb::python_error();
        return slot;
    }
};

struct Decoded {
    nb::list groups;
    nb::object depth, quotes, rest;  // lists, made when first read where there is nothing in them
    nb::dict others, rejects;
    int64_t last_recv;
};

template <class Each, class Make>
void fill(nb::object& list, std::vector<Each>& from, Make&& make) {
    if (from.empty()) return;
    nb::list all;
    for (Each& each : from) all.append(make(each));
    list = std::move(all);
}

template <nb::object Decoded::*Member>
nb::object list_of(Decoded& decoded) {
    nb::object& list = decoded.*Member;
    if (!list.is_valid()) list = nb::list();
    return list;
}

Decoded collect(Batch& batch, const std::shared_ptr<Columns>& columns) {
    Decoded out;
    out.last_recv = batch.last_recv;
    auto bases = std::make_shared<Bases>();
    bases->columns = columns;
    for (GroupInfo& info : batch.groups) out.groups.append(Group{std::move(info), bases, {}});
    fill(out.depth, batch.depth, [](auto& rows) { return DepthGroup{{std::move(rows), {}, {}}}; });
    fill(out.quotes, batch.quotes, [](auto& rows) { return QuoteGroup{{std::move(rows), {}, {}}}; });
    fill(out.rest, batch.rest, [](Rest& rest) { return std::move(rest); });
    for (int i = 0; i < KINDS; ++i)
        if (batch.others[i] > 0) out.others[KIND_NAMES[i]] = batch.others[i];
    for (auto& [label, n] : batch.unknown) out.others[nb::str(label.c_str(), label.size())] = n;
    for (size_t i = 0; i < std::size(REJECT_NAMES); ++i)
        if (batch.rejects[i] > 0) out.rejects[REJECT_NAMES[i]] = batch.rejects[i];
    return out;
}

// Receive times: one for all frames or one each.
struct Receipts {
    Array<int64_t> each;
    int64_t all = 0;

    Receipts(nb::handle recv, size_t frames) {
        if (PyLong_Check(recv.ptr()) || !nb::try_cast(recv, each)) {
            // Anything but an integer or a column of them raises TypeError here.
            nb::object whole = nb::steal(PyNumber_Index(recv.ptr()));
            if (!whole.is_valid()) throw nb::python_error();
            all = PyLong_AsLongLong(whole.ptr());
            if (all == -1 && PyErr_Occurred()) throw nb::python_error();
            return;
        }
        if (each.shape(0) != frames)
            raise("ModelError", std::to_string(each.shape(0)) + " receive times for " + std::to_string(frames) + " frames");
    }

    int64_t operator()(size_t i) const { return each.is_valid() ? each.data()[i] : all; }
};

std::string_view view(PyObject* bytes) {
    char* data = nullptr;
    Py_ssize_t size = 0;
    if (PyBytes_AsStringAndSize(bytes, &data, &size) != 0) throw nb::python_error();
    return {data, static_cast<size_t>(size)};
}

class Decoder {
public:
    Decoder(int price_scale, int size_scale, bool books) : books_(books), symbols_(price_scale, size_scale) {
        check_scales(price_scale, size_scale);
    }

    void set_scale(std::string_view symbol, int price_scale, int size_scale) {
        check_scales(price_scale, size_scale);
        std::lock_guard lock(mutex_);
        symbols_.set_scale(symbol, price_scale, size_scale);
    }

    Decoded frames(nb::handle frames, nb::handle recv) {
        nb::object fast = nb::steal(PySequence_Fast(frames.ptr(), "frames must be a sequence of bytes"));
        if (!fast.is_valid()) throw nb::python_error();
        bool list = PyList_Check(fast.ptr());
        auto n = static_cast<size_t>(list ? PyList_Size(fast.ptr()) : PyTuple_Size(fast.ptr()));
        Receipts receipts(recv, n);
        // The GIL stays: no other thread can take the mutex while it waits for the GIL.
        std::lock_guard lock(mutex_);
        Batch batch(symbols_, book());
        for (size_t i = 0; i < n; ++i) {
            auto at = static_cast<Py_ssize_t>(i);
            batch.take(view(list ? PyList_GetItem(fast.ptr(), at) : PyTuple_GetItem(fast.ptr(), at)), receipts(i));
        }
        return collect(batch, batch.finish());
    }

    Decoded lines(const nb::bytes& block) {
        std::string_view text{block.c_str(), block.size()};
        std::optional<Batch> batch;
        std::shared_ptr<Columns> columns;
        {
            nb::gil_scoped_release released;
            std::lock_guard lock(mutex_);
            batch.emplace(symbols_, book());
            batch->take_lines(text);
            columns = batch->finish();
        }
        return collect(*batch, columns);
    }

private:
    Book* book() { return books_ ? &book_ : nullptr; }

    const bool books_;
    Book book_;         // kept for its memory
    std::mutex mutex_;  // guards symbols_ and book_; never held while waiting for the GIL
    Symbols symbols_;
};

std::string json_text(nb::handle text) {
    Py_ssize_t size = 0;
    const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
    if (data == nullptr) throw nb::python_error();
    std::string out = "\"";
    for (const char* p = data; p < data + size; ++p) {
        constexpr std::string_view plain = "\"\\\b\f\n\r\t", letters = "\"\\bfnrt";
        if (size_t i = plain.find(*p); i != std::string_view::npos) {
            out += {'\\', letters[i]};
        } else if (static_cast<unsigned char>(*p) < 0x20) {
            out += {'\\', 'u', '0', '0', *p & 0x10 ? '1' : '0', "0123456789abcdef"[*p & 0xF]};
        } else {
            out += *p;
        }
    }
    return out + '"';
}

Format make_format(std::string_view instrument, int price_scale, int size_scale, std::string_view times, bool lines, bool ids) {
    check_scales(price_scale, size_scale);
    if (times != "ms" && times != "ns")
        raise("BadRequest", "times must be 'ms' or 'ns', not '" + std::string(times) + "'");
    return {instrument, price_scale, size_scale, times == "ns", lines, ids};
}

// The rows of a CANDLE array as one contiguous buffer.
class CandleRows {
public:
    explicit CandleRows(nb::handle rows) {
        const nb::object& dtype = names().candle;
        nb::object own = nb::getattr(rows, "dtype", nb::none());
        if (!own.is(dtype) && (own.is_none() || !own.equal(dtype))) throw nb::type_error("rows must be a CANDLE array");
        nb::object packed = nb::borrow(rows);
        if (PyObject_GetBuffer(packed.ptr(), &view_, PyBUF_SIMPLE) == 0) return;
        PyErr_Clear();  // not contiguous
        packed = nb::module_::import_("numpy").attr("ascontiguousarray")(rows);
        if (PyObject_GetBuffer(packed.ptr(), &view_, PyBUF_SIMPLE) != 0) throw nb::python_error();
    }
    ~CandleRows() { PyBuffer_Release(&view_); }
    CandleRows(const CandleRows&) = delete;
    CandleRows& operator=(const CandleRows&) = delete;

    const Candle* data() const { return static_cast<const Candle*>(view_.buf); }
    size_t size() const { return static_cast<size_t>(view_.len) / sizeof(Candle); }

private:
    Py_buffer view_{};
};

nb::bytes to_bytes(const Output& out) { return nb::bytes(out.text().data(), out.text().size()); }

nb::bytes encode_candles(nb::str instrument, nb::handle rows, int price_scale, int size_scale, std::string_view times,
                         bool lines, bool text_ids) {
    std::string name = json_text(instrument);
    Format format = make_format(name, price_scale, size_scale, times, lines, text_ids);
    CandleRows candles(rows);
    for (size_t i = 0; i < candles.size(); ++i)
        if (const char* field = bad_field(candles.data()[i]))
            raise("ModelError", "candle row " + std::to_string(i) + " holds no legal value in '" + field + "'");
    Output out(4096);
    {
        std::optional<nb::gil_scoped_release> released;
        if (candles.size() >= WORTH_RELEASING) released.emplace();
        write_candles(out, candles.data(), candles.size(), format);
    }
    return to_bytes(out);
}

template <typename T>
Array<T> column(nb::handle batch, const char* name, size_t rows) {
    Array<T> out = nb::cast<Array<T>>(batch.attr(name));
    if (out.shape(0) != rows)
        raise("ModelError", "column '" + std::string(name) + "' has " + std::to_string(out.shape(0)) + " rows, not " +
                                std::to_string(rows));
    return out;
}

nb::bytes encode_trades(nb::handle batch, std::string_view times, bool lines, bool text_ids) {
    std::string name = json_text(batch.attr("instrument"));
    Format format = make_format(name, nb::cast<int>(batch.attr("price_scale")), nb::cast<int>(batch.attr("size_scale")),
                                times, lines, text_ids);
    size_t n = nb::len(nb::object(batch.attr("trade_id")));
    auto trade_id = column<int64_t>(batch, "trade_id", n), first_id = column<int64_t>(batch, "first_id", n);
    auto ts_event = column<int64_t>(batch, "ts_event", n), ts_recv = column<int64_t>(batch, "ts_recv", n);
    auto price = column<int64_t>(batch, "price", n), size = column<int64_t>(batch, "size", n);
    auto count = column<int32_t>(batch, "count", n);
    auto side = column<int8_t>(batch, "side", n);
    Array<int64_t> seq;
    if (!batch.attr("seq").is_none()) seq = column<int64_t>(batch, "seq", n);
    TradeColumns columns{n, trade_id.data(), first_id.data(), ts_event.data(), ts_recv.data(), price.data(), size.data(),
                         count.data(), side.data(), seq.is_valid() ? seq.data() : nullptr};
    Output out(4096 + 256 * n);
    {
        std::optional<nb::gil_scoped_release> released;
        if (n >= WORTH_RELEASING) released.emplace();
        write_trades(out, columns, format);
    }
    return to_bytes(out);
}

void bind_decoder(nb::module_& m) {
    nb::class_<Group>(m, "Group")
        .def_prop_ro("symbol", [](const Group& g) { return nb::str(g.info.name.data(), g.info.name.size()); })
        .def_prop_ro("kind", [](const Group& g) { return KIND_NAMES[static_cast<int>(g.info.kind)]; })
        .def_prop_ro("futures", [](const Group& g) { return g.info.futures; })
        .def_prop_ro("price_scale", [](const Group& g) { return g.info.price_scale; })
        .def_prop_ro("size_scale", [](const Group& g) { return g.info.size_scale; })
        .def_prop_ro("trade_id", &Group::column<TRADE_ID>)
        .def_prop_ro("first_id", &Group::column<FIRST_ID>)
        .def_prop_ro("count", &Group::column<COUNT>)
        .def_prop_ro("ts_event", &Group::column<TS_EVENT>)
        .def_prop_ro("ts_recv", &Group::column<TS_RECV>)
        .def_prop_ro("price", &Group::column<PRICE>)
        .def_prop_ro("size", &Group::column<SIZE>)
        .def_prop_ro("side", &Group::column<SIDE>)
        .def_prop_ro("voids", &Group::column<VOIDS>)
        .def("__len__", [](const Group& g) { return g.info.rows; });
    nb::class_<Decoded>(m, "Decoded")
        .def_ro("groups", &Decoded::groups)
        .def_prop_ro("depth", &list_of<&Decoded::depth>)
        .def_prop_ro("quotes", &list_of<&Decoded::quotes>)
        .def_prop_ro("rest", &list_of<&Decoded::rest>)
        .def_ro("others", &Decoded::others)
        .def_ro("rejects", &Decoded::rejects)
        .def_ro("last_recv", &Decoded::last_recv);
    nb::class_<Decoder>(m, "Decoder")
        .def(nb::init<int, int, bool>(), "price_scale"_a = 8, "size_scale"_a = 8, "books"_a = false)
        .def("set_scale", &Decoder::set_scale, "symbol"_a, "price_scale"_a, "size_scale"_a)
        .def("frames", &Decoder::frames, "frames"_a, "recv"_a)
        .def("lines", &Decoder::lines, "block"_a);
}

}  // namespace

}  // namespace tapewick::codec

void bind_codec(nb::module_& m) {
    using namespace tapewick::codec;
    bind_decoder(m);
    bind_groups(m);
    m.def("encode_candles", &encode_candles, "instrument"_a, "rows"_a, "price_scale"_a, "size_scale"_a, nb::kw_only(),
          "times"_a = "ms", "lines"_a = false, "text_ids"_a = false);
    m.def("encode_trades", &encode_trades, "batch"_a, nb::kw_only(), "times"_a = "ms", "lines"_a = false,
          "text_ids"_a = false);
}
