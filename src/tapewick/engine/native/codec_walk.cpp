// The generic way to read a frame: a full JSON walk, any key order, any white space.
#include <algorithm>
#include <array>

#include "codec_book.hpp"
#include "codec_frame.hpp"

namespace tapewick::codec {

namespace {

void refuse(Verdict& verdict, Reject reason) {
    verdict.outcome = Outcome::reject;
    verdict.reject = reason;
}

// Last value of each wanted key in an object.
template <size_t N>
std::array<Token, N> pick(const Token& object, const std::array<std::string_view, N>& keys) {
    std::array<Token, N> found{};
    for (Members at(object); at.next();)
        for (size_t i = 0; i < N; ++i)
            if (at.key() == keys[i]) found[i] = at.value();
    return found;
}

enum Field { F_s, F_t, F_f, F_l, F_T, F_p, F_q, F_m, F_X, F_ps, F_e };
constexpr std::array<std::string_view, 11> FIELDS = {"s", "t", "f", "l", "T", "p", "q", "m", "X", "ps", "e"};
using Fields = std::array<Token, FIELDS.size()>;

bool symbol_of(const Token& token, Trade& trade) {
    if (token.type != Json::string) return false;
    trade.symbol = unescape(token, trade.scratch);
    return !trade.symbol.empty() && trade.symbol.size() <= MAX_SYMBOL;
}

bool absent(const Token& x) {
    if (x.type != Json::string) return x.type == Json::null;
    std::string scratch;
    std::string_view text = unescape(x, scratch);
    return text.empty() || text == "NA";
}

// The ids a record stands for; false when they or their count overflow.
bool ids_of(const Fields& f, Trade& trade) {
    if (trade.kind == Kind::trade) {
        trade.count = 1;
        if (!to_int64(f[F_t], trade.id)) return false;
        trade.first = trade.id;
        return true;
    }
    if (!to_int64(f[F_l], trade.id) || !to_int64(f[F_f], trade.first)) return false;
    int64_t span = 0;
    if (__builtin_sub_overflow(trade.id, trade.first, &span)) return false;
    if (span < int64_t{INT32_MIN} - 1 || span >= INT32_MAX) return false;
    trade.count = static_cast<int32_t>(span + 1);
    return true;
}

// The checks in the order that decides which reason is counted.
void walk_trade(const Fields& f, Trade& trade, Verdict& verdict) {
    bool agg = trade.kind == Kind::agg_trade;
    auto& low = f[agg ? F_f : F_t];
    auto& high = f[agg ? F_l : F_t];
    for (const Token* t : {&f[F_s], &low, &high, &f[F_T], &f[F_p], &f[F_q], &f[F_m]})
        if (!t->present()) return refuse(verdict, Reject::missing_field);
    bool typed = is_integer(low) && is_integer(high) && is_integer(f[F_T]) && is_number(f[F_p]) && is_number(f[F_q]) &&
                 f[F_m].type == Json::boolean;
    if (!typed || !symbol_of(f[F_s], trade)) return refuse(verdict, Reject::wrong_type);
    if (!ids_of(f, trade)) return refuse(verdict, Reject::overflow);
    if (!to_decimal(f[F_p], trade.price) || !to_decimal(f[F_q], trade.size)) return refuse(verdict, Reject::bad_number);
    int64_t time = 0;
    trade.ts = to_int64(f[F_T], time) ? time_ns(time) : 0;
    if (trade.ts == 0) return refuse(verdict, Reject::bad_time);
    trade.side = f[F_m].is_true() ? -1 : 1;
    trade.futures = f[F_X].present() || f[F_ps].present();
    trade.is_void = !agg && f[F_X].present() && absent(f[F_X]) && trade.price.mantissa == 0 && trade.size.mantissa == 0;
    verdict.outcome = Outcome::trade;
    verdict.kind = trade.kind;
}

// The first MAX_UNKNOWN characters of a name.
std::string shorten(std::string_view name) {
    size_t bytes = 0;
    for (size_t characters = 0; bytes < name.size(); ++bytes)
        if ((name[bytes] & 0xC0) != 0x80 && characters++ == MAX_UNKNOWN) break;
    return std::string(name.substr(0, bytes));
}

void count_other(Verdict& verdict, Kind kind, std::string_view label = {}) {
    verdict.outcome = Outcome::other;
    verdict.kind = kind;
    if (kind == Kind::unknown) verdict.label = shorten(label);
}

void keep_raw(Verdict& verdict, Kind kind, std::string_view stream, const Token& body) {
    verdict.outcome = Outcome::rest;
    verdict.kind = kind;
    verdict.label = stream;
    verdict.body = body.text;
}

// Where one frame is read to.
struct Walk {
    Trade& trade;
    Book* book;
    Verdict& verdict;

