// Bindings of order-book frames. The same API as _depth.py.
#include "codec_groups.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

namespace nb = nanobind;
using namespace nb::literals;

namespace tapewick::codec {

nb::object BookGroup::array(int slot, std::vector<int64_t>& column, size_t offset, int64_t stride) {
    nb::object& out = made[static_cast<size_t>(slot)];
    if (out.is_valid()) return out;
    if (!owner.is_valid()) {
        auto held = std::make_unique<std::shared_ptr<BookRows>>(rows);
        owner = nb::capsule(held.get(), [](void* p) noexcept { delete static_cast<std::shared_ptr<BookRows>*>(p); });
        held.release();
    }
    static int64_t nothing = 0;
    size_t n = column.size() / static_cast<size_t>(stride);
    int64_t* data = column.empty() ? &nothing : column.data() + offset;
    return out = nb::ndarray<nb::numpy, int64_t, nb::ndim<1>>(data, {n}, owner, {stride}).cast();
}

namespace {

nb::str text(const std::string& s) { return nb::str(s.data(), s.size()); }

template <int Column>
nb::object frames(BookGroup& g) {
    return g.array(Column, g.rows->columns[Column]);
}

nb::object price(BookGroup& g) { return g.array(BookGroup::PRICE, g.rows->price); }
nb::object size(BookGroup& g) { return g.array(BookGroup::SIZE, g.rows->size); }

// Of a quote's two levels, the bid (0) or the ask (1): every second value of a column.
template <int Side>
nb::object side_price(BookGroup& g) {
    return g.array(BookGroup::LEVELS + Side, g.rows->price, Side, 2);
}

template <int Side>
nb::object side_size(BookGroup& g) {
    return g.array(BookGroup::LEVELS + 2 + Side, g.rows->size, Side, 2);
}

int64_t nbytes(const BookGroup& g) {
    return static_cast<int64_t>(256 + 8 * (BookRows::COLUMNS * g.rows->frames() + 2 * g.rows->price.size()));
}

// A depth snapshot as a group of one frame without a symbol, or the reason why it is none.
nb::object read_snapshot(const nb::bytes& body, int price_scale, int size_scale) {
    std::string_view text{body.c_str(), body.size()};
    if (!valid_utf8(text)) return nb::str(REJECT_NAMES[static_cast<int>(Reject::bad_utf8)]);
    Token document = parse_document(text);
    if (!document.present()) return nb::str(REJECT_NAMES[static_cast<int>(Reject::malformed_json)]);
    Book book;
    if (auto refused = walk_snapshot(document, book)) return nb::str(REJECT_NAMES[static_cast<int>(*refused)]);
    BookScales scales{price_scale, size_scale, true};
    auto rows = std::make_shared<BookRows>("");
    if (!rows->append(book, 0, scales)) return nb::str(REJECT_NAMES[static_cast<int>(Reject::overflow)]);
    return nb::cast(DepthGroup{{std::move(rows), {}, {}}});
}

template <class Group>
nb::class_<Group> bind_group(nb::module_& m, const char* name) {
    return nb::class_<Group>(m, name)
        .def_prop_ro("symbol", [](const Group& g) { return text(g.rows->symbol); })
        .def_prop_ro("price_scale", [](const Group& g) { return g.rows->price_scale; })
        .def_prop_ro("size_scale", [](const Group& g) { return g.rows->size_scale; })
        .def_prop_ro("ts_event", [](Group& g) { return frames<BookRows::ts_event>(g); })
        .def_prop_ro("ts_recv", [](Group& g) { return frames<BookRows::ts_recv>(g); })
        .def_prop_ro("nbytes", [](const Group& g) { return nbytes(g); })
        .def("__len__", [](const Group& g) { return g.rows->frames(); });
}

}  // namespace

}  // namespace tapewick::codec

void bind_groups(nb::module_& m) {
    using namespace tapewick::codec;
    bind_group<DepthGroup>(m, "DepthGroup")
        .def_prop_ro("first_id", [](DepthGroup& g) { return frames<BookRows::first_id>(g); })
        .def_prop_ro("last_id", [](DepthGroup& g) { return frames<BookRows::last_id>(g); })
        .def_prop_ro("prev_id", [](DepthGroup& g) { return frames<BookRows::prev_id>(g); })
        .def_prop_ro("bid_end", [](DepthGroup& g) { return frames<BookRows::bid_end>(g); })
        .def_prop_ro("ask_end", [](DepthGroup& g) { return frames<BookRows::ask_end>(g); })
        .def_prop_ro("price", [](DepthGroup& g) { return price(g); })
        .def_prop_ro("size", [](DepthGroup& g) { return size(g); });
    bind_group<QuoteGroup>(m, "QuoteGroup")
        .def_prop_ro("update_id", [](QuoteGroup& g) { return frames<BookRows::last_id>(g); })
        .def_prop_ro("bid", [](QuoteGroup& g) { return side_price<0>(g); })
        .def_prop_ro("bid_size", [](QuoteGroup& g) { return side_size<0>(g); })
        .def_prop_ro("ask", [](QuoteGroup& g) { return side_price<1>(g); })
        .def_prop_ro("ask_size", [](QuoteGroup& g) { return side_size<1>(g); });
    nb::class_<Rest>(m, "Rest")
        .def_prop_ro("kind", [](const Rest& r) { return KIND_NAMES[static_cast<int>(r.kind)]; })
        .def_prop_ro("stream", [](const Rest& r) { return text(r.stream); })
        .def_prop_ro("body", [](const Rest& r) { return nb::bytes(r.body.data(), r.body.size()); })
        .def_ro("ts_recv", &Rest::recv);
    m.def("read_snapshot", &read_snapshot, "body"_a, "price_scale"_a, "size_scale"_a);
}
