// Binding of Levels: the levels of one book and the venue's chain of updates. The same API as
// _book_reference.py.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <array>
#include <string_view>
#include <vector>

#include "arrays.hpp"
#include "book.hpp"
#include "codec_groups.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace tapewick {

namespace {

using codec::BookRows;
using codec::DepthGroup;
using Vector = nb::ndarray<const i64, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr i64 BACKWARDS = 5'000'000'000;   // ns of event time: ids that low this late were given anew
constexpr std::size_t MOST_LEVELS = 100'000;  // per side

// The frames of a group in memory, whoever made it.
class Frames {
public:
    explicit Frames(nb::handle group) {
        DepthGroup* own = nullptr;
        if (nb::try_cast(group, own) && own != nullptr) {
            const BookRows& rows = *own->rows;
            for (std::size_t i = 0; i < columns.size(); ++i) columns[i] = rows.columns[i].data();
            price = rows.price.data();
            size = rows.size.data();
            length = rows.frames();
            return;
        }
        static constexpr std::array<const char*, BookRows::COLUMNS> names = {
            "first_id", "last_id", "prev_id", "ts_event", "ts_recv", "bid_end", "ask_end"};
        for (std::size_t i = 0; i < columns.size(); ++i) columns[i] = hold(group, names[i], held_[i]);
        price = hold(group, "price", held_[names.size()]);
        size = hold(group, "size", held_[names.size() + 1]);
        length = held_[0].shape(0);
        check();
    }

    i64 at(BookRows::Column column, std::size_t frame) const { return columns[column][frame]; }
    std::size_t start(std::size_t frame) const {
        return frame ? static_cast<std::size_t>(at(BookRows::ask_end, frame - 1)) : 0;
    }

    std::array<const i64*, BookRows::COLUMNS> columns{};
    const i64 *price = nullptr, *size = nullptr;
    std::size_t length = 0;

private:
    static const i64* hold(nb::handle group, const char* name, Vector& into) {
        into = nb::cast<Vector>(group.attr(name));
        return into.data();
    }

    // What another's columns must keep for no read to leave them.
    void check() const {
        bool good = held_[BookRows::COLUMNS].shape(0) == held_[BookRows::COLUMNS + 1].shape(0);
        for (std::size_t i = 0; i < columns.size(); ++i) good = good && held_[i].shape(0) == length;
        i64 before = 0;
        for (std::size_t i = 0; good && i < length; ++i) {
            i64 bids = at(BookRows::bid_end, i), asks = at(BookRows::ask_end, i);
            good = before <= bids && bids <= asks;
            before = asks;
        }
        if (!good || before > static_cast<i64>(held_[BookRows::COLUMNS].shape(0)))
            throw nb::value_error("the columns of a depth group do not fit each other");
    }

    std::array<Vector, BookRows::COLUMNS + 2> held_;
};

void apply(BookLevels& book, const Frames& frames, std::size_t i) {
    std::size_t at = frames.start(i);
    auto bids = static_cast<std::size_t>(frames.at(BookRows::bid_end, i));
    auto asks = static_cast<std::size_t>(frames.at(BookRows::ask_end, i));
    for (; at < bids; ++at) book.set_bid(frames.price[at], frames.size[at]);
    for (; at < asks; ++at) book.set_ask(frames.price[at], frames.size[at]);
}

enum class Link { follows, old, gap, restarted };

// How a frame stands to the last id applied. `fresh`: that id is a snapshot's.
Link link(const Frames& frames, std::size_t i, i64 id, bool fresh, bool futures, i64 ts) {
    i64 last = frames.at(BookRows::last_id, i);
    if (futures && fresh ? last < id : last <= id)
        return frames.at(BookRows::ts_event, i) > ts + BACKWARDS ? Link::restarted : Link::old;
    if (!futures) return frames.at(BookRows::first_id, i) > id + 1 ? Link::gap : Link::follows;
    i64 prev = frames.at(BookRows::prev_id, i);
    return prev < 0 || (fresh ? prev > id : prev != id) ? Link::gap : Link::follows;
}

nb::tuple follow(BookLevels& book, nb::handle group, std::size_t start, i64 id, bool fresh, bool futures, i64 ts) {
    const Frames frames(group);
    nb::list applied;
    std::size_t i = start;
    const char* reason = "";
    i64 dropped = 0;
    for (; i < frames.length; ++i) {
        Link found = link(frames, i, id, fresh, futures, ts);
        if (found == Link::old) {
            ++dropped;
            continue;
        }
        if (found != Link::follows) {
            reason = found == Link::gap ? "gap" : "restarted";
            break;
        }
        apply(book, frames, i);
        bool overgrown = book.bids.size() > MOST_LEVELS || book.asks.size() > MOST_LEVELS;
        if (overgrown || book.crossed()) {
            reason = overgrown ? "overgrown" : "crossed";
            break;
        }
        id = frames.at(BookRows::last_id, i);
        ts = std::max(ts, frames.at(BookRows::ts_event, i));
        fresh = false;
        applied.append(nb::make_tuple(frames.at(BookRows::first_id, i), id, frames.at(BookRows::ts_event, i),
                                      frames.at(BookRows::ts_recv, i), frames.start(i),
                                      frames.at(BookRows::bid_end, i), frames.at(BookRows::ask_end, i)));
    }
    return nb::make_tuple(applied, i, reason, dropped);
}

// Levels of both sides as a message holds them.
struct Message {
    Vector bid_price, bid_size, ask_price, ask_size;

