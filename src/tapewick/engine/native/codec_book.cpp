#include "codec_book.hpp"

#include <algorithm>
#include <array>

#include "codec_scan.hpp"

namespace tapewick::codec {

namespace {

// What a body of one-letter keys (and `pu`, `ps`) told, by the hand scan.
struct BookScan : Scanner {
    Book& book;
    int64_t event_time = 0, trade_time = 0;
    bool has_e = false, has_t = false;
    uint32_t seen = 0;

    // `["price","size"]` pairs.
    bool levels() {
        if (!take('[')) return false;
        if (take(']')) return true;
        for (;;) {
            Decimal price, size;
            if (!take('[') || !decimal(price) || !take(',') || !decimal(size) || !take(']')) return false;
            if (price.mantissa == 0) return false;
            book.add(price, size);
            if (take(']')) return true;
            if (!take(',')) return false;
        }
    }

    bool symbol() { return string(book.symbol) && !book.symbol.empty() && book.symbol.size() <= MAX_SYMBOL; }

    bool depth_field(std::string_view key) {
        std::string_view text;
        if (key.size() == 2) return key == "pu" ? integer(book.prev) : key == "ps" && string(text);
        switch (key[0]) {
            case 'e': return string(text) && text == "depthUpdate";
            case 'E': return has_e = integer(event_time);
            case 'T': return has_t = integer(trade_time);
            case 's': return symbol();
            case 'U': return integer(book.first);
            case 'u': return integer(book.last);
            case 'b':
                if (!book.levels.empty() || !levels()) return false;
                book.bids = book.levels.size();
                return true;
            // Asks in front of the bids would have to change places: the walk does that.
            case 'a': return (seen & mark("b")) != 0 && levels();
            default: return false;
        }
    }

    bool quote_field(std::string_view key, std::array<Decimal, 4>& values) {
        std::string_view text;
        if (key.size() == 2) return key == "ps" && string(text);
        switch (key[0]) {
            case 'e': return string(text) && text == "bookTicker";
            case 'E': return has_e = integer(event_time);
            case 'T': return has_t = integer(trade_time);
            case 's': return symbol();
            case 'u': return integer(book.last);
            case 'b': return decimal(values[0]);
            case 'B': return decimal(values[1]);
            case 'a': return decimal(values[2]);
            case 'A': return decimal(values[3]);
            default: return false;
        }
    }

    // A bit per key; upper- and lower-case letters differ in the low five bits' block.
    static uint32_t mark(std::string_view key) {
        if (key.size() == 2) return key == "pu" ? 1u << 30 : 1u << 31;
        constexpr std::string_view keys = "eETsUubaBA";
        size_t at = keys.find(key[0]);
        return at == std::string_view::npos ? 0 : 1u << at;
    }

    template <class Field>
    bool object(Field&& field) {
        if (!take('{')) return false;
        for (;;) {
            if (end - p < 6 || *p != '"') return false;
            size_t width = p[2] == '"' ? 1 : 2;
            if (p[1 + width] != '"' || p[2 + width] != ':') return false;
            std::string_view key{p + 1, width};
            p += width + 3;
            uint32_t bit = mark(key);
            if (bit == 0 || (seen & bit) != 0 || !field(key) || p == end) return false;
            seen |= bit;
            if (*p == '}') break;
            if (*p++ != ',') return false;
        }
        ++p;
        return true;
    }

    bool all_seen(std::string_view keys) const {
        return std::all_of(keys.begin(), keys.end(), [&](const char& c) { return (seen & mark({&c, 1})) != 0; });
    }

    bool timed(bool needed) {
        book.ts = has_t ? time_ns(trade_time) : has_e ? time_ns(event_time) : 0;
        return book.ts != 0 || (!needed && !has_t && !has_e);
    }

