// The Python face of the native engine: class TapeCore as _reference.py defines it, and the codec.
#include <nanobind/nanobind.h>

#include <mutex>
#include <optional>

#include "arrays.hpp"
#include "core.hpp"

namespace nb = nanobind;
using namespace nb::literals;

void bind_sockets(nb::module_& m);
#ifdef HAVE_CODEC
void bind_codec(nb::module_& m);
void bind_book(nb::module_& m);
#endif

namespace tapewick {

namespace {

// Trades, or minutes that changed: below, handing over the GIL costs more than the work, and who gets it keeps it longer.
constexpr std::size_t WORTH_RELEASING = 64;

// A core and the lock that makes it safe while the GIL is released.
struct Core {
    TapeCore tape;
    mutable std::mutex lock;

    Core(std::int32_t number, i64 lateness, i64 grace, i64 keep, bool contiguous)
        : tape(number, lateness, grace, keep, contiguous) {}

    // Runs `work(tape)` alone; without the GIL if `release`.
    template <class Work>
    auto alone(bool release, Work&& work) {
        std::optional<nb::gil_scoped_release> released;
        if (release) released.emplace();
        const std::lock_guard guard(lock);
        return work(tape);
    }
};

nb::object ingest(Core& core, nb::handle trade_id, nb::handle first_id, nb::handle count, nb::handle ts_event,
                  nb::handle price, nb::handle size, nb::handle side, nb::handle covers, i64 latest, i64 clock,
                  int reason, bool allow_zero) {
    const ColumnView columns[] = {ColumnView(trade_id), ColumnView(first_id), ColumnView(count), ColumnView(ts_event),
                                  ColumnView(price),    ColumnView(size),     ColumnView(side)};
    Batch batch{columns[0], columns[1], columns[2], columns[3], columns[4], columns[5], columns[6]};
    for (const Column column : columns)
        if (column.length != batch.length()) throw nb::value_error("the columns of a batch must have the same length");
    if (!covers.is_none()) {
        const std::vector<i64> flat = matrix(covers, 2);
        for (std::size_t i = 0; i < flat.size(); i += 2) batch.covers.emplace_back(flat[i], flat[i + 1]);
    }
    batch.latest = latest;
    batch.clock = clock;
    batch.reason = static_cast<std::int8_t>(reason);
    batch.allow_zero = allow_zero;
    nb::object accepted = names().empty(batch.length(), names().int64);
    Ingested out{static_cast<i64*>(View(accepted, PyBUF_WRITABLE)->buf)};
    core.alone(batch.length() >= WORTH_RELEASING, [&](TapeCore& tape) { tape.ingest(batch, out); });
    if (out.taken < batch.length()) accepted = vector_out(out.accepted, out.taken);
    return names().ingested(accepted, vector_out(out.rejects.data(), out.rejects.size()));
}

nb::object take(Core& core) {
    static thread_local Taken out;  // kept for its memory: fresh pages cost more than the rows in them
    out.clear();
    const bool much = core.alone(false, [](TapeCore& tape) { return tape.minutes() >= WORTH_RELEASING; });
    core.alone(much, [&](TapeCore& tape) { tape.take(out); });
    return names().taken(rows_out(out.rows), ranges_out(out.put), vector_out(out.gone.data(), out.gone.size()),
                         out.holes_changed);
}

void restore(Core& core, i64 seq, i64 pos, i64 watermark, nb::handle ranges, nb::handle rows, nb::handle newest) {
    const std::vector<i64> flat = matrix(ranges, 4);
    std::vector<Range> covered;
    for (std::size_t i = 0; i < flat.size(); i += 4)
        covered.push_back({flat[i], flat[i + 1], flat[i + 2], flat[i + 3]});
    const ColumnView view(newest);
    const Column column = view;
    if (column.length != FRAMES) throw nb::value_error("newest must hold one open time per timeframe");
    std::array<i64, FRAMES> opens;
    for (std::size_t tf = 0; tf < FRAMES; ++tf) opens[tf] = column.any(tf);
    const std::vector<Row> stored = rows_from(rows);
    core.alone(true, [&](TapeCore& tape) {
        tape.seq = seq;
        tape.pos = pos;
        tape.watermark = watermark;
        tape.restore(std::move(covered), stored, opens);
    });
}

nb::object missing(Core& core) {
    std::vector<i64> keys, windows;
    core.alone(false, [&](TapeCore& tape) {
        for (const Key& key : tape.missing()) keys.insert(keys.end(), {key.tf, key.open_time});
        for (const Window& window : tape.ledger().windows()) windows.insert(windows.end(), {window.from, window.to});
    });
    return nb::make_tuple(matrix_out(keys, 2), matrix_out(windows, 2));
}

void rescale(Core& core, i64 price_factor, i64 size_factor) {
    if (price_factor < 1 || size_factor < 1)
        throw nb::value_error("scales are only ever widened: factors must be at least 1");
    if (core.alone(true, [&](TapeCore& tape) { return tape.rescale(price_factor, size_factor); })) return;
    PyErr_SetString(PyExc_OverflowError, "a held price, size or sum does not fit its width at the wider scale");
    nb::raise_python_error();
}

// A getter of one of the tape's numbers.
template <auto Member>
auto number_of(Core& core) {
    return core.alone(false, [](TapeCore& tape) { return tape.*Member; });
}

void bind_core(nb::module_& m) {
    nb::class_<Core>(m, "TapeCore", "One instrument's tape and candles; see tapewick.engine._reference.TapeCore.")
        .def(nb::init<std::int32_t, i64, i64, i64, bool>(), "number"_a, "lateness"_a, "grace"_a, "keep"_a,
             "contiguous"_a = true)
        .def("restore", restore, "seq"_a, "pos"_a, "watermark"_a, "ranges"_a, "rows"_a, "newest"_a)
        .def("ingest", ingest, "trade_id"_a, "first_id"_a, "count"_a, "ts_event"_a, "price"_a, "size"_a, "side"_a,
             "covers"_a = nb::none(), "latest"_a = INT64_MAX, "clock"_a = 0, "reason"_a = 0, "allow_zero"_a = false)
        .def("missing", missing)
        .def("load", [](Core& core, nb::handle rows) {
                 const std::vector<Row> stored = rows_from(rows);
                 core.alone(true, [&](TapeCore& tape) { tape.load(stored); });
             }, "rows"_a)
        .def("take", take)
        .def("live", [](Core& core) {
            return rows_out(core.alone(false, [](TapeCore& tape) { return tape.live(); }));
        })
        .def("ranges", [](Core& core) {
            return ranges_out(core.alone(false, [](TapeCore& tape) { return tape.ledger().ranges(); }));
        })
        .def("rescale", rescale, "price_factor"_a, "size_factor"_a)
        .def_prop_ro("pending", [](Core& core) {
            return core.alone(false, [](TapeCore& tape) { return tape.pending(); });
        })
        .def_prop_ro("number", number_of<&TapeCore::number>)
        .def_prop_ro("lateness", number_of<&TapeCore::lateness>)
        .def_prop_ro("grace", number_of<&TapeCore::grace>)
        .def_prop_ro("keep", number_of<&TapeCore::keep>)
        .def_prop_ro("contiguous", number_of<&TapeCore::contiguous>)
        .def_prop_ro("seq", number_of<&TapeCore::seq>)
        .def_prop_ro("pos", number_of<&TapeCore::pos>)
        .def_prop_ro("watermark", number_of<&TapeCore::watermark>)
        .def_prop_ro("newest_ts", number_of<&TapeCore::newest_ts>);
    m.def("bucket", [](int tf, i64 t) {
        if (tf < 0 || tf >= FRAMES) throw nb::index_error("no such timeframe index");
        const Span span = bucket(tf, t);
        return nb::make_tuple(span.open, span.end);
    }, "tf"_a, "t"_a, "Open and end (ns) of the bucket of timeframe index tf that holds time t (ns).");
}

}  // namespace

}  // namespace tapewick

NB_MODULE(_native, m) {
    m.doc() = "The engine's arithmetic in C++; the readable twin is tapewick.engine._reference.";
    tapewick::load_names();
    tapewick::bind_core(m);
    bind_sockets(m);
#ifdef HAVE_CODEC
    bind_codec(m);
    bind_book(m);
#endif
}