    // Whether a type's frames are more than counted.
    bool wanted(Kind kind) const { return is_trade(kind) || (book != nullptr && (is_book(kind) || is_rest(kind))); }

    // A body without an event tag is known by its stream or its shape.
    void shape(const Token& body, std::string_view stream) {
        auto has = pick(body, std::array<std::string_view, 10>{
                                  "u", "b", "B", "a", "A", "lastUpdateId", "result", "id", "error", "code"});
        if (has[0].present() && has[1].present() && has[2].present() && has[3].present() && has[4].present())
            return settled(body, Kind::book_ticker, stream);
        if (has[5].present()) return settled(body, Kind::snapshot, stream);
        if (has[6].present() || has[7].present() || has[8].present() || has[9].present())
            return count_other(verdict, Kind::control);
        count_other(verdict, Kind::unknown, stream);
    }

    // A body of a known type that is no trade.
    void settled(const Token& body, Kind kind, std::string_view stream) {
        if (!wanted(kind)) return count_other(verdict, kind);
        if (is_rest(kind)) return keep_raw(verdict, kind, stream, body);
        bool depth = kind == Kind::depth_update;
        if (auto refused = depth ? walk_depth(body, *book) : walk_quote(body, *book)) return refuse(verdict, *refused);
        verdict.outcome = depth ? Outcome::depth : Outcome::quote;
        verdict.kind = kind;
    }

    // A body whose type the stream did not settle (`kind` unknown), or one to be read.
    void body(const Token& body, Kind kind, std::string_view stream) {
        if (is_rest(kind)) return keep_raw(verdict, kind, stream, body);
        if (body.type != Json::object) {
            if (kind != Kind::unknown) return refuse(verdict, Reject::wrong_type);
            std::string_view shape = body.type == Json::array ? "array" : "scalar";
            return count_other(verdict, Kind::unknown, stream.empty() ? shape : stream);
        }
        Fields fields = pick(body, FIELDS);
        const Token& tag = fields[F_e];
        if (tag.present()) {
            std::string scratch;
            if (tag.type != Json::string) return refuse(verdict, Reject::wrong_type);
            std::string_view event = unescape(tag, scratch);
            Kind named = kind_of_event(event);
            if (kind == Kind::unknown && !wanted(named)) return count_other(verdict, named, event);
            if (kind != Kind::unknown && kind != named) return refuse(verdict, Reject::wrong_type);
            kind = named;
        } else if (kind == Kind::unknown) {
            return shape(body, stream);
        }
        if (!is_trade(kind)) return settled(body, kind, stream);
        trade.kind = kind;
        walk_trade(fields, trade, verdict);
    }
};

}  // namespace

void walk_frame(std::string_view frame, Trade& trade, Book* book, Verdict& verdict) {
    if (!valid_utf8(frame)) return refuse(verdict, Reject::bad_utf8);
    Token document = parse_document(frame);
    if (!document.present()) return refuse(verdict, Reject::malformed_json);
    Walk walk{trade, book, verdict};
    if (document.type == Json::object) {
        auto [stream, data] = pick(document, std::array<std::string_view, 2>{"stream", "data"});
        if (stream.present() && data.present()) {
            if (stream.type != Json::string) return refuse(verdict, Reject::wrong_type);
            std::string scratch;
            std::string_view name = unescape(stream, scratch);
            Kind kind = kind_of_stream(name);
            if (kind != Kind::unknown && !walk.wanted(kind)) return count_other(verdict, kind);
            return walk.body(data, kind, name);
        }
    }
    walk.body(document, Kind::unknown, {});
}

}  // namespace tapewick::codec