    bool ends_with(std::string_view tail) const { return std::string_view(p, static_cast<size_t>(end - p)) == tail; }
};

enum Key { K_s, K_U, K_u, K_pu, K_E, K_T, K_b, K_a, K_B, K_A };
constexpr std::array<std::string_view, 10> KEYS = {"s", "U", "u", "pu", "E", "T", "b", "a", "B", "A"};
constexpr std::array<std::string_view, 10> SNAPSHOT_KEYS = {"", "", "lastUpdateId", "", "E", "T", "bids", "asks", "", ""};
using Fields = std::array<Token, KEYS.size()>;

Fields pick(const Token& object, const std::array<std::string_view, KEYS.size()>& keys) {
    Fields found{};
    for (Members at(object); at.next();)
        for (size_t i = 0; i < keys.size(); ++i)
            if (!keys[i].empty() && at.key() == keys[i]) found[i] = at.value();
    return found;
}

// The time to take: the transaction's if the frame has one, else the event's.
const Token& time_of(const Fields& f) { return f[K_T].present() ? f[K_T] : f[K_E]; }

bool id_of(const Token& token, int64_t& out) { return to_int64(token, out) && out >= 0; }

// A value that is not negative.
bool value_of(const Token& token, Decimal& out) {
    return to_decimal(token, out) && (!out.negative || out.mantissa == 0);
}

std::optional<Reject> read_time(const Fields& f, Book& book) {
    int64_t time = 0;
    if (!time_of(f).present()) return {};
    book.ts = to_int64(time_of(f), time) ? time_ns(time) : 0;
    return book.ts == 0 ? std::optional(Reject::bad_time) : std::nullopt;
}

// Whether an array holds nothing but arrays of at least two numbers.
bool is_levels(const Token& side) {
    if (side.type != Json::array) return false;
    for (Elements level(side); level.next();) {
        if (level.value().type != Json::array) return false;
        int numbers = 0;
        for (Elements value(level.value()); numbers < 2 && value.next(); ++numbers)
            if (!is_number(value.value())) return false;
        if (numbers < 2) return false;
    }
    return true;
}

// Adds a side's levels; false for a value that is none: negative, or a price of zero.
bool add_levels(const Token& side, Book& book) {
    for (Elements level(side); level.next();) {
        Decimal price, size;
        Elements value(level.value());
        value.next();
        if (!value_of(value.value(), price) || price.mantissa == 0) return false;
        value.next();
        if (!value_of(value.value(), size)) return false;
        book.add(price, size);
    }
    return true;
}

// Levels in the venue's own layout take the scan; whether they did.
bool scan_levels(const Token& side, Book& book) {
    BookScan scan{{side.text.data(), side.text.data() + side.text.size()}, book};
    size_t before = book.levels.size();
    if (scan.levels() && scan.p == scan.end) return true;
    book.levels.resize(before);
    return false;
}

std::optional<Reject> read_levels(const Fields& f, Book& book) {
    for (const Key side : {K_b, K_a}) {
        if (!scan_levels(f[side], book) && !add_levels(f[side], book)) return Reject::bad_number;
        if (side == K_b) book.bids = book.levels.size();
    }
    return {};
}

bool symbol_of(const Token& token, Book& book) {
    if (token.type != Json::string) return false;
    book.symbol = unescape(token, book.scratch);
    return !book.symbol.empty() && book.symbol.size() <= MAX_SYMBOL;
}

// `value` at a scale `up` digits wider; false when it does not fit.
bool widen(int64_t& value, int up) {
    if (value == 0 || up == 0) return true;
    if (up > 18 || value > INT64_TOP / static_cast<int64_t>(POW10[up])) return false;
    value *= static_cast<int64_t>(POW10[up]);
    return true;
}


// The scale for a frame's values: what they need, what the symbol has or, for a new one, what leaves
// every value room.
template <int64_t Level::*Value, int8_t Level::*Scale>
int scale_for(const Book& book, int current, bool known) {
    int needed = 0, roomy = current;
    for (const Level& level : book.levels) {
        needed = std::max<int>(needed, level.*Scale);
        if (!known) roomy = std::min(roomy, fit_scale(current, {static_cast<u128>(level.*Value), level.*Scale, false}));
    }
    return std::max(needed, roomy);
}

template <int64_t Level::*Value, int8_t Level::*Scale>
bool add_column(const Book& book, int scale, std::vector<int64_t>& column, int64_t& top) {
    for (const Level& level : book.levels) {
        int64_t value = level.*Value;
        if (!widen(value, scale - level.*Scale)) return false;
        top = std::max(top, value);
        column.push_back(value);
    }
    return true;
}

}  // namespace

void Book::clear() {
    first = last = ts = 0;
    prev = -1;
    levels.clear();
    bids = 0;
    fits = true;
}

void Book::add(const Decimal& price, const Decimal& size) {
    constexpr auto top = static_cast<u128>(INT64_TOP);
    fits = fits && price.mantissa <= top && size.mantissa <= top;
    levels.push_back({static_cast<int64_t>(price.mantissa), static_cast<int64_t>(size.mantissa),
                      static_cast<int8_t>(price.scale), static_cast<int8_t>(size.scale)});
}

bool scan_depth(const char* p, const char* end, std::string_view tail, Book& book) {
    book.clear();
    BookScan scan{{p, end}, book};
    return scan.object([&](std::string_view key) { return scan.depth_field(key); }) && scan.ends_with(tail) &&
           scan.all_seen("sUuba") && scan.timed(true);
}

bool scan_quote(const char* p, const char* end, std::string_view tail, Book& book) {
    book.clear();
    BookScan scan{{p, end}, book};
    std::array<Decimal, 4> values;
    bool good = scan.object([&](std::string_view key) { return scan.quote_field(key, values); }) && scan.ends_with(tail) &&
                scan.all_seen("subBaA") && scan.timed(false);
    if (!good) return false;
    book.first = book.last;
    book.add(values[0], values[1]);
    book.add(values[2], values[3]);
    book.bids = 1;
    return true;
}

std::optional<Reject> walk_depth(const Token& body, Book& book) {
    book.clear();
    const Fields f = pick(body, KEYS);
    for (const Token* t : {&f[K_s], &f[K_U], &f[K_u], &f[K_b], &f[K_a], &time_of(f)})
        if (!t->present()) return Reject::missing_field;
    bool typed = is_integer(f[K_U]) && is_integer(f[K_u]) && (!f[K_pu].present() || is_integer(f[K_pu])) &&
                 is_integer(time_of(f)) && is_levels(f[K_b]) && is_levels(f[K_a]);
    if (!typed || !symbol_of(f[K_s], book)) return Reject::wrong_type;
    if (!id_of(f[K_U], book.first) || !id_of(f[K_u], book.last)) return Reject::overflow;
    if (f[K_pu].present() && !id_of(f[K_pu], book.prev)) return Reject::overflow;
    if (auto refused = read_levels(f, book)) return refused;
    return read_time(f, book);
}

std::optional<Reject> walk_quote(const Token& body, Book& book) {
    book.clear();
    const Fields f = pick(body, KEYS);
    for (const Key key : {K_s, K_u, K_b, K_B, K_a, K_A})
        if (!f[key].present()) return Reject::missing_field;
    bool typed = is_integer(f[K_u]) && (!time_of(f).present() || is_integer(time_of(f))) && is_number(f[K_b]) &&
                 is_number(f[K_B]) && is_number(f[K_a]) && is_number(f[K_A]);
    if (!typed || !symbol_of(f[K_s], book)) return Reject::wrong_type;
    if (!id_of(f[K_u], book.last)) return Reject::overflow;
    for (const auto& [price_key, size_key] : {std::pair(K_b, K_B), std::pair(K_a, K_A)}) {
        Decimal price, size;
        if (!value_of(f[price_key], price) || !value_of(f[size_key], size)) return Reject::bad_number;
        book.add(price, size);
    }
    book.first = book.last;
    book.bids = 1;
    return read_time(f, book);
}

std::optional<Reject> walk_snapshot(const Token& body, Book& book) {
    book.clear();
    if (body.type != Json::object) return Reject::wrong_type;
    const Fields f = pick(body, SNAPSHOT_KEYS);
    if (!f[K_u].present() || !f[K_b].present() || !f[K_a].present()) return Reject::missing_field;
    bool typed = is_integer(f[K_u]) && (!time_of(f).present() || is_integer(time_of(f))) && is_levels(f[K_b]) &&
                 is_levels(f[K_a]);
    if (!typed) return Reject::wrong_type;
    if (!id_of(f[K_u], book.last)) return Reject::overflow;
    book.first = book.last;
    if (auto refused = read_levels(f, book)) return refused;
    return read_time(f, book);
}

bool BookRows::append(const Book& book, int64_t recv, BookScales& scales) {
    if (!book.fits) return false;
    int new_price = scale_for<&Level::price, &Level::price_scale>(book, scales.price, scales.known);
    int new_size = scale_for<&Level::size, &Level::size_scale>(book, scales.size, scales.known);
    int64_t top_price = top_price_, top_size = top_size_;
    size_t before = price.size();
    bool fits = widen(top_price, new_price - scales.price) && widen(top_size, new_size - scales.size) &&
                add_column<&Level::price, &Level::price_scale>(book, new_price, price, top_price) &&
                add_column<&Level::size, &Level::size_scale>(book, new_size, size, top_size);
    if (!fits) {
        price.resize(before);
        size.resize(before);
        return false;
    }
    auto widen_before = [&](std::vector<int64_t>& column, int up) {
        for (size_t i = 0; up > 0 && i < before; ++i) widen(column[i], up);
    };
    widen_before(price, new_price - scales.price);
    widen_before(size, new_size - scales.size);
    scales = {new_price, new_size, scales.known || !book.levels.empty()};
    price_scale = new_price;
    size_scale = new_size;
    top_price_ = top_price;
    top_size_ = top_size;
    auto asks_end = static_cast<int64_t>(price.size());
    auto bids_end = static_cast<int64_t>(before + book.bids);
    const int64_t row[COLUMNS] = {book.first, book.last, book.prev, book.ts, recv, bids_end, asks_end};
    for (int i = 0; i < COLUMNS; ++i) columns[i].push_back(row[i]);
    return true;
}

}  // namespace tapewick::codec
