#include "codec_frame.hpp"

#include <cstring>

#include "codec_book.hpp"
#include "codec_scan.hpp"

namespace tapewick::codec {

namespace {

constexpr std::string_view STREAM = "{\"stream\":\"";
constexpr std::string_view DATA = "\",\"data\":";
constexpr std::string_view EVENT = "{\"e\":\"";
constexpr std::string_view SNAPSHOT = "{\"lastUpdateId\":";

bool starts(const char* p, const char* end, std::string_view with) {
    return static_cast<size_t>(end - p) >= with.size() && std::memcmp(p, with.data(), with.size()) == 0;
}

// Printable ASCII without escapes: text whose JSON validity needs no further look.
bool plain(std::string_view text) {
    for (char c : text)
        if (c < 0x20 || c > 0x7e || c == '\\') return false;
    return true;
}

constexpr uint32_t bit(char key) { return 1u << (key & 31); }
constexpr uint32_t UPPER = 1u << 31;  // upper-case T shares its low bits with t

uint32_t key_bit(char key) { return key == 'T' ? UPPER : bit(key); }

constexpr uint32_t TRADE_KEYS = bit('s') | bit('t') | bit('p') | bit('q') | bit('m') | UPPER;
constexpr uint32_t AGG_KEYS = bit('s') | bit('f') | bit('l') | bit('p') | bit('q') | bit('m') | UPPER;

// The hand scan over `{"k":v,…}` with one-letter keys, no white space, no escapes.
struct Scan : Scanner {
    Trade& trade;
    int64_t t = 0, f = 0, l = 0, time = 0;
    uint32_t seen = 0;
    bool known_x = false;
    bool absent_x = false;

    bool field(char key) {
        int64_t ignored = 0;
        std::string_view text;
        bool flag = false;
        switch (key) {
            case 'e': return string(text) && text == KIND_NAMES[static_cast<int>(trade.kind)];
            case 's': return string(trade.symbol) && !trade.symbol.empty() && trade.symbol.size() <= MAX_SYMBOL;
            case 't': return integer(t);
            case 'f': return integer(f);
            case 'l': return integer(l);
            case 'T': return integer(time);
            case 'E':
            case 'a': return integer(ignored);
            case 'p': return decimal(trade.price);
            case 'q': return decimal(trade.size);
            case 'M': return boolean(flag);
            case 'm':
                if (!boolean(flag)) return false;
                trade.side = flag ? -1 : 1;
                return true;
            case 'X':
                if (!string(text)) return false;
                known_x = true;
                absent_x = text.empty() || text == "NA";
                return true;
            default: return false;
        }
    }

    // From '{' past the matching '}'. Repeated needed keys go to the walk, where the last one counts.
    bool object() {
        if (p == end || *p++ != '{') return false;
        for (;;) {
            if (end - p < 5 || p[0] != '"' || p[2] != '"' || p[3] != ':') return false;
            char key = p[1];
            p += 4;
            uint32_t mark = key == 'E' || key == 'M' || key == 'X' ? 0 : key_bit(key);
            if ((seen & mark) != 0 || (key == 'X' && known_x)) return false;
            seen |= mark;
            if (!field(key) || p == end) return false;
            if (*p == '}') break;
            if (*p++ != ',') return false;
        }
        ++p;
        return finish();
    }

