// One raw exchange frame: what it is, and the fields of a trade.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "codec_json.hpp"
#include "codec_number.hpp"

namespace tapewick::codec {

inline constexpr size_t MAX_FRAME = 1 << 20;
inline constexpr size_t MAX_SYMBOL = 64;   // bytes
inline constexpr size_t MAX_UNKNOWN = 32;  // characters of an unknown type's name that are kept

enum class Reject { malformed_json, bad_utf8, missing_field, wrong_type, bad_number, bad_time, overflow, oversize };
inline constexpr const char* REJECT_NAMES[] = {"malformed_json", "bad_utf8", "missing_field", "wrong_type",
                                               "bad_number",     "bad_time", "overflow",      "oversize"};

// Types of frame known by name; trade and aggTrade are decoded, the others only counted.
enum class Kind : int8_t {
    trade, agg_trade, depth_update, partial_depth, book_ticker, kline, continuous_kline, mini_ticker, ticker, ticker_1h,
    ticker_4h, ticker_1d, avg_price, reference_price, block_trade, mark_price, force_order, server_shutdown, snapshot,
    control, blank, unknown
};
inline constexpr const char* KIND_NAMES[] = {
    "trade", "aggTrade", "depthUpdate", "partialDepth", "bookTicker", "kline", "continuous_kline", "24hrMiniTicker",
    "24hrTicker", "1hTicker", "4hTicker", "1dTicker", "avgPrice", "referencePrice", "blockTrade", "markPriceUpdate",
    "forceOrder", "serverShutdown", "snapshot", "control", "blank", "unknown"};
inline constexpr int KINDS = static_cast<int>(Kind::unknown) + 1;

inline bool is_trade(Kind kind) { return kind == Kind::trade || kind == Kind::agg_trade; }
inline bool is_book(Kind kind) { return kind == Kind::depth_update || kind == Kind::book_ticker; }
inline bool is_rest(Kind kind) {
    return kind == Kind::kline || kind == Kind::mini_ticker || kind == Kind::partial_depth || kind == Kind::snapshot;
}

// A decoded trade. `symbol` points into the frame or into `scratch`.
struct Trade {
    Kind kind = Kind::trade;
    std::string_view symbol;
    int64_t id = 0, first = 0;
    int32_t count = 1;
    int64_t ts = 0;  // ns
    Decimal price, size;
    int8_t side = 0;
    bool futures = false;
    bool is_void = false;  // covers its id but is no trade
    std::string scratch;
};

enum class Outcome { trade, depth, quote, rest, other, reject };

// What became of a frame. `label` names an unknown type; of a frame kept raw (`rest`) it is the
// stream's name and `body` its data, which points into the frame.
struct Verdict {
    Outcome outcome = Outcome::other;
    Kind kind = Kind::unknown;
    Reject reject = Reject::malformed_json;
    std::string label;
    std::string_view body;
};

struct Book;

// Reads one frame. Canonical trades take a scan without validation of what the scan does not
// need; anything unusual takes the generic walk, which accepts and refuses the same frames.
// With `book`, frames of order books are read too and some others kept raw, instead of only counted.
void read_frame(std::string_view frame, Trade& trade, Book* book, Verdict& verdict);

// The type a combined stream's name announces; `unknown` if none.
Kind kind_of_stream(std::string_view name);

// The type an event tag announces; `unknown` if none.
Kind kind_of_event(std::string_view tag);

// A time in ms, us or ns, told by magnitude, as ns; 0 outside 2009-01-01 … 2100-01-01.
int64_t time_ns(int64_t value);

// The generic walk over a whole frame (codec_walk.cpp).
void walk_frame(std::string_view frame, Trade& trade, Book* book, Verdict& verdict);

}  // namespace tapewick::codec
