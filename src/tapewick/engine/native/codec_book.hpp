// Frames of order books: depth changes, best bid and ask, snapshots; and the rows a decode
// call collects of one symbol.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "codec_frame.hpp"
#include "codec_json.hpp"
#include "codec_number.hpp"

namespace tapewick::codec {

// One level as text gave it: mantissas at scales of their own.
struct Level {
    int64_t price, size;
    int8_t price_scale, size_scale;
};

// One frame. `symbol` points into the frame or into `scratch`. A quote is a book of two levels.
struct Book {
    std::string_view symbol;
    int64_t first = 0, last = 0, prev = -1;
    int64_t ts = 0;             // ns, 0 if the frame tells none
    std::vector<Level> levels;  // bids, then asks
    size_t bids = 0;
    bool fits = true;  // every value has at most 63 bits at its own scale
    std::string scratch;

    void clear();
    void add(const Decimal& price, const Decimal& size);
};

// The hand scans over a body and what must follow it; false leaves the frame to the walk.
bool scan_depth(const char* p, const char* end, std::string_view tail, Book& book);
bool scan_quote(const char* p, const char* end, std::string_view tail, Book& book);

// The generic readings of a body; nothing means it was read, else why not.
std::optional<Reject> walk_depth(const Token& body, Book& book);
std::optional<Reject> walk_quote(const Token& body, Book& book);
std::optional<Reject> walk_snapshot(const Token& body, Book& book);

// The scales a symbol's levels are kept at; `known`: set or learned, not merely the defaults.
struct BookScales {
    int price, size;
    bool known;
};

// All frames of one symbol in one decode call, as columns.
struct BookRows {
    enum Column { first_id, last_id, prev_id, ts_event, ts_recv, bid_end, ask_end };
    static constexpr int COLUMNS = 7;

    explicit BookRows(std::string_view name) : symbol(name) {}

    std::string symbol;
    std::vector<int64_t> columns[COLUMNS];
    std::vector<int64_t> price, size;
    int price_scale = 0, size_scale = 0;

    size_t frames() const { return columns[last_id].size(); }
    size_t start(size_t frame) const { return frame ? static_cast<size_t>(columns[ask_end][frame - 1]) : 0; }

    // Appends a frame at `scales`, which finer values widen, rows already here included. False, and
    // nothing changed, if a value does not fit 64 bits.
    bool append(const Book& book, int64_t recv, BookScales& scales);

private:
    int64_t top_price_ = 0, top_size_ = 0;  // largest so far
};

}  // namespace tapewick::codec