    void check() const {
        if (bid_price.shape(0) != bid_size.shape(0) || ask_price.shape(0) != ask_size.shape(0))
            throw nb::value_error("prices and sizes of a side must have the same length");
    }
};

void put(BookLevels& book, Vector bid_price, Vector bid_size, Vector ask_price, Vector ask_size) {
    Message{bid_price, bid_size, ask_price, ask_size}.check();
    for (std::size_t i = 0; i < bid_price.shape(0); ++i) book.set_bid(bid_price.data()[i], bid_size.data()[i]);
    for (std::size_t i = 0; i < ask_price.shape(0); ++i) book.set_ask(ask_price.data()[i], ask_size.data()[i]);
}

void load(BookLevels& book, Vector bid_price, Vector bid_size, Vector ask_price, Vector ask_size) {
    Message{bid_price, bid_size, ask_price, ask_size}.check();
    std::vector<PriceLevel> bids, asks;
    for (std::size_t i = 0; i < bid_price.shape(0); ++i) bids.push_back({bid_price.data()[i], bid_size.data()[i]});
    for (std::size_t i = 0; i < ask_price.shape(0); ++i)
        asks.push_back({negated(ask_price.data()[i]), ask_size.data()[i]});
    book.bids.load(std::move(bids));
    book.asks.load(std::move(asks));
}

nb::object best(const BookLevels& book) {
    if (book.bids.empty() || book.asks.empty()) return nb::none();
    const PriceLevel &bid = book.bids.best(), &ask = book.asks.best();
    return nb::make_tuple(bid.key, bid.size, negated(ask.key), ask.size);
}

nb::tuple levels(const BookLevels& book, i64 n) {
    std::vector<i64> columns[4];
    auto fill = [&](const BookSide& side, std::vector<i64>& price, std::vector<i64>& size, bool ask) {
        side.each(n > 0 ? static_cast<std::size_t>(n) : 0, [&](const PriceLevel& level) {
            price.push_back(ask ? negated(level.key) : level.key);
            size.push_back(level.size);
        });
    };
    fill(book.bids, columns[0], columns[1], false);
    fill(book.asks, columns[2], columns[3], true);
    auto out = [&](int i) { return vector_out(columns[i].data(), columns[i].size()); };
    return nb::make_tuple(out(0), out(1), out(2), out(3));
}

bool rescale(BookLevels& book, i64 price_factor, i64 size_factor) {
    if (price_factor < 1 || size_factor < 1)
        throw nb::value_error("scales are only ever widened: factors must be at least 1");
    return book.bids.rescale(price_factor, size_factor) && book.asks.rescale(price_factor, size_factor);
}

}  // namespace

}  // namespace tapewick

void bind_book(nb::module_& m) {
    using namespace tapewick;
    nb::class_<BookLevels>(m, "Levels", "The price levels of one book; see tapewick.engine._book_reference.Levels.")
        .def(nb::init<>())
        .def("put", &put, "bid_price"_a, "bid_size"_a, "ask_price"_a, "ask_size"_a)
        .def("load", &load, "bid_price"_a, "bid_size"_a, "ask_price"_a, "ask_size"_a)
        .def("clear", &BookLevels::clear)
        .def("best", &best)
        .def("crossed", &BookLevels::crossed)
        .def("levels", &levels, "n"_a = 0)
        .def("rescale", &rescale, "price_factor"_a, "size_factor"_a)
        .def("follow", &follow, "group"_a, "start"_a, "id"_a, "fresh"_a, "futures"_a, "ts"_a)
        .def("__len__", [](const BookLevels& book) { return book.bids.size() + book.asks.size(); });
}