    bool finish() {
        uint32_t needed = trade.kind == Kind::trade ? TRADE_KEYS : AGG_KEYS;
        if ((seen & needed) != needed) return false;
        bool agg = trade.kind == Kind::agg_trade;
        trade.id = agg ? l : t;
        trade.first = agg ? f : t;
        int64_t count = agg ? l - f + 1 : 1;
        if (count < INT32_MIN || count > INT32_MAX) return false;
        trade.count = static_cast<int32_t>(count);
        trade.ts = time_ns(time);
        trade.futures = known_x;
        trade.is_void = !agg && absent_x && trade.price.mantissa == 0 && trade.size.mantissa == 0;
        return trade.ts != 0;
    }
};

bool scan_body(const char* p, const char* end, std::string_view tail, Kind kind, Trade& trade) {
    trade.kind = kind;
    Scan scan{{p, end}, trade};
    return scan.object() && std::string_view(scan.p, static_cast<size_t>(end - scan.p)) == tail;
}

// A frame of an order book, or one kept raw; false leaves it to the walk.
[[gnu::noinline]] bool scan_other(std::string_view name, const char* body, const char* end, std::string_view tail, Book& book, Verdict& verdict) {
    if (is_rest(verdict.kind)) {
        std::string_view rest{body, static_cast<size_t>(end - body)};
        if (!plain(name) || !rest.ends_with(tail)) return false;
        verdict.outcome = Outcome::rest;
        verdict.label = name;
        verdict.body = rest.substr(0, rest.size() - tail.size());
        return true;
    }
    verdict.outcome = verdict.kind == Kind::depth_update ? Outcome::depth : Outcome::quote;
    return plain(name) && (verdict.kind == Kind::depth_update ? scan_depth : scan_quote)(body, end, tail, book);
}

// Whether the frame was settled by its first bytes and, if it is to be read, the hand scan.
bool scan_frame(std::string_view frame, Trade& trade, Book* book, Verdict& verdict) {
    const char* p = frame.data();
    const char* end = p + frame.size();
    auto settle = [&](Kind kind, std::string_view name, const char* body, std::string_view tail) {
        verdict.kind = kind;
        if (is_trade(kind)) {
            verdict.outcome = Outcome::trade;
            return plain(name) && scan_body(body, end, tail, kind, trade);
        }
        if (book != nullptr && (is_book(kind) || is_rest(kind))) return scan_other(name, body, end, tail, *book, verdict);
        verdict.outcome = Outcome::other;
        return kind != Kind::unknown;
    };
    auto quoted = [&](std::string_view prefix) {
        const char* start = p + prefix.size();
        auto quote = static_cast<const char*>(std::memchr(start, '"', static_cast<size_t>(end - start)));
        return quote == nullptr ? std::string_view() : std::string_view(start, static_cast<size_t>(quote - start));
    };
    if (starts(p, end, STREAM)) {
        std::string_view name = quoted(STREAM);
        const char* after = name.data() + name.size();
        if (name.empty() || !starts(after, end, DATA)) return false;
        return settle(kind_of_stream(name), name, after + DATA.size(), "}");
    }
    if (starts(p, end, EVENT)) {
        std::string_view tag = quoted(EVENT);
        if (tag.empty() || !starts(tag.data() + tag.size(), end, "\",")) return false;
        return settle(kind_of_event(tag), {}, p, "");
    }
    if (starts(p, end, SNAPSHOT)) return settle(Kind::snapshot, {}, p, "");
    return false;
}

}  // namespace

Kind kind_of_event(std::string_view tag) {
    for (int i = 0; i < static_cast<int>(Kind::snapshot); ++i)
        if (tag == KIND_NAMES[i] && i != static_cast<int>(Kind::partial_depth)) return static_cast<Kind>(i);
    return Kind::unknown;
}

Kind kind_of_stream(std::string_view name) {
    std::string_view channel;
    if (!name.empty() && name[0] == '!') {
        channel = name.substr(1);
    } else if (size_t at = name.find('@'); at != std::string_view::npos) {
        channel = name.substr(at + 1);
    }
    channel = channel.substr(0, channel.find('@'));
    if (channel == "trade") return Kind::trade;
    if (channel == "bookTicker") return Kind::book_ticker;
    if (channel.starts_with("depth")) {
        std::string_view levels = channel.substr(5);
        if (levels.empty()) return Kind::depth_update;
        return levels == "5" || levels == "10" || levels == "20" ? Kind::partial_depth : Kind::unknown;
    }
    if (channel == "aggTrade") return Kind::agg_trade;
    if (channel.starts_with("kline_")) return Kind::kline;
    if (channel.starts_with("continuousKline_")) return Kind::continuous_kline;
    if (channel == "miniTicker") return Kind::mini_ticker;
    if (channel == "ticker") return Kind::ticker;
    if (channel == "ticker_1h") return Kind::ticker_1h;
    if (channel == "ticker_4h") return Kind::ticker_4h;
    if (channel == "ticker_1d") return Kind::ticker_1d;
    if (channel == "markPrice") return Kind::mark_price;
    for (Kind kind : {Kind::avg_price, Kind::reference_price, Kind::block_trade, Kind::force_order, Kind::server_shutdown})
        if (channel == KIND_NAMES[static_cast<int>(kind)]) return kind;
    return Kind::unknown;
}

int64_t time_ns(int64_t value) {
    constexpr int64_t from = 1'230'768'000'000, to = 4'102'444'800'000;  // ms
    for (int64_t unit : {1'000'000, 1'000, 1}) {
        int64_t scale = 1'000'000 / unit;
        if (value >= from * scale && value < to * scale) return value * unit;
    }
    return 0;
}

void read_frame(std::string_view frame, Trade& trade, Book* book, Verdict& verdict) {
    if (frame.size() > MAX_FRAME) {
        verdict.outcome = Outcome::reject;
        verdict.reject = Reject::oversize;
    } else if (!scan_frame(frame, trade, book, verdict)) {
        walk_frame(frame, trade, book, verdict);
    }
}

}  // namespace tapewick::codec
